"""The monitor under a virtual clock: what it does, and at which second."""

import asyncio
import functools
import random

import pytest

from backend.shared.self_healing.monitor import HealthMonitor
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import (
    ConfigurationError,
    DependencyError,
    DuplicateServiceError,
    SelfrightError,
    UnknownServiceError,
)
from modules.contracts.events import (
    ComponentFailed,
    EventBus,
    FlappingChanged,
    HealthChanged,
    ProbeErred,
    ProcessExited,
)
from modules.contracts.health import HealthStatus, ProbeOutcome, ProbeResult, Role, ServiceOptions, Wait
from runtime.simulation.loop import virtual_time

ERROR = ProbeResult(ProbeOutcome.ERROR, "no descriptors left")


class Service:
    """A check whose answer is set from outside, and which notes when it was called."""

    def __init__(self, clock, answer=True, takes=0.0):
        self.clock = clock
        self.answer = answer
        self.takes = takes
        self.calls = []
        self.overlap = self.running = 0

    async def __call__(self):
        self.calls.append(self.clock.monotonic())
        answer = self.answer
        self.running += 1
        self.overlap = max(self.overlap, self.running)
        try:
            if self.takes:
                await asyncio.sleep(self.takes)
        finally:
            self.running -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self):
        self.clock = LoopClock()
        self.bus = EventBus(self.clock, history=100_000)
        self.monitor = HealthMonitor(clock=self.clock, events=self.bus, rng=random.Random(7))
        self.results = []
        self.monitor.add_listener(self.results.append)

    def add(self, name, answer=True, takes=0.0, *, readiness=None, startup=None, **options):
        service = Service(self.clock, answer, takes)
        self.monitor.register_service(
            name, service, readiness=readiness, startup=startup, options=ServiceOptions(**options)
        )
        return service

    def status(self, name):
        return self.monitor.get_status(name).status

    def events(self, kind, service=None):
        return [e for e in self.bus.recent() if isinstance(e, kind) and (service is None or e.service == service)]

    def changes(self, service=None):
        return [(e.service, e.current, e.affected_by) for e in self.events(HealthChanged, service)]


@pytest.fixture
def world():
    return World()


# --- schedule -----------------------------------------------------------------------------------------


@virtual_time
async def test_a_service_is_checked_once_an_interval_and_never_twice_at_once(world):
    service = world.add("a", takes=3.0, interval_s=2.0, timeout_s=10.0)
    await world.monitor.start()
    await world.clock.sleep(60)
    await world.monitor.stop()
    assert service.overlap == 1
    assert 14 <= len(service.calls) <= 16  # each takes 3 s and so begins at every second point of the grid


@virtual_time
async def test_every_service_is_checked_soon_after_the_start(world):
    services = [world.add(f"s{n}", interval_s=60.0) for n in range(200)]
    await world.monitor.start()
    await world.clock.sleep(0.25)
    assert all(service.calls for service in services)
    await world.monitor.stop()


@virtual_time
async def test_a_failure_is_detected_within_an_interval_and_two_quick_re_probes(world):
    service = world.add("a", interval_s=5.0, reprobe_s=0.25, fall=3)
    await world.monitor.start()
    await world.clock.sleep(22.2)
    service.answer, failed_at = False, world.clock.time()
    await world.clock.sleep(8)
    await world.monitor.stop()
    (event,) = [e for e in world.events(HealthChanged) if e.current == "unhealthy"]
    assert event.at - failed_at <= 5.0 + 2 * 0.25 + 0.01
    assert event.detail == "the check returned False"


@virtual_time
async def test_a_healthy_or_finally_failed_service_is_not_looked_at_more_often_than_its_interval(world):
    service = world.add("a", answer=False, interval_s=10.0, fall=3)
    await world.monitor.start()
    await world.clock.sleep(1)
    assert len(service.calls) == 3
    await world.clock.sleep(100)
    assert len(service.calls) == 13
    await world.monitor.stop()


@virtual_time
async def test_a_paused_service_is_not_checked_until_it_is_resumed_and_then_at_once(world):
    service = world.add("a", interval_s=1.0)
    await world.monitor.start()
    await world.clock.sleep(3.5)
    world.monitor.pause("a")
    seen = len(service.calls)
    await world.clock.sleep(30)
    assert len(service.calls) == seen
    assert world.monitor.get_status("a").paused
    assert (await world.monitor.check_health("a")).healthy  # on demand always
    world.monitor.resume("a")
    await world.clock.sleep(0.01)
    assert len(service.calls) == seen + 2
    await world.clock.sleep(5)
    assert len(service.calls) >= seen + 6
    await world.monitor.stop()


