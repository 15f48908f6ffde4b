from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest

from modules.contracts.errors import (
    ConfigurationError,
    DependencyError,
    DuplicateServiceError,
    UnknownServiceError,
)
from modules.contracts.events import ProcessExited
from modules.contracts.health import HealthStatus, ProbeOutcome, ProbeResult, Role, ServiceOptions, Wait
from runtime.simulation.loop import virtual_time


@virtual_time
async def test_a_failed_service_is_unhealthy_within_an_interval_and_two_quick_reprobes(make_bench):
    bench = make_bench()
    bench.watch("api", interval_s=5, reprobe_s=0.25, fall=3)
    await bench.monitor.start()
    await asyncio.sleep(12)
    bench.well["api"] = False
    broke = bench.clock.time()
    await asyncio.sleep(30)
    assert [event.current for event in bench.told("health_changed")] == ["healthy", "unhealthy"]
    assert bench.told("health_changed")[1].at - broke <= 5 + 2 * 0.25
    await bench.monitor.stop()


@virtual_time
async def test_scheduled_checks_keep_their_interval(make_bench):
    bench = make_bench()
    bench.watch("api", interval_s=5)
    await bench.monitor.start()
    await asyncio.sleep(100)
    times = bench.checks["api"]
    assert len(times) == 20
    assert {round(later - earlier, 6) for earlier, later in pairwise(times)} == {5.0}
    await bench.monitor.stop()


@virtual_time
async def test_the_dependent_of_a_failed_service_names_the_root_when_it_fails(make_bench):
    bench = make_bench()
    bench.watch("db", interval_s=60, fall=2)
    bench.watch("cache", interval_s=60, fall=2, depends_on=("db",))
    bench.watch("api", interval_s=1, fall=2, depends_on=("cache",))
    await bench.monitor.start()
    await asyncio.sleep(5)
    bench.well.update(db=False, cache=False, api=False)
    await asyncio.sleep(3)
    changes = {event.service: event for event in bench.told("health_changed") if event.current == "unhealthy"}
    assert list(changes) == ["db", "cache", "api"]
    assert changes["db"].affected_by == ()
    assert changes["api"].affected_by == ("db",)
    assert bench.monitor.get_status("api").affected_by == ("db",)
    await bench.monitor.stop()


@virtual_time
async def test_dependents_are_looked_at_soon_after_their_root_recovers(make_bench):
    bench = make_bench()
    bench.watch("db", interval_s=1, fall=1)
    bench.watch("api", interval_s=60, fall=1, depends_on=("db",))
    bench.well.update(db=False, api=False)
    await bench.monitor.start()
    await asyncio.sleep(5)
    bench.well.update(db=True, api=True)
    await asyncio.sleep(2)
    assert bench.monitor.get_status("api").status is HealthStatus.HEALTHY
    await bench.monitor.stop()


@virtual_time
async def test_a_check_on_demand_joins_the_one_under_way(make_bench):
    bench = make_bench()
    calls = []

    async def slow() -> bool:
        calls.append(1)
        await asyncio.sleep(0.5)
        return True

    bench.monitor.register_service("api", slow)
    first, second = await asyncio.gather(bench.monitor.check_health("api"), bench.monitor.check_health("api"))
    assert len(calls) == 1
    assert first is second
    assert first.latency_ms == pytest.approx(500)


@virtual_time
async def test_a_caller_that_gives_up_does_not_end_the_check_for_the_others(make_bench):
    bench = make_bench()

    async def slow() -> bool:
        await asyncio.sleep(0.5)
        return True

    bench.monitor.register_service("api", slow)
    impatient = asyncio.create_task(bench.monitor.check_health("api"))
    patient = asyncio.create_task(bench.monitor.check_health("api"))
    await asyncio.sleep(0.1)
    impatient.cancel()
    assert (await patient).healthy
    assert impatient.cancelled()


@virtual_time
async def test_a_check_that_never_ends_fails_at_its_timeout(make_bench):
    bench = make_bench()

    async def hang() -> bool:
        await asyncio.sleep(math.inf)
        return True

    bench.monitor.register_service("api", hang, options=ServiceOptions(timeout_s=2))
    result = await bench.monitor.check_health("api")
    assert (result.outcome, result.latency_ms) == (ProbeOutcome.FAIL, pytest.approx(2000))
    assert "2000 ms" in result.detail


@virtual_time
@pytest.mark.parametrize("answer", [1, "ok", 0, [], object()])
async def test_an_answer_that_is_no_verdict_fails_and_says_what_it_must_be(make_bench, answer):
    bench = make_bench()

    async def check() -> object:
        return answer

    bench.monitor.register_service("api", check)
    result = await bench.monitor.check_health("api")
    assert not result.healthy
    assert "must return a bool" in result.detail


