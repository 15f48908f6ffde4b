"""Repairs end to end in virtual time: the real monitor, the real state file, and services that only fail."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.self_healing.actions import as_rung
from backend.shared.self_healing.actions.restart import RestartAction
from backend.shared.self_healing.audit import AuditTrail
from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.repair import AutoRepair
from backend.shared.self_healing.repair_case import Case
from backend.shared.self_healing.settings import CapsSettings, StormSettings
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.errors import (
    ConfigurationError,
    DuplicateServiceError,
    RepairError,
    SelfrightError,
    StateError,
    UnknownServiceError,
)
from modules.contracts.events import EventBus
from modules.contracts.health import (
    Decision,
    HealthCheckResult,
    HealthStatus,
    ProbeOutcome,
    RepairOptions,
    RepairPhase,
    Role,
    Rung,
    ServiceOptions,
)
from runtime.simulation.loop import virtual_time

QUICK = RepairOptions(backoff_base_s=1, verify_passes=2, healthy_delay_s=2, verify_timeout_s=10)
WATCH = ServiceOptions(interval_s=5, reprobe_s=0.25, fall=3)
EVERYTHING = CapsSettings(max_concurrent=1000, max_unhealthy=100, storm=StormSettings(repairs=10_000))
STORY = ["incident_opened", "repair_started", "repair_ended", "incident_closed"]


class World:
    """A monitor, a repairer and the services they watch; ``down`` holds those that fail."""

    def __init__(self, *, store=None, caps=EVERYTHING, seed=1, epoch=1_700_000_000.0, down=None, dry_run=False):
        self.clock = LoopClock(epoch)
        self.events = EventBus(self.clock, history=100_000)
        self.heard = []
        self.events.listen(self.heard.append)
        self.store = store
        if store is not None:
            AuditTrail(self.events, store)
        self.monitor = HealthMonitor(clock=self.clock, events=self.events, rng=random.Random(seed))
        self.repair = AutoRepair(
            self.monitor,
            clock=self.clock,
            events=self.events,
            rng=random.Random(seed),
            store=store,
            caps=caps,
            dry_run=dry_run,
        )
        self.down = set() if down is None else down
        self.runs = []
        self.running = 0

    def add(self, name, rungs=None, *, options=QUICK, watch=WATCH):
        async def check():
            return self.down.isdisjoint({name, *watch.depends_on})

        self.monitor.register_service(name, check, options=watch)
        self.repair.register_service(name, [self.heal(name)] if rungs is None else rungs, options=options)

    def heal(self, name, *, after=1.0, helps=True):
        """A rung that takes ``after`` seconds."""

        async def fix(context):
            self.runs.append((name, context.attempt))
            self.running += 1
            try:
                await self.clock.sleep(after)
            finally:
                self.running -= 1
            if helps:
                self.down.discard(name)
            return f"fixed {name}"

        return fix

    async def __aenter__(self):
        await self.repair.start()
        await self.monitor.start()
        return self

    async def __aexit__(self, *exc):
        await self.monitor.stop()
        await self.repair.stop()
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    def of(self, *kinds, service=None):
        return [e for e in self.heard if e.kind in kinds and (service is None or e.service == service)]

    def story(self, service=None):
        return [
            e.kind
            for e in self.heard
            if e.kind.startswith(("repair_", "incident_")) and (service is None or e.service == service)
        ]

    async def until(self, kind, service=None, *, within=600.0):
        async with asyncio.timeout(within):
            while not self.of(kind, service=service):
                await self.clock.sleep(0.05)
        return self.of(kind, service=service)[-1]


@pytest.fixture
def store(tmp_path):
    opened = SqliteStore(tmp_path / "state.db", clock=LoopClockOutside())
    yield opened
    opened.close()


class LoopClockOutside:
    """The store asks for the time when old samples are merged, which no test here has."""

    def time(self):
        return 1_700_000_000.0

    def monotonic(self):
        return 0.0


# --- one incident ---------------------------------------------------------------------------------------


@virtual_time
async def test_a_failed_service_is_repaired_verified_and_its_incident_closed():
    world = World()
    world.add("api")
    async with world:
        await world.clock.sleep(12)
        world.down.add("api")
        broken = world.clock.time()
        closed = await world.until("incident_closed")
        assert world.story() == STORY
        opened, started, ended, _ = world.of(*STORY)
        assert opened.at - broken <= 5 + 2 * 0.25 + 0.05
        assert opened.incident == started.incident == ended.incident == closed.incident
        assert opened.incident.startswith("api-")
        assert ended.outcome == "done"
        assert ended.detail == "fixed api"
        assert ended.duration_s == pytest.approx(1.0)
        assert closed.actions == 1
        # Quick looks verify it: two passes and the healthy delay, not two intervals.
        assert closed.at - ended.at < 4
        assert world.repair.get_status("api").phase is RepairPhase.IDLE


@virtual_time
async def test_the_status_tells_where_a_repair_stands():
    world = World()
    world.add("api", [world.heal("api", helps=False), world.heal("api", after=5)])
    async with world:
        world.down.add("api")
        opened = await world.until("incident_opened")
        await world.clock.sleep(0.5)
        status = world.repair.get_status("api")
        assert status.phase is RepairPhase.RUNNING
        assert status.incident == opened.incident
        assert status.opened_at == pytest.approx(opened.at)
        assert status.reason == opened.reason
        await world.clock.sleep(1)
        assert world.repair.get_status("api").phase is RepairPhase.VERIFYING
        await world.clock.sleep(12)
        status = world.repair.get_status("api")
        assert (status.rung, status.attempts) == (1, 2)
        await world.until("incident_closed")


@virtual_time
async def test_a_rung_that_fails_or_does_not_help_gives_way_to_the_next():
    world = World()

    async def broken(context):
        raise ValueError("no such host")

    world.add("api", [broken, world.heal("api", helps=False), world.heal("api")])
    async with world:
        world.down.add("api")
        await world.until("incident_closed")
        assert [(e.rung, e.outcome) for e in world.of("repair_ended")] == [(0, "failed"), (1, "done"), (2, "done")]
        assert "ValueError: no such host" in world.of("repair_ended")[0].detail


@virtual_time
async def test_a_rung_is_cancelled_at_its_timeout():
    world = World()
    cancelled = []

    class Slow:
        kind, describe = "slow", "wait for ever"

        async def run(self, context):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(world.clock.monotonic())
                raise

    world.add("api", [Rung(Slow(), timeout_s=3), world.heal("api")])
    async with world:
        world.down.add("api")
        ended = await world.until("repair_ended")
        assert ended.outcome == "timed_out"
        assert ended.duration_s == pytest.approx(3.0)
        assert len(cancelled) == 1
        await world.until("incident_closed")


@virtual_time
async def test_a_rung_that_ignores_its_cancellation_does_not_run_a_second_time_beside_itself():
    world = World()
    release = asyncio.Event()
    count = 0

    class Deaf:
        kind, describe = "deaf", "ignore"

        async def run(self, context):
            nonlocal count
            count += 1
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return "at last"

    world.add("api", [Rung(Deaf(), timeout_s=1, attempts=2)])
    async with world:
        world.down.add("api")
        await world.until("repair_gave_up")
        assert count == 1
        assert [e.outcome for e in world.of("repair_ended")] == ["timed_out", "failed"]
        release.set()


@virtual_time
async def test_a_ladder_that_is_spent_gives_up_loudly_and_closes_when_the_service_recovers_by_itself():
    world = World()
    world.add("api", [Rung(world_action(world, "api"), attempts=2)])
    async with world:
        world.down.add("api")
        gave_up = await world.until("repair_gave_up")
        assert gave_up.attempts == 2
        await world.clock.sleep(3600)
        assert len(world.of("repair_started")) == 2
        assert world.repair.get_status("api").phase is RepairPhase.GAVE_UP
        world.down.clear()
        closed = await world.until("incident_closed")
        assert closed.incident == gave_up.incident
        assert len(world.of("repair_gave_up")) == 1


def world_action(world, name):
    class Useless:
        kind, describe = "useless", f"look at {name}"

        async def run(self, context):
            world.runs.append((name, context.attempt))
            return "looked"

    return Useless()


@virtual_time
async def test_a_service_that_recovers_while_it_waits_is_not_repaired_again():
    world = World()
    options = RepairOptions(backoff_base_s=200, backoff_max_s=200, healthy_delay_s=2)

    async def fails(context):
        raise RepairError("no")

    world.add("api", [Rung(world_action(world, "api")), fails], options=options)
    world.repair.register_service("other", [fails], options=options)
    async with world:
        world.down.add("api")
        await world.until("repair_ended")
        await world.clock.sleep(16)
        assert world.repair.get_status("api").phase is RepairPhase.WAITING
        world.down.clear()
        closed = await world.until("incident_closed")
        assert closed.actions == 1


@virtual_time
async def test_a_service_without_a_rung_is_told_to_people_at_once():
    world = World()
    world.add("api", [])
    async with world:
        world.down.add("api")
        await world.until("repair_gave_up")
        assert world.story() == ["incident_opened", "repair_skipped", "repair_gave_up"]
        assert world.of("repair_skipped")[0].rule == "no_ladder"
        await world.clock.sleep(100)
        world.down.clear()
        await world.until("incident_closed")
        assert len(world.of("repair_skipped")) == 1
        with pytest.raises(RepairError, match="no rung"):
            await world.repair.repair("api")


@virtual_time
async def test_a_restart_begins_the_startup_grace_of_what_it_restarted():
    world = World()
    calls = []

    class Processes:
        names = ("api", "web")

        async def stop_process(self, name):
            calls.append(("stop", name))

        async def restart(self, name):
            calls.append(("restart", name))
            world.down.discard(name)

    watch = ServiceOptions(interval_s=5, reprobe_s=0.25, fall=3, startup_grace_s=20)
    world.add("api", [RestartAction(("api", "web"), Processes())], watch=watch)
    world.add("web", [], watch=watch)
    async with world:
        await world.clock.sleep(10)
        world.down.add("api")
        await world.until("incident_closed")
        assert calls == [("stop", "web"), ("restart", "api"), ("restart", "web")]
        changes = [(e.service, e.current) for e in world.of("health_changed")]
        assert ("api", "starting") in changes
        assert ("web", "starting") in changes


@virtual_time
async def test_a_slow_start_after_a_restart_is_no_failure_of_the_rung():
    world = World()

    class Processes:
        names = ("api",)

        async def restart(self, name):
            asyncio.get_running_loop().call_later(40, world.down.discard, name)

    watch = ServiceOptions(interval_s=5, reprobe_s=0.25, fall=3, startup_grace_s=60)
    world.add("api", [RestartAction(("api",), Processes()), world.heal("api")], watch=watch)
    async with world:
        await world.clock.sleep(10)
        world.down.add("api")
        closed = await world.until("incident_closed")
        assert closed.actions == 1
        assert world.repair.get_status("api").rung == 0


OPENED_FOR = {"failure": False, "slowness": True}


@pytest.mark.parametrize(
    ("opened_for", "status", "role", "outcome", "means"),
    [
        ("failure", "healthy", "liveness", "pass", True),
        ("failure", "healthy", "liveness", "fail", False),
        ("failure", "unhealthy", "liveness", "fail", False),
        ("failure", "unhealthy", "liveness", "pass", None),  # fewer passes than ``rise``
        ("failure", "unhealthy", "liveness", "error", None),
        ("failure", "starting", "liveness", "fail", None),
        ("failure", "degraded", "readiness", "fail", True),  # alive, and readiness asks for no repair
        ("slowness", "degraded", "readiness", "fail", False),
        ("slowness", "degraded", "readiness", "pass", None),
        ("slowness", "healthy", "readiness", "pass", True),
    ],
)
def test_what_a_check_means_for_the_incident(opened_for, status, role, outcome, means):
    class Noted:
        seen = None

        def observe(self, passed, now):
            self.seen = passed

        def hold(self, now):
            assert status == "starting"

    ladder = Noted()
    case = Case("api", (), QUICK, ladder, until_healthy=OPENED_FOR[opened_for])
    found = ProbeOutcome(outcome)
    case.observe(
        HealthCheckResult(
            "api", found is ProbeOutcome.PASS, found, HealthStatus(status), 1.0, "", 0.0, role=Role(role)
        ),
        0.0,
    )
    assert ladder.seen is means


# --- decisions ------------------------------------------------------------------------------------------


@virtual_time
async def test_only_the_root_of_a_failure_is_repaired_and_its_dependents_are_told_as_affected():
    world = World(caps=CapsSettings())
    world.add("db", [world.heal("db", after=8)])
    world.add("api", watch=ServiceOptions(interval_s=5, reprobe_s=0.25, fall=3, depends_on=("db",)))
    async with world:
        await world.clock.sleep(12)
        world.down.add("db")
        await world.until("incident_closed", "db")
        await world.clock.sleep(60)
        assert world.story("api") == ["repair_skipped"]
        skipped = world.of("repair_skipped")[0]
        assert skipped.rule == "affected"
        assert "db" in skipped.reason


@virtual_time
async def test_an_affected_service_gives_its_slot_to_the_root_of_its_failure():
    # One slot for three services, and the dependent was under repair before its dependency failed too.
    world = World(caps=CapsSettings(max_unhealthy=34))
    world.add("db")
    world.add(
        "api",
        [Rung(world_action(world, "api"), attempts=5)],
        options=RepairOptions(backoff_base_s=0, verify_timeout_s=30),
        watch=ServiceOptions(interval_s=5, depends_on=("db",)),
    )
    world.add("other")
    async with world:
        await world.clock.sleep(7)
        world.down.add("api")
        await world.until("repair_started", "api")
        world.down.add("db")
        await world.until("incident_closed", "db", within=20)
        await world.until("repair_started", "api")


@virtual_time
async def test_no_back_off_outlives_the_fault_of_a_dependency():
    world = World()
    world.add("db")
    world.add(
        "api",
        [Rung(world_action(world, "api"), attempts=9)],
        options=RepairOptions(backoff_base_s=3000, backoff_max_s=3000, verify_timeout_s=2),
        watch=ServiceOptions(interval_s=5, depends_on=("db",)),
    )
    async with world:
        world.down.add("api")
        await world.until("repair_started", "api")
        await world.clock.sleep(10)
        waits_until = world.repair.get_status("api").next_at
        assert waits_until - world.clock.time() > 60
        world.down.add("db")
        await world.until("incident_closed", "db")
        await world.clock.sleep(20)
        assert [attempt for _, attempt in world.runs if _ == "api"] == [1, 1]


@virtual_time
async def test_a_policy_decides_and_its_refusal_is_told_once_for_as_long_as_its_rule_stays():
    world = World()
    world.add("api", [Rung(as_rung(world.heal("api"), "it").action, attempts=2)])
    allowed = False

    class Policy:
        def decide(self, health):
            if health.status is HealthStatus.HEALTHY:
                return Decision(False, "healthy", "well")
            return Decision(allowed, "because", "not today")

    world.repair.set_policy(Policy())
    async with world:
        world.down.add("api")
        await world.clock.sleep(300)
        assert world.story() == ["incident_opened", "repair_skipped"]
        allowed = True
        await world.until("incident_closed", within=20)
        allowed = False
        world.down.add("api")
        await world.clock.sleep(700)
        assert world.story()[-2:] == ["incident_opened", "repair_skipped"]
        assert len(world.of("repair_skipped")) == 2


@virtual_time
async def test_a_policy_may_skip_the_first_back_off_of_an_incident_and_no_other():
    world = World()
    options = RepairOptions(backoff_base_s=5000, backoff_max_s=5000, verify_timeout_s=2)
    world.add("api", [Rung(world_action(world, "api"), attempts=3)], options=options)

    class Policy:
        def decide(self, health):
            return Decision(health.status is HealthStatus.UNHEALTHY, "unhealthy", "down", skip_backoff=True)

    world.repair.set_policy(Policy())
    async with world:
        world.down.add("api")
        await world.clock.sleep(60)
        assert len(world.of("repair_started")) == 2


@virtual_time
async def test_a_policy_that_raises_is_reported_and_repairs_go_on_once_it_answers():
    world = World()
    world.add("api", [world.heal("api", helps=False), world.heal("api")])
    raises = False

    class Policy:
        def decide(self, health):
            if raises:
                raise ZeroDivisionError("policy")
            return Decision(health.status is HealthStatus.UNHEALTHY, health.status.value, "down")

    world.repair.set_policy(Policy())
    async with world:
        world.down.add("api")
        await world.until("repair_ended")
        raises = True
        failed = await world.until("component_failed")
        assert "ZeroDivisionError" in failed.detail
        await world.clock.sleep(100)
        assert len(world.of("component_failed")) == 1
        raises = False
        await world.until("incident_closed", within=30)


# --- orders ---------------------------------------------------------------------------------------------


@virtual_time
async def test_a_person_may_have_a_healthy_service_repaired():
    world = World()
    world.add("api")
    async with world:
        await world.clock.sleep(7)
        report = await world.repair.repair("api", "new certificate")
        assert report.repaired
        assert len(report.actions) == 1
        assert world.runs == [("api", 1)]
        assert world.story() == ["repair_control", *STORY]
        assert world.of("incident_opened")[0].reason == "new certificate"


@virtual_time
async def test_two_orders_at_once_share_one_repair():
    world = World()
    world.add("api")
    async with world:
        first, second = await asyncio.gather(world.repair.repair("api"), world.repair.repair("api"))
        assert first == second
        assert len(world.runs) == 1


@virtual_time
async def test_an_order_waits_neither_for_policy_nor_back_off_but_for_the_caps():
    world = World(caps=CapsSettings(max_concurrent=1, max_unhealthy=100))
    world.add("api")
    world.add("slow", [world.heal("slow", after=20)])

    class Never:
        def decide(self, health):
            return Decision(False, "never", "never")

    world.repair.set_policy(Never())
    async with world:
        slow = asyncio.create_task(world.repair.repair("slow"))
        await world.clock.sleep(1)
        report = await world.repair.repair("api")
        assert report.repaired
        assert world.of("repair_skipped", service="api")[0].rule == "max_concurrent"
        assert world.of("repair_started", service="api")[0].at >= world.of("repair_ended", service="slow")[0].at
        assert (await slow).repaired


@virtual_time
async def test_an_order_that_does_not_help_is_reported_as_such():
    world = World()
    world.add("api", [world.heal("api", helps=False)])
    async with world:
        world.down.add("api")
        report = await world.repair.repair("api")
        assert not report.repaired
        assert report.actions == (f"{world.of('repair_started')[0].action}: done",)


@virtual_time
async def test_an_order_works_without_a_start_and_nothing_else_does():
    world = World()
    world.add("api")
    world.down.add("api")
    for _ in range(5):
        await world.monitor.check_health("api")
    assert world.story() == []
    assert (await world.repair.repair("api")).repaired
    await world.repair.stop()
    with pytest.raises(SelfrightError, match="stopped"):
        await world.repair.repair("api")


@virtual_time
async def test_a_caller_that_leaves_does_not_end_the_repair():
    world = World()
    world.add("api")
    async with world:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.repair.repair("api"), 0.5)
        await world.until("incident_closed")


@virtual_time
async def test_a_paused_service_is_not_repaired_until_it_is_resumed():
    world = World()
    world.add("api")
    world.add("web")
    async with world:
        world.repair.pause("api")
        world.down |= {"api", "web"}
        await world.until("incident_closed", "web")
        await world.clock.sleep(100)
        assert world.story("api") == ["repair_control", "incident_opened", "repair_skipped"]
        assert world.of("repair_skipped")[0].rule == "paused"
        assert world.repair.get_status("api").paused
        world.repair.resume("api")
        await world.until("incident_closed", "api", within=20)


@virtual_time
async def test_a_pause_gives_the_slot_of_a_service_under_repair_to_the_others():
    world = World(caps=CapsSettings(max_unhealthy=34))
    slow = RepairOptions(verify_timeout_s=300)
    world.add("api", [Rung(world_action(world, "api"), attempts=3)], options=slow)
    world.add("web")
    world.add("other")
    async with world:
        world.down.add("api")
        await world.until("repair_ended", "api")
        world.down.add("web")
        await world.clock.sleep(60)
        assert world.of("repair_skipped", service="web")[0].rule == "max_unhealthy"
        assert world.of("repair_started", service="web") == []
        world.repair.pause("api")
        await world.until("repair_started", "web", within=0.1)


@virtual_time
async def test_a_service_that_the_policy_holds_back_gives_its_slot_to_the_others():
    world = World(caps=CapsSettings(max_unhealthy=34))
    world.add("api", [Rung(world_action(world, "api"), attempts=9)], options=RepairOptions(verify_timeout_s=2))
    world.add("web")
    world.add("other")
    held = set()

    class Policy:
        def decide(self, health):
            return Decision(health.status is HealthStatus.UNHEALTHY and health.name not in held, "held", "on hold")

    world.repair.set_policy(Policy())
    async with world:
        world.down.add("api")
        await world.until("repair_started", "api")
        held.add("api")
        world.down.add("web")
        await world.until("incident_closed", "web", within=30)
        assert len(world.of("repair_started", service="api")) == 1


@virtual_time
async def test_everything_can_be_paused_and_resumed_at_once():
    world = World()
    world.add("api")
    world.add("web")
    async with world:
        world.repair.pause()
        world.down |= {"api", "web"}
        await world.clock.sleep(100)
        assert world.runs == []
        world.repair.resume()
        await world.until("incident_closed", "api")
        await world.until("incident_closed", "web")
        assert [(e.action, e.service) for e in world.of("repair_control")] == [("pause", None), ("resume", None)]


@virtual_time
async def test_a_pause_in_the_middle_of_an_incident_lets_the_running_rung_end_and_begins_no_other():
    world = World()
    world.add("api", [world.heal("api", after=5, helps=False), world.heal("api")])
    async with world:
        world.down.add("api")
        await world.until("repair_started")
        world.repair.pause("api")
        await world.clock.sleep(100)
        assert [e.outcome for e in world.of("repair_ended")] == ["done"]
        assert len(world.of("repair_started")) == 1
        world.repair.resume("api")
        await world.until("incident_closed", within=20)


@virtual_time
async def test_resume_lets_a_ladder_that_gave_up_begin_anew():
    world = World()
    world.add("api", [world.heal("api", helps=False)])
    async with world:
        world.down.add("api")
        await world.until("repair_gave_up")
        await world.clock.sleep(100)
        world.repair.resume("api")
        await world.clock.sleep(10)
        assert len(world.of("repair_started")) == 2
        assert len(world.of("incident_opened")) == 1


@virtual_time
async def test_a_dry_run_decides_and_tells_everything_and_does_nothing():
    world = World(dry_run=True)
    world.add("api")
    async with world:
        world.down.add("api")
        await world.until("repair_gave_up")
        assert world.runs == []
        assert all(e.dry_run for e in world.of("repair_started"))
        assert [e.outcome for e in world.of("repair_ended")] == ["dry_run"]


# --- many at once ---------------------------------------------------------------------------------------


@virtual_time
async def test_a_thousand_services_that_fail_at_once_are_repaired_under_the_caps():
    caps = CapsSettings(
        max_concurrent=5, max_unhealthy=10, storm=StormSettings(repairs=200, window_s=60, cooldown_s=120)
    )
    world = World(caps=caps)
    most = [0, 0]
    for n in range(1000):
        world.add(f"s{n}", options=RepairOptions(healthy_delay_s=1), watch=ServiceOptions(interval_s=30))
    world.down |= {f"s{n}" for n in range(1000)}

    def measure(event):
        phases = [world.repair.get_status(name).phase for name in world.repair.services]
        most[0] = max(most[0], sum(phase is RepairPhase.RUNNING for phase in phases))
        most[1] = max(most[1], sum(phase in (RepairPhase.RUNNING, RepairPhase.VERIFYING) for phase in phases))

    async with world:
        world.events.listen(lambda e: measure(e) if e.kind == "repair_started" and e.id % 7 == 0 else None)
        async with asyncio.timeout(3600):
            while len(world.of("incident_closed")) < 1000:
                await world.clock.sleep(10)
    assert len(world.of("repair_started")) == 1000
    assert most[0] == 5
    assert 5 <= most[1] <= 100
    begun = [e.at for e in world.of("repair_started")]
    assert all(later - earlier > 60 for earlier, later in zip(begun, begun[200:], strict=False))
    # Each waiting service says once why, however often the caps take turns.
    assert len(world.of("repair_skipped")) <= 3000
    assert {e.rule for e in world.of("repair_skipped")} <= {"max_concurrent", "max_unhealthy", "storm"}


@virtual_time
async def test_a_storm_stops_all_repairs_for_its_cool_down():
    caps = CapsSettings(
        max_concurrent=100, max_unhealthy=100, storm=StormSettings(repairs=4, window_s=60, cooldown_s=120)
    )
    world = World(caps=caps)
    for n in range(10):
        world.add(f"s{n}")
    world.down |= {f"s{n}" for n in range(10)}
    async with world:
        await world.clock.sleep(60)
        assert len(world.runs) == 4
        await world.clock.sleep(500)
        assert len(world.of("incident_closed")) == 10
        begun = [e.at for e in world.of("repair_started")]
        assert begun[4] - begun[3] >= 120
        assert begun[8] - begun[7] >= 120


@virtual_time
async def test_every_slot_that_is_free_is_taken_at_once():
    world = World(caps=CapsSettings(max_concurrent=2, max_unhealthy=100))
    for n in range(6):
        world.add(f"s{n}", watch=ServiceOptions(interval_s=300))
    world.down |= {f"s{n}" for n in range(6)}
    async with world:
        for n in range(6):
            for _ in range(3):
                await world.monitor.check_health(f"s{n}")
        await world.clock.sleep(30)
        begun = [e.at for e in world.of("repair_started")]
        assert [pytest.approx(begun[0] + seconds, abs=0.01) for seconds in (0, 0, 1, 1, 2, 2)] == begun


@virtual_time
async def test_one_that_recovers_in_the_queue_does_not_hold_up_those_behind_it():
    world = World(caps=CapsSettings(max_concurrent=1, max_unhealthy=100))
    for n in range(3):
        world.add(f"s{n}", watch=ServiceOptions(interval_s=300))
    world.down |= {f"s{n}" for n in range(3)}
    async with world:
        for n in range(3):
            for _ in range(3):
                await world.monitor.check_health(f"s{n}")
        await world.until("repair_started", "s0")
        world.down.discard("s1")
        await world.monitor.check_health("s1")
        await world.until("repair_started", "s2", within=1.1)


# --- across restarts ------------------------------------------------------------------------------------


async def crash(world):
    """End a program as kill -9 does: nothing more is written."""
    world.repair._records._store = None
    world.events._listeners.clear()
    await world.monitor.stop()
    await world.repair.stop()


@virtual_time
async def test_after_a_kill_a_cut_off_rung_is_verified_then_repeated_and_a_finished_one_is_not(store):
    down = {"api"}

    def program():
        world = World(store=store, down=down)
        world.add("api", [world.heal("api", helps=False), world.heal("api", after=20)])
        return world

    first = program()
    await first.__aenter__()
    while len(first.runs) < 2:
        await first.clock.sleep(0.1)
    incident = first.of("incident_opened")[0].incident
    await crash(first)

    second = program()
    async with second:
        ended = await second.until("repair_ended")
        assert (ended.incident, ended.rung, ended.outcome) == (incident, 1, "interrupted")
        begun = second.clock.time()
        started = await second.until("repair_started")
        assert started.at - begun >= QUICK.verify_timeout_s - 0.1
        assert (started.incident, started.rung, started.attempt) == (incident, 1, 1)
        closed = await second.until("incident_closed")
        assert closed.incident == incident
        assert second.of("incident_opened") == []
        assert len(second.runs) == 1


class Documents:
    """A store that keeps what a file would have kept."""

    def __init__(self):
        self.kept = {}
        self.trail = []

    def get(self, namespace, key):
        return json.loads(self.kept[key]) if key in self.kept else None

    def put(self, namespace, key, document):
        self.kept[key] = json.dumps(document)

    def append_audit(self, record):
        self.trail.append(replace(record, data=json.loads(json.dumps(record.data))))
        return len(self.trail)

    def audit(self, *, incident, kind):
        return [record for record in self.trail if (record.incident, record.kind) == (incident, kind)]


@settings(max_examples=40, deadline=None)
@given(
    kills=st.lists(st.floats(0.1, 40), min_size=1, max_size=3),
    seconds=st.lists(st.floats(0, 12), min_size=1, max_size=4),
    helps=st.integers(0, 4),
)
@virtual_time
async def test_whenever_it_is_killed_no_finished_rung_is_repeated_and_no_open_incident_forgotten(kills, seconds, helps):
    store, down, finished, opened, ended = Documents(), {"api"}, [], [], []

    def rung(world, number):
        async def fix(context):
            await world.clock.sleep(seconds[number])
            finished.append(number)
            if number == helps:
                down.clear()

        return fix

    for kill in [*kills, 400.0]:
        world = World(store=store, down=down)
        world.add("api", [rung(world, number) for number in range(len(seconds))])
        await world.__aenter__()
        await world.clock.sleep(kill)
        opened += [e.incident for e in world.of("incident_opened")]
        ended += [e.incident for e in world.of("incident_closed", "repair_gave_up")]
        await crash(world)
    reached = min(helps, len(seconds) - 1)
    assert finished == list(range(reached + 1))
    assert len(opened) == 1
    assert set(ended) == set(opened)


@virtual_time
async def test_a_cut_off_rung_that_helped_all_the_same_closes_the_incident(store):
    down = {"api"}
    first = World(store=store, down=down)
    first.add("api", [first.heal("api", after=50)])
    await first.__aenter__()
    await first.until("repair_started")
    await crash(first)
    down.clear()
    second = World(store=store, down=down)
    second.add("api", [second.heal("api", after=50)])
    async with second:
        await second.until("incident_closed")
        assert second.runs == []


@virtual_time
async def test_an_incident_that_was_given_up_is_not_forgotten(store):
    down = {"api"}
    first = World(store=store, down=down)
    first.add("api", [first.heal("api", helps=False)])
    await first.__aenter__()
    gave_up = await first.until("repair_gave_up")
    await crash(first)
    second = World(store=store, down=down)
    second.add("api", [second.heal("api", helps=False)])
    async with second:
        await second.clock.sleep(60)
        assert second.story() == []
        status = second.repair.get_status("api")
        assert (status.phase, status.incident) == (RepairPhase.GAVE_UP, gave_up.incident)
        down.clear()
        assert (await second.until("incident_closed")).incident == gave_up.incident


@virtual_time
async def test_with_another_ladder_than_before_an_open_incident_begins_at_the_first_rung(store):
    down = {"api"}
    first = World(store=store, down=down)
    first.add("api", [world_action(first, "api"), world_action(first, "api")])
    await first.__aenter__()
    await first.until("repair_gave_up")
    await crash(first)
    second = World(store=store, down=down)
    second.add("api")
    async with second:
        closed = await second.until("incident_closed")
        assert closed.incident == first.of("incident_opened")[0].incident
        assert second.of("repair_started")[0].rung == 0


@virtual_time
async def test_pauses_outlive_a_restart(store):
    first = World(store=store)
    first.add("api")
    async with first:
        first.repair.pause("api")
    second = World(store=store, down={"api"})
    second.add("api")
    async with second:
        await second.clock.sleep(60)
        assert second.runs == []
        assert second.repair.get_status("api").paused


@virtual_time
async def test_stopping_cancels_the_running_rung_records_it_and_leaves_no_task(store):
    world = World(store=store, down={"api"})
    world.add("api", [world.heal("api", after=1000)])
    async with world:
        await world.until("repair_started")
        order = asyncio.create_task(world.repair.repair("api"))
        await world.clock.sleep(1)
        await world.repair.stop()
        with pytest.raises(SelfrightError, match="stopped"):
            await order
        assert world.running == 0
        assert world.of("repair_ended")[0].outcome == "interrupted"
        assert store.get("repair", "api")["ladder"]["phase"] == "verifying"
        await world.repair.stop()


@virtual_time
async def test_the_record_of_a_run_is_written_before_it_begins(store):
    world = World(store=store, down={"api"})
    seen = []

    async def look(context):
        seen.append(store.get("repair", "api")["ladder"])
        world.down.clear()

    world.add("api", [look])
    async with world:
        await world.until("incident_closed")
    assert [(entry["phase"], entry["rung"], entry["tries"]) for entry in seen] == [("running", 0, 1)]


@virtual_time
async def test_a_state_file_that_fails_is_told_once_and_services_are_repaired_all_the_same():
    class Full:
        def get(self, namespace, key):
            return None

        def put(self, namespace, key, document):
            raise StateError("the disk is full")

    world = World(store=Full(), down={"api"})
    world.add("api")
    async with world:
        await world.until("incident_closed")
        assert [e.detail for e in world.of("component_failed")] == [
            "repairs go on, but after a restart they may be repeated: the disk is full"
        ]


@virtual_time
async def test_a_document_that_cannot_be_read_is_told_and_left_out(store):
    store.put("repair", "api", {"ladder": {"phase": "dancing"}, "rungs": [], "paused": True})
    world = World(store=store)
    world.add("api")
    assert "api" in world.of("component_failed")[0].detail
    assert not world.repair.get_status("api").paused
    async with world:
        world.down.add("api")
        await world.until("incident_closed")


@virtual_time
async def test_a_ladder_that_never_starts_leaves_the_incidents_of_an_earlier_run_alone(store):
    down = {"api"}
    first = World(store=store, down=down)
    first.add("api", [first.heal("api", after=50)])
    await first.__aenter__()
    await first.until("repair_started")
    await crash(first)
    quarantined = World(store=store, down=down)
    quarantined.add("api")
    await quarantined.monitor.start()
    await quarantined.clock.sleep(100)
    await quarantined.monitor.stop()
    assert quarantined.story() == []
    assert quarantined.runs == []


# --- registration ---------------------------------------------------------------------------------------


@virtual_time
async def test_names_are_known_and_unique():
    world = World()
    world.add("api")
    assert world.repair.services == ("api",)
    assert world.repair.get_options("api") == QUICK
    assert [rung.action.kind for rung in world.repair.get_ladder("api")] == ["callable"]
    with pytest.raises(DuplicateServiceError, match="'api'"):
        world.repair.register_service("api", [])
    with pytest.raises(UnknownServiceError, match="did you mean 'api'"):
        world.repair.get_status("apj")
    for call in (world.repair.pause, world.repair.resume):
        with pytest.raises(UnknownServiceError):
            call("nobody")
    with pytest.raises(UnknownServiceError):
        await world.repair.repair("nobody")


@pytest.mark.parametrize(
    ("rungs", "options", "words"),
    [
        (["restart"], None, "rung 1 of 'web'"),
        ([lambda context: None], None, "rung 1 of 'web'"),
        ([], RepairOptions(verify_passes=0), "verify_passes"),
        ([], RepairOptions(backoff_base_s=-1), "backoff_base_s"),
        ([], RepairOptions(stable_s=float("nan")), "stable_s"),
    ],
)
@virtual_time
async def test_a_ladder_that_cannot_be_is_refused_and_changes_nothing(rungs, options, words):
    world = World()
    with pytest.raises(ConfigurationError, match=words):
        world.repair.register_service("web", rungs, options=options)
    assert world.repair.services == ()


@virtual_time
async def test_a_service_that_is_watched_no_more_is_reported_and_does_not_stop_the_others():
    world = World()
    world.add("api", [world.heal("api", helps=False)] * 2)
    world.add("web")
    async with world:
        world.down.add("api")
        await world.until("repair_ended")
        world.monitor.unregister_service("api")
        failed = await world.until("component_failed")
        assert "api" in failed.detail
        world.down.add("web")
        await world.until("incident_closed", "web")
        assert len(world.of("component_failed")) == 1