@virtual_time
async def test_a_service_registered_after_the_start_is_checked_at_once_and_on(world):
    world.add("a", interval_s=50.0)
    await world.monitor.start()
    await world.clock.sleep(3)
    late = world.add("late", interval_s=1.0)
    await world.clock.sleep(0.01)
    assert len(late.calls) == 1
    await world.clock.sleep(10)
    assert len(late.calls) >= 10
    await world.monitor.stop()


@virtual_time
async def test_an_unexpected_exit_of_its_process_is_looked_at_at_once_and_an_expected_one_is_not(world):
    service = world.add("a", interval_s=60.0)
    await world.monitor.start()
    await world.clock.sleep(1)
    world.bus.publish(ProcessExited(service="a", pid=1, exit_code=0, expected=True))
    world.bus.publish(ProcessExited(service="stranger", pid=2, exit_code=1, expected=False))
    await world.clock.sleep(1)
    assert len(service.calls) == 1
    service.answer = False
    world.bus.publish(ProcessExited(service="a", pid=1, exit_code=-9, expected=False))
    await world.clock.sleep(0.6)
    assert world.status("a") is HealthStatus.UNHEALTHY
    await world.monitor.stop()


@virtual_time
async def test_an_exit_during_a_check_is_followed_by_another_check(world):
    service = world.add("a", takes=0.5, interval_s=60.0)
    await world.monitor.start()
    await world.clock.sleep(0.2)
    world.bus.publish(ProcessExited(service="a", pid=1, exit_code=1, expected=False))
    await world.clock.sleep(0.4)
    assert len(service.calls) == 2
    await world.monitor.stop()


# --- one check ----------------------------------------------------------------------------------------


@virtual_time
async def test_checks_on_demand_join_the_one_under_way_and_count_once(world):
    service = world.add("a", takes=1.0, timeout_s=5.0)
    results = await asyncio.gather(*(world.monitor.check_health("a") for _ in range(10)))
    assert len(service.calls) == 1
    assert all(result is results[0] for result in results)
    assert world.monitor.get_status("a").consecutive_passes == 1


@virtual_time
async def test_a_caller_who_gives_up_does_not_end_the_check_of_the_others(world):
    world.add("a", takes=1.0, timeout_s=5.0)
    patient = asyncio.create_task(world.monitor.check_health("a"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.monitor.check_health("a"), 0.1)
    assert (await patient).healthy


@virtual_time
async def test_a_check_that_hangs_fails_at_its_timeout(world):
    world.add("a", takes=3600.0, timeout_s=0.8)
    result = await world.monitor.check_health("a")
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "no verdict within 800 ms")
    assert result.latency_ms == pytest.approx(800)


@virtual_time
async def test_a_check_that_ignores_its_cancellation_fails_and_is_never_run_twice_at_once(world):
    release, calls = asyncio.Event(), []

    async def deaf():
        calls.append(1)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return True

    world.monitor.register_service("a", deaf, options=ServiceOptions(timeout_s=0.5, interval_s=1.0))
    await world.monitor.start()
    await world.clock.sleep(30)
    assert world.status("a") is HealthStatus.UNHEALTHY
    assert "still runs" in world.monitor.get_status("a").last.detail
    assert len(calls) == 1
    release.set()
    await world.clock.sleep(2.0)
    assert world.status("a") is HealthStatus.HEALTHY
    await world.monitor.stop()


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (True, ProbeOutcome.PASS, ""),
        (None, ProbeOutcome.PASS, ""),
        (False, ProbeOutcome.FAIL, "the check returned False"),
        (ProbeResult(ProbeOutcome.FAIL, "disk full"), ProbeOutcome.FAIL, "disk full"),
        (ValueError("no table stock"), ProbeOutcome.FAIL, "ValueError: no table stock"),
        (KeyError(), ProbeOutcome.FAIL, "KeyError"),
        (1, ProbeOutcome.FAIL, "the check returned 1; it must return True, False, None or a ProbeResult"),
        ("ok", ProbeOutcome.FAIL, "the check returned 'ok'; it must return True, False, None or a ProbeResult"),
    ],
)
def test_what_a_check_returns_or_raises_is_its_verdict(world, answer, outcome, detail):
    @virtual_time
    async def run():
        world.add("a", answer)
        return await world.monitor.check_health("a")

    result = run()
    assert (result.outcome, result.detail, result.healthy) == (outcome, detail, outcome is ProbeOutcome.PASS)