@virtual_time
async def test_an_exception_is_a_failure_with_its_text(make_bench):
    bench = make_bench()

    async def check() -> bool:
        raise OSError("disk on fire")

    bench.monitor.register_service("api", check)
    assert "disk on fire" in (await bench.monitor.check_health("api")).detail


@virtual_time
async def test_the_probers_own_error_is_told_once_and_is_no_failure(make_bench):
    bench = make_bench()

    async def check() -> ProbeResult:
        return ProbeResult(ProbeOutcome.ERROR, "no descriptor left")

    bench.monitor.register_service("api", check, options=ServiceOptions(interval_s=1))
    await bench.monitor.start()
    await asyncio.sleep(30)
    assert [event.detail for event in bench.told("probe_erred")] == ["no descriptor left"]
    assert bench.monitor.get_status("api").status is HealthStatus.UNKNOWN
    await bench.monitor.stop()


@virtual_time
async def test_a_startup_probe_holds_back_the_others_until_it_passes(make_bench):
    bench = make_bench()
    asked: list[str] = []
    up = False

    async def startup() -> bool:
        asked.append("startup")
        return up

    async def liveness() -> bool:
        asked.append("liveness")
        return True

    bench.monitor.register_service("api", liveness, startup=startup)
    result = await bench.monitor.check_health("api")
    assert (result.role, result.status) == (Role.STARTUP, HealthStatus.STARTING)
    up = True
    assert (await bench.monitor.check_health("api")).status is HealthStatus.HEALTHY
    await bench.monitor.check_health("api")
    assert asked == ["startup", "startup", "liveness", "liveness"]


@virtual_time
async def test_a_readiness_probe_that_fails_degrades(make_bench):
    bench = make_bench()

    async def well() -> bool:
        return True

    async def unready() -> bool:
        return False

    bench.monitor.register_service("api", well, readiness=unready, options=ServiceOptions(fall=1))
    result = await bench.monitor.check_health("api")
    assert (result.role, result.status) == (Role.READINESS, HealthStatus.DEGRADED)
    assert not bench.monitor.get_status("api").ready


@virtual_time
async def test_a_paused_service_is_not_checked_until_it_is_resumed(make_bench):
    bench = make_bench()
    bench.watch("api", interval_s=1)
    await bench.monitor.start()
    await asyncio.sleep(5)
    bench.monitor.pause("api")
    before = len(bench.checks["api"])
    await asyncio.sleep(50)
    assert len(bench.checks["api"]) == before
    bench.events.publish(ProcessExited(service="api", pid=7, exit_code=1, expected=False))
    bench.monitor.expect_restart("api")
    await asyncio.sleep(5)
    assert len(bench.checks["api"]) == before
    assert bench.monitor.get_status("api").paused
    bench.monitor.resume("api")
    await asyncio.sleep(0.1)
    assert len(bench.checks["api"]) == before + 1
    await bench.monitor.stop()


@virtual_time
async def test_the_unexpected_end_of_a_process_is_looked_at_at_once(make_bench):
    bench = make_bench()
    bench.watch("api", interval_s=60)
    await bench.monitor.start()
    await asyncio.sleep(5)
    before = len(bench.checks["api"])
    bench.events.publish(ProcessExited(service="api", pid=7, exit_code=-9, expected=True))
    await asyncio.sleep(1)
    assert len(bench.checks["api"]) == before
    bench.events.publish(ProcessExited(service="api", pid=8, exit_code=-9, expected=False))
    await asyncio.sleep(0.01)
    assert len(bench.checks["api"]) == before + 1
    await bench.monitor.stop()


@virtual_time
async def test_a_check_begun_before_a_restart_does_not_count_after_it(make_bench):
    bench = make_bench()

    async def slow() -> bool:
        await asyncio.sleep(0.5)
        return False

    bench.monitor.register_service("api", slow, options=ServiceOptions(fall=1))
    check = asyncio.create_task(bench.monitor.check_health("api"))
    await asyncio.sleep(0.1)
    bench.monitor.expect_restart("api")
    await check
    assert bench.monitor.get_status("api").status is HealthStatus.UNKNOWN
    assert bench.results == []


