"""SelfHealing V2: what it adds to V1 is an objective for each service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.contracts.clock import LoopClock
from modules.contracts.errors import ConfigurationError, DuplicateServiceError
from modules.contracts.events import EventBus
from modules.contracts.health import HealthCheckResult, HealthStatus, ProbeOutcome, ProbeResult, ServiceOptions
from modules.contracts.slo import SLOStatus
from modules.SelfHealing_V2.src.backend_integration import ServiceObjective, get_health_monitor
from runtime.simulation.loop import virtual_time

Outcome = bool | ProbeResult
ERROR = ProbeResult(ProbeOutcome.ERROR, "no descriptor left")


class Bench:
    """A monitor with objectives over one service whose answer and slowness are set."""

    def __init__(self, use_backend: bool, **arguments: Any) -> None:
        self.clock = LoopClock()
        self.events = EventBus(self.clock)
        self.monitor = get_health_monitor(
            **{"slo_latency_ms": 100, "slo_availability": 90, "slo_window_days": 1, **arguments},
            use_backend=use_backend,
            clock=self.clock,
            events=self.events,
        )
        self.answer: Outcome = True
        self.takes_s = 0.0

    async def check(self) -> Outcome:
        await asyncio.sleep(self.takes_s)
        return self.answer

    async def look(self, *answers: Outcome) -> HealthCheckResult:
        for self.answer in answers:
            result = await self.monitor.check_health("api")
        return result

    def budget_story(self) -> list[str]:
        return [event.as_dict()["current"] for event in self.events.recent() if event.kind == "budget_changed"]


@pytest.fixture(params=["backend", "local"])
def make_bench(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    return lambda **arguments: Bench(request.param == "backend", **arguments)


@virtual_time
async def test_a_check_that_passed_in_time_meets_its_objective(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    result = await bench.look(True)
    assert (result.slo_status, result.error_budget_remaining) == (SLOStatus.MET, 100.0)


@virtual_time
async def test_a_check_that_failed_violates_even_with_budget_left(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(slo_availability=50)
    bench.monitor.register_service("api", bench.check)
    result = await bench.look(*[True] * 9, False)
    assert (result.slo_status, result.error_budget_remaining) == (SLOStatus.VIOLATED, 80.0)
    assert bench.monitor.get_slo_status()["api"].status is SLOStatus.MET


@virtual_time
async def test_a_check_that_was_too_slow_violates_although_it_passed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    bench.takes_s = 0.101
    result = await bench.look(True)
    assert (result.healthy, result.slo_status) == (True, SLOStatus.VIOLATED)
    assert bench.monitor.get_slo_status()["api"].good == 0


@virtual_time
async def test_a_good_check_after_the_budget_is_spent_still_says_violated(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    result = await bench.look(False, True)
    assert (result.healthy, result.slo_status) == (True, SLOStatus.VIOLATED)
    assert result.error_budget_remaining == pytest.approx(-400)


@virtual_time
async def test_under_a_quarter_of_the_budget_is_at_risk(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    result = await bench.look(False, *[True] * 11)
    assert result.slo_status is SLOStatus.AT_RISK
    assert result.error_budget_remaining == pytest.approx(100 / 6)


@virtual_time
async def test_the_probers_own_error_is_not_counted(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    result = await bench.look(ERROR)
    assert (result.slo_status, result.error_budget_remaining) == (SLOStatus.NO_DATA, None)
    assert (await bench.look(True, ERROR)).slo_status is SLOStatus.MET
    assert bench.monitor.get_slo_status()["api"].total == 1


@virtual_time
async def test_nothing_counts_in_maintenance(make_bench: Callable[..., Bench]) -> None:
    at_work = {"api"}
    bench = make_bench(in_maintenance=at_work.__contains__)
    bench.monitor.register_service("api", bench.check)
    assert (await bench.look(False)).slo_status is SLOStatus.NO_DATA
    at_work.clear()
    assert (await bench.look(True)).error_budget_remaining == 100.0


@virtual_time
async def test_what_is_registered_on_local_has_its_objective_too(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor._local.register_service("api", bench.check)
    assert (await bench.look(True)).slo_status is SLOStatus.MET
    assert list(bench.monitor.get_slo_status()) == ["api"]


@virtual_time
async def test_scheduled_results_are_counted_once_and_listeners_hear_them_with_their_budget(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    heard: list[HealthCheckResult] = []
    bench.monitor.add_listener(heard.append)
    bench.monitor.register_service("api", bench.check, options=ServiceOptions(interval_s=1))
    await bench.monitor.start()
    await asyncio.sleep(20)
    await bench.monitor.stop()
    assert bench.monitor.get_slo_status()["api"].total == len(heard) >= 19
    assert {result.slo_status for result in heard} == {SLOStatus.MET}
    assert bench.monitor.get_status("api").last == heard[-1]


@virtual_time
async def test_each_change_of_the_objectives_status_is_told_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    await bench.look(*[True] * 19, False, False, False, False)
    assert bench.budget_story() == ["met", "at_risk", "violated"]


@virtual_time
async def test_a_service_may_promise_something_else(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    own = ServiceObjective(latency_ms=500, availability=99.0, window_days=7)
    bench.monitor.register_service("api", bench.check, slo=own)
    bench.takes_s = 0.4
    assert (await bench.look(True)).slo_status is SLOStatus.MET
    report = bench.monitor.get_slo_status()["api"]
    assert (report.objective, report.window_s) == (99.0, 7 * 86_400)


@virtual_time
async def test_what_a_service_does_not_say_comes_from_the_monitor(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check, slo=ServiceObjective(latency_ms=500))
    report = bench.monitor.get_slo_status()["api"]
    assert (report.objective, report.window_s) == (90.0, 86_400)


@virtual_time
async def test_a_refused_registration_leaves_no_objective_behind(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    await bench.look(True)
    with pytest.raises(DuplicateServiceError):
        bench.monitor.register_service("api", bench.check)
    assert bench.monitor.get_slo_status()["api"].total == 1
    with pytest.raises(ConfigurationError, match="slo_availability"):
        bench.monitor.register_service("web", bench.check, slo=ServiceObjective(availability=100))
    assert bench.monitor.services == ("api",)
    bench.monitor.unregister_service("api")
    assert bench.monitor.get_slo_status() == {}
    assert bench.monitor.trackers == {}
    assert bench.monitor.get_slo_report("api") is None


@pytest.mark.parametrize("use_backend", [True, False])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("slo_availability", 100),
        ("slo_availability", 101),
        ("slo_availability", 0),
        ("slo_availability", -1),
        ("slo_availability", float("nan")),
        ("slo_availability", True),
        ("slo_availability", "99.9"),
        ("slo_latency_ms", 0),
        ("slo_latency_ms", -5),
        ("slo_latency_ms", float("nan")),
        ("slo_latency_ms", float("inf")),
        ("slo_window_days", 0),
        ("slo_window_days", 367),
        ("slo_window_days", None),
    ],
)
def test_an_objective_that_cannot_be_kept_is_refused_by_its_name(use_backend: bool, argument: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{argument} must be above 0.*found"):
        get_health_monitor(**{argument: value}, use_backend=use_backend)


@virtual_time
async def test_a_listener_that_raises_is_reported_and_the_check_still_answers(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()

    def broken(result: HealthCheckResult) -> None:
        raise ValueError("listener broke")

    bench.monitor.add_listener(broken)
    bench.monitor.register_service("api", bench.check)
    assert (await bench.look(True)).healthy
    assert "listener broke" in next(e.message for e in bench.events.recent() if e.kind == "component_failed")


@given(st.lists(st.tuples(st.sampled_from([True, False, ERROR]), st.sampled_from([0.0, 0.05, 0.2])), max_size=30))
def test_good_and_total_are_what_the_checks_were(checks: list[tuple[Outcome, float]]) -> None:
    @virtual_time
    async def run(use_backend: bool) -> tuple[int, int]:
        bench = Bench(use_backend)
        bench.monitor.register_service("api", bench.check)
        for answer, bench.takes_s in checks:
            await bench.look(answer)
        report = bench.monitor.get_slo_status()["api"]
        return report.good, report.total

    counted = [(answer, takes_s) for answer, takes_s in checks if answer is not ERROR]
    expected = (sum(answer is True and takes_s <= 0.1 for answer, takes_s in counted), len(counted))
    assert run(True) == run(False) == expected


@virtual_time
async def test_what_fails_before_its_first_pass_while_it_starts_is_waited_for_and_not_counted(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check, options=ServiceOptions(startup_grace_s=60))
    await bench.look(False, False)
    assert bench.monitor.get_slo_status()["api"].total == 0
    await bench.look(True)
    bench.monitor.expect_restart("api")
    await bench.look(False)
    report = bench.monitor.get_slo_status()["api"]
    assert (report.good, report.total) == (1, 2)


@virtual_time
async def test_a_name_that_is_not_registered_is_unknown_and_says_which_there_are(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.monitor.register_service("api", bench.check)
    result = await bench.monitor.check_health("apu")
    assert (result.healthy, result.status, result.slo_status) == (False, HealthStatus.UNKNOWN, SLOStatus.NO_DATA)
    assert "did you mean 'api'?" in result.detail