@virtual_time
async def test_a_check_that_cancels_itself_fails_instead_of_ending_the_monitor(world):
    async def confused():
        raise asyncio.CancelledError

    world.monitor.register_service("a", confused)
    assert "cancelled from within" in (await world.monitor.check_health("a")).detail


@virtual_time
async def test_a_probe_that_raises_or_answers_nonsense_fails_with_the_reason(world):
    class Broken:
        kind = "broken"

        def __init__(self, answer):
            self.answer = answer

        async def probe(self):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        async def close(self):
            pass

    world.monitor.register_service("raises", Broken(RuntimeError("bug")))
    world.monitor.register_service("nonsense", Broken("fine"))
    assert (await world.monitor.check_health("raises")).detail == "the probe itself failed: RuntimeError: bug"
    assert "type str" in (await world.monitor.check_health("nonsense")).detail


@virtual_time
async def test_listeners_hear_each_result_before_the_caller_and_one_that_raises_harms_nobody(world):
    heard = []

    def broken(result):
        raise RuntimeError("listener bug")

    world.monitor.add_listener(broken)
    world.monitor.add_listener(heard.append)
    world.add("a")
    result = await world.monitor.check_health("a")
    assert heard == [result]
    assert "listener bug" in world.events(ComponentFailed)[0].detail


@virtual_time
async def test_readiness_is_asked_only_of_what_is_alive_and_degrades_without_failing_liveness(world):
    readiness = Service(world.clock, False)
    liveness = world.add("a", readiness=readiness, fall=2)
    for _ in range(2):
        result = await world.monitor.check_health("a")
        assert (result.healthy, result.role) == (False, Role.READINESS)
    assert world.status("a") is HealthStatus.DEGRADED
    assert not world.monitor.get_status("a").ready
    liveness.answer = False
    for _ in range(2):
        assert (await world.monitor.check_health("a")).role is Role.LIVENESS
    assert world.status("a") is HealthStatus.UNHEALTHY
    assert len(readiness.calls) == 2


@virtual_time
async def test_a_startup_probe_holds_back_the_others_and_its_pass_lets_liveness_speak_in_the_same_check(world):
    startup = Service(world.clock, False)
    liveness = world.add("a", startup=startup, interval_s=5.0, fall=3)
    await world.monitor.start()
    await world.clock.sleep(10)
    assert (world.status("a"), liveness.calls) == (HealthStatus.STARTING, [])
    startup.answer = True
    await world.clock.sleep(0.3)
    assert world.status("a") is HealthStatus.HEALTHY
    await world.monitor.stop()


@virtual_time
async def test_the_probers_own_errors_are_told_once_and_are_no_verdict(world):
    service = world.add("a", interval_s=1.0, fall=3)
    await world.monitor.start()
    await world.clock.sleep(2.5)
    service.answer = ERROR
    await world.clock.sleep(20)
    assert world.status("a") is HealthStatus.UNKNOWN
    assert [event.detail for event in world.events(ProbeErred)] == ["no descriptors left"]
    service.answer = True
    await world.clock.sleep(1.5)
    assert world.status("a") is HealthStatus.HEALTHY
    service.answer = ERROR
    await world.clock.sleep(5)
    assert len(world.events(ProbeErred)) == 2
    await world.monitor.stop()


@virtual_time
async def test_a_first_heartbeat_that_is_still_awaited_is_no_error_of_the_prober(world):
    service = world.add("a", ProbeResult(ProbeOutcome.ERROR, "no heartbeat yet", wait=Wait(1, 30)), interval_s=1.0)
    await world.monitor.start()
    await world.clock.sleep(20)
    assert world.status("a") is HealthStatus.UNKNOWN
    assert (world.events(ProbeErred), world.events(HealthChanged)) == ([], [])
    service.answer = ProbeResult(ProbeOutcome.FAIL, "never sent a heartbeat", wait=Wait(31, 30))
    await world.clock.sleep(2)
    assert world.status("a") is HealthStatus.UNHEALTHY
    await world.monitor.stop()