@virtual_time
async def test_whoever_waits_for_a_check_of_a_service_that_is_forgotten_is_told_so(make_bench):
    bench = make_bench()

    async def hang() -> bool:
        await asyncio.sleep(0.5)
        return True

    bench.monitor.register_service("api", hang)
    check = asyncio.create_task(bench.monitor.check_health("api"))
    await asyncio.sleep(0.1)
    bench.monitor.unregister_service("api")
    with pytest.raises(UnknownServiceError, match="'api'"):
        await check
    await bench.monitor.stop()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_nothing_runs_after_stop_and_stop_is_safe_twice(make_bench):
    bench = make_bench()
    await bench.monitor.stop()
    bench.watch("api", interval_s=1)
    await bench.monitor.start()
    await asyncio.sleep(3)
    await bench.monitor.stop()
    await bench.monitor.stop()
    before = len(bench.checks["api"])
    await asyncio.sleep(60)
    assert len(bench.checks["api"]) == before
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_listener_that_raises_is_reported_and_the_others_hear(make_bench):
    bench = make_bench()
    heard = []

    def broken(result: object) -> None:
        raise ValueError("listener broke")

    bench.monitor.add_listener(broken)
    bench.monitor.add_listener(heard.append)
    bench.watch("api")
    await bench.monitor.check_health("api")
    assert len(heard) == 1
    assert "listener broke" in bench.told("component_failed")[0].message


@virtual_time
async def test_registration_refuses_and_then_changes_nothing(make_bench):
    bench = make_bench()
    bench.watch("api")
    with pytest.raises(DuplicateServiceError, match="'api'"):
        bench.watch("api")

    def not_async() -> bool:
        return True

    with pytest.raises(ConfigurationError, match="async def"):
        bench.monitor.register_service("web", not_async)
    for wrong in ({"interval_s": 0}, {"timeout_s": math.nan}, {"fall": 0}, {"rise": 1.5}, {"startup_grace_s": -1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            bench.watch("web", **wrong)
    assert bench.monitor.services == ("api",)


@virtual_time
async def test_dependencies_must_be_there_at_start_and_once_started_at_registration(make_bench):
    bench = make_bench()
    bench.watch("api", depends_on=("db",))
    with pytest.raises(DependencyError, match="'db'"):
        await bench.monitor.start()
    bench.watch("db")
    await bench.monitor.start()
    with pytest.raises(DependencyError, match="'kv'"):
        bench.watch("web", depends_on=("kv",))
    assert bench.monitor.services == ("api", "db")
    await bench.monitor.stop()


@virtual_time
async def test_an_unknown_name_is_told_with_the_nearest_right_one(make_bench):
    bench = make_bench()
    bench.watch("api")
    with pytest.raises(UnknownServiceError, match="did you mean 'api'"):
        await bench.monitor.check_health("apo")


@virtual_time
async def test_a_first_result_that_is_still_awaited_is_no_error_of_the_prober(make_bench):
    bench = make_bench()
    answer = ProbeResult(ProbeOutcome.ERROR, "no heartbeat yet", wait=Wait(1, 30))

    async def check():
        return answer

    bench.monitor.register_service("worker", check, options=ServiceOptions(interval_s=1.0))
    await bench.monitor.start()
    await asyncio.sleep(20)
    assert bench.story() == []
    answer = ProbeResult(ProbeOutcome.ERROR, "no descriptors left")
    await asyncio.sleep(2)
    assert [event.detail for event in bench.told("probe_erred")] == ["no descriptors left"]
    await bench.monitor.stop()


@virtual_time
async def test_no_error_of_the_prober_is_told_while_a_service_starts(make_bench):
    bench = make_bench()

    async def check():
        return ProbeResult(ProbeOutcome.ERROR, "no descriptors left")

    bench.monitor.register_service("api", check, options=ServiceOptions(interval_s=1.0, startup_grace_s=10.0))
    await bench.monitor.start()
    await asyncio.sleep(9)
    assert bench.told("probe_erred") == []
    await asyncio.sleep(3)
    assert len(bench.told("probe_erred")) == 1
    await bench.monitor.stop()


@virtual_time
async def test_a_service_that_turns_healthy_is_told_without_whose_failure_could_affect_it(make_bench):
    bench = make_bench()
    bench.watch("db", interval_s=1.0)
    bench.watch("worker", interval_s=1.0, depends_on=("db",))
    bench.well["db"] = bench.well["worker"] = False
    await bench.monitor.start()
    await asyncio.sleep(5)
    bench.well["worker"] = True
    await asyncio.sleep(2)
    told = [(event.current, event.affected_by) for event in bench.told("health_changed") if event.service == "worker"]
    assert told == [("unhealthy", ("db",)), ("healthy", ())]
    await bench.monitor.stop()