# --- pauses of the program itself ---------------------------------------------------------------------


def pause(seconds):
    """Let time pass without the loop, as SIGSTOP does."""
    asyncio.get_running_loop()._now += seconds


@virtual_time
async def test_a_timeout_while_the_program_was_stopped_is_not_charged_and_looked_at_again_soon(world):
    service = world.add("a", takes=0.1, interval_s=10.0, timeout_s=0.8, fall=3, reprobe_s=0.25)
    await world.monitor.start()
    await world.clock.sleep(1)
    service.takes = 100.0
    check = asyncio.create_task(world.monitor.check_health("a"))
    await world.clock.sleep(0.5)
    pause(6)
    result = await check
    assert (result.outcome, result.status) == (ProbeOutcome.ERROR, HealthStatus.HEALTHY)
    assert "this program was stopped for" in result.detail
    service.takes = 0.1
    await world.clock.sleep(0.4)
    assert world.results[-1].outcome is ProbeOutcome.PASS
    service.takes = 100.0
    pause(6)  # one that was over before the check began excuses nothing
    assert (await world.monitor.check_health("a")).outcome is ProbeOutcome.FAIL
    await world.monitor.stop()


@virtual_time
async def test_a_failure_that_does_not_rest_on_time_is_charged_whatever_the_pause(world):
    service = world.add("a", answer=False, interval_s=10.0, fall=3)
    await world.monitor.start()
    pause(6)
    await world.clock.sleep(1)
    assert {result.outcome for result in world.results} == {ProbeOutcome.FAIL}
    assert world.status("a") is HealthStatus.UNHEALTHY
    assert len(service.calls) == 3
    await world.monitor.stop()


@virtual_time
async def test_a_heartbeat_that_grew_old_while_the_program_was_stopped_is_excused_for_as_long_as_that(world):
    beat = {"at": 0.0}

    async def heartbeat():
        age = world.clock.monotonic() - beat["at"]
        if age <= 3:
            return True
        return ProbeResult(ProbeOutcome.FAIL, f"{age:g} s ago", wait=Wait(age, 3.0))

    world.monitor.register_service("a", heartbeat, options=ServiceOptions(interval_s=2.0, fall=3, reprobe_s=0.25))
    await world.monitor.start()
    for _ in range(10):
        beat["at"] = world.clock.monotonic()
        await world.clock.sleep(1)
    world.results.clear()
    pause(6)
    await world.clock.sleep(0.3)
    assert {result.outcome for result in world.results} == {ProbeOutcome.ERROR}
    assert all("this program was stopped for" in result.detail for result in world.results)
    assert world.status("a") is HealthStatus.HEALTHY
    await world.clock.sleep(6)  # no heartbeat comes: now the service had its time
    assert world.status("a") is HealthStatus.UNHEALTHY
    await world.monitor.stop()


@virtual_time
async def test_flapping_is_told_when_it_begins_and_ends_and_degrades_meanwhile(world):
    service = world.add("a", fall=3)
    for number in range(30):
        service.answer = number % 2 == 0
        await world.monitor.check_health("a")
    assert world.status("a") is HealthStatus.DEGRADED
    assert world.monitor.get_status("a").flapping
    service.answer = True
    for _ in range(21):
        await world.monitor.check_health("a")
    assert world.status("a") is HealthStatus.HEALTHY
    assert [event.flapping for event in world.events(FlappingChanged)] == [True, False]


@virtual_time
async def test_flap_detection_can_be_turned_off(world):
    service = world.add("a", flap_high=0.0, flap_low=0.0)
    for number in range(30):
        service.answer = number % 2 == 0
        await world.monitor.check_health("a")
    assert not world.events(FlappingChanged)


# --- dependencies -------------------------------------------------------------------------------------


@virtual_time
async def test_the_root_of_a_failure_is_known_when_its_dependents_are_declared_unhealthy(world):
    db = world.add("db", interval_s=60.0, fall=3)
    api = world.add("api", interval_s=1.0, fall=3, depends_on=("db",))
    web = world.add("web", interval_s=1.3, fall=2, depends_on=("api",))
    await world.monitor.start()
    await world.clock.sleep(10)
    for service in (db, api, web):  # the dependents see it first, long before the next check of the root
        service.answer = False
    await world.clock.sleep(10)
    await world.monitor.stop()
    down = {name: cause for name, current, cause in world.changes() if current == "unhealthy"}
    assert down == {"db": (), "api": ("db",), "web": ("db",)}
    assert world.changes()[3][0] == "db"  # after three times healthy, the root is told first


@virtual_time
async def test_a_dependent_that_fails_for_its_own_fault_is_not_excused(world):
    db = world.add("db", interval_s=60.0)
    api = world.add("api", interval_s=1.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(5)
    looked = len(db.calls)
    api.answer = False
    await world.clock.sleep(5)
    assert world.changes("api")[-1] == ("api", "unhealthy", ())
    assert len(db.calls) == looked + 1  # one fresh look was enough
    await world.monitor.stop()


@virtual_time
async def test_a_dependency_that_fails_later_excuses_what_has_failed_before(world):
    db = world.add("db", interval_s=1.0)
    world.add("api", answer=False, interval_s=1.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(5)
    assert world.monitor.get_status("api").affected_by == ()
    db.answer = False
    await world.clock.sleep(3)
    assert world.monitor.get_status("api").affected_by == ("db",)
    assert world.results[-1].affected_by == (("db",) if world.results[-1].service == "api" else ())
    await world.monitor.stop()


@virtual_time
async def test_a_restarting_dependency_still_excuses_its_dependents(world):
    world.add("db", answer=False, interval_s=1.0, startup_grace_s=30.0)
    world.add("api", answer=False, interval_s=1.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(35)
    assert world.status("db") is HealthStatus.UNHEALTHY
    world.monitor.expect_restart("db")
    await world.clock.sleep(5)
    assert world.status("db") is HealthStatus.STARTING
    assert world.monitor.get_status("api").affected_by == ("db",)
    await world.monitor.stop()


@virtual_time
async def test_a_dependency_that_has_not_come_up_yet_excuses_its_dependents(world):
    db = world.add("db", answer=False, interval_s=1.0, startup_grace_s=30.0)
    world.add("api", answer=False, interval_s=1.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(10)
    assert world.changes("api") == [("api", "unhealthy", ("db",))]
    db.answer = True
    await world.clock.sleep(3)
    assert world.monitor.get_status("api").affected_by == ()
    await world.monitor.stop()


@virtual_time
async def test_a_service_that_turns_healthy_is_told_without_whose_failure_could_affect_it(world):
    world.add("db", answer=False, interval_s=1.0, startup_grace_s=30.0)
    worker = world.add("worker", answer=False, interval_s=1.0, depends_on=("db",), startup_grace_s=30.0)
    await world.monitor.start()
    await world.clock.sleep(2)
    worker.answer = True
    await world.clock.sleep(2)
    assert world.changes("worker") == [("worker", "healthy", ())]
    assert world.monitor.get_status("worker").affected_by == ("db",)
    await world.monitor.stop()


@virtual_time
async def test_when_a_dependency_is_back_its_dependents_are_looked_at_quickly(world):
    db = world.add("db", answer=False, interval_s=1.0)
    api = world.add("api", answer=False, interval_s=60.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(5)
    db.answer = api.answer = True
    await world.clock.sleep(1.5)
    assert world.status("api") is HealthStatus.HEALTHY
    assert world.monitor.get_status("api").affected_by == ()
    await world.monitor.stop()


@virtual_time
async def test_a_dependent_is_blamed_itself_only_after_fall_further_failures_once_its_dependency_is_back(world):
    db = world.add("db", answer=False, interval_s=1.0)
    api = world.add("api", answer=False, interval_s=60.0, depends_on=("db",), fall=3, reprobe_s=0.25)
    await world.monitor.start()
    await world.clock.sleep(5)
    db.answer = True
    seen = len(world.results)
    await world.clock.sleep(3)
    after = [r for r in world.results[seen:] if r.service == "api"]
    assert [r.affected_by for r in after] == [("db",), ("db",), ()]
    assert len(api.calls) < 20
    await world.monitor.stop()


@virtual_time
async def test_a_dependency_that_hangs_holds_up_its_dependents_verdict_but_not_for_ever(world):
    db = world.add("db", interval_s=60.0, timeout_s=1.0, fall=3)
    api = world.add("api", interval_s=1.0, fall=3, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(5)
    db.takes, api.answer = 3600.0, False
    await world.clock.sleep(1 + 0.5 + 3 * 1.0 + 2 * 0.25 + 0.1)
    assert world.changes("api")[-1] == ("api", "unhealthy", ("db",))
    await world.monitor.stop()


@virtual_time
async def test_a_thousand_services_that_fail_at_once_are_all_found_and_their_root_is_named(world):
    db = world.add("db", interval_s=5.0)
    services = [world.add(f"s{n}", interval_s=5.0, depends_on=("db",)) for n in range(1000)]
    await world.monitor.start()
    await world.clock.sleep(20)
    db.answer = False
    for service in services:
        service.answer = False
    looked = len(db.calls)
    await world.clock.sleep(5.6)
    assert all(world.status(f"s{n}") is HealthStatus.UNHEALTHY for n in range(1000))
    assert {cause for name, current, cause in world.changes() if current == "unhealthy" and name != "db"} == {("db",)}
    assert len(db.calls) - looked <= 5  # its dependents ask about it together
    await world.monitor.stop()


# --- registration -------------------------------------------------------------------------------------


@virtual_time
async def test_what_cannot_be_watched_is_refused_and_changes_nothing(world):
    def plain():
        return True

    world.add("a")
    with pytest.raises(DuplicateServiceError, match="'a'"):
        world.add("a")
    with pytest.raises(ConfigurationError, match="readiness check is a plain function"):
        world.monitor.register_service("b", Service(world.clock), readiness=plain)
    with pytest.raises(ConfigurationError, match="type str"):
        world.monitor.register_service("b", "http://x")
    with pytest.raises(ConfigurationError, match=r"interval_s is 0.*fall is 0"):
        world.add("b", interval_s=0, fall=0)
    with pytest.raises(ConfigurationError, match="timeout_s is nan"):
        world.add("b", timeout_s=float("nan"))
    with pytest.raises(ConfigurationError, match="flap_low"):
        world.add("b", flap_low=0.6, flap_high=0.5)
    assert world.monitor.services == ("a",)


@virtual_time
async def test_a_service_is_treated_by_the_options_that_it_was_registered_with(world):
    world.add("a", interval_s=7.0, fall=2)
    assert world.monitor.get_options("a") == ServiceOptions(interval_s=7.0, fall=2)


@virtual_time
async def test_a_partial_of_an_async_function_is_a_check(world):
    async def check(answer):
        return answer

    world.monitor.register_service("a", functools.partial(check, False))
    assert not (await world.monitor.check_health("a")).healthy


@virtual_time
async def test_start_refuses_unknown_dependencies_and_cycles(world):
    world.add("a", depends_on=("b",))
    with pytest.raises(DependencyError, match="'b'"):
        await world.monitor.start()
    world.add("b", depends_on=("a",))
    with pytest.raises(DependencyError, match="circle"):
        await world.monitor.start()
    assert world.monitor.status.state is ComponentState.CREATED
    assert (await world.monitor.check_health("a")).healthy  # on demand always


@virtual_time
async def test_after_the_start_a_registration_is_validated_at_once(world):
    world.add("a")
    await world.monitor.start()
    with pytest.raises(DependencyError, match="'nobody'"):
        world.add("b", depends_on=("nobody",))
    assert world.monitor.services == ("a",)
    await world.clock.sleep(20)
    assert not world.events(ComponentFailed)
    await world.monitor.stop()


@virtual_time
async def test_every_call_names_a_service_that_is_unknown(world):
    world.add("api")
    for call in (
        world.monitor.get_status,
        world.monitor.get_options,
        world.monitor.pause,
        world.monitor.resume,
        world.monitor.expect_restart,
        world.monitor.unregister_service,
    ):
        with pytest.raises(UnknownServiceError, match="did you mean 'api'"):
            call("apj")
    with pytest.raises(UnknownServiceError):
        await world.monitor.check_health("apj")


@virtual_time
async def test_a_service_unregistered_during_its_check_is_forgotten_and_its_caller_told(world):
    service = world.add("a", takes=5.0, timeout_s=10.0, interval_s=1.0)
    world.add("b", depends_on=("a",), interval_s=1.0)
    await world.monitor.start()
    waiting = asyncio.create_task(world.monitor.check_health("a"))
    await world.clock.sleep(0.5)
    world.monitor.unregister_service("a")
    with pytest.raises(UnknownServiceError):
        await waiting
    await world.clock.sleep(10)
    assert len(service.calls) == 1
    assert not [r for r in world.results if r.service == "a"]
    assert world.status("b") is HealthStatus.HEALTHY
    world.add("a", interval_s=1.0)  # the name is free again
    await world.clock.sleep(1)
    assert world.status("a") is HealthStatus.HEALTHY
    await world.monitor.stop()


@virtual_time
async def test_a_dependency_that_is_unregistered_excuses_nobody_any_more(world):
    world.add("db", answer=False, interval_s=1.0)
    world.add("api", answer=False, interval_s=1.0, depends_on=("db",))
    await world.monitor.start()
    await world.clock.sleep(5)
    assert world.monitor.get_status("api").affected_by == ("db",)
    world.monitor.unregister_service("db")
    await world.clock.sleep(3)
    assert world.monitor.get_status("api").affected_by == ()
    await world.monitor.stop()


# --- restarts and life --------------------------------------------------------------------------------


@virtual_time
async def test_an_ordered_restart_begins_the_grace_anew_and_is_told(world):
    service = world.add("a", interval_s=60.0, startup_grace_s=10.0)
    await world.monitor.start()
    await world.clock.sleep(30)
    service.answer = False
    world.monitor.expect_restart("a")
    assert world.changes("a")[-1][1] == "starting"
    await world.clock.sleep(9)
    assert world.status("a") is HealthStatus.STARTING
    service.answer = True
    await world.clock.sleep(0.3)
    assert world.status("a") is HealthStatus.HEALTHY
    await world.monitor.stop()


@virtual_time
async def test_the_result_of_a_check_that_began_before_a_restart_does_not_count(world):
    service = world.add("a", answer=False, takes=1.0, timeout_s=5.0, interval_s=60.0, fall=1)
    await world.monitor.start()
    await world.clock.sleep(0.5)
    world.monitor.expect_restart("a")
    service.answer = True
    service.takes = 0.0
    await world.clock.sleep(3)
    assert "unhealthy" not in [current for _, current, _ in world.changes("a")]
    assert world.status("a") is HealthStatus.HEALTHY
    await world.monitor.stop()


@virtual_time
async def test_the_grace_counts_from_the_start_of_the_monitor(world):
    world.add("a", answer=False, startup_grace_s=10.0, interval_s=1.0)
    await world.clock.sleep(100)
    await world.monitor.start()
    await world.clock.sleep(9)
    assert world.status("a") is HealthStatus.STARTING
    await world.clock.sleep(2)
    assert world.status("a") is HealthStatus.UNHEALTHY
    await world.monitor.stop()


@virtual_time
async def test_stop_ends_every_check_closes_every_probe_and_leaves_no_task(world):
    closed = []

    class Hanging:
        kind = "hanging"

        async def probe(self):
            await asyncio.sleep(3600)

        async def close(self):
            closed.append(1)

    await world.monitor.stop()  # without a start
    for number in range(5):
        world.monitor.register_service(f"s{number}", Hanging(), options=ServiceOptions(timeout_s=7200.0))
    await world.monitor.start()
    await world.clock.sleep(1)
    waiting = asyncio.create_task(world.monitor.check_health("s0"))
    await asyncio.sleep(0)
    closed.clear()
    await world.monitor.stop()
    with pytest.raises(SelfrightError, match="monitor stops"):
        await waiting
    assert len(closed) == 5
    await world.monitor.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert world.monitor.status.state is ComponentState.STOPPED


@virtual_time
async def test_a_stopped_monitor_can_be_started_again(world):
    service = world.add("a", interval_s=1.0)
    for _ in range(2):
        await world.monitor.start()
        await world.monitor.start()
        await world.clock.sleep(3.5)
        await world.monitor.stop()
    assert 8 <= len(service.calls) <= 10


@virtual_time
async def test_check_all_looks_at_every_service_at_once(world):
    for number in range(50):
        world.add(f"s{number}", number % 2 == 0, takes=0.5)
    began = world.clock.monotonic()
    results = await world.monitor.check_all()
    assert world.clock.monotonic() - began == pytest.approx(0.5)
    assert sum(result.healthy for result in results.values()) == 25
    assert set(results) == set(world.monitor.services)
