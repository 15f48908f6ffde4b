"""Repairs that meet trouble: crash loops, restarts of groups, slots that others need, kills, want of descriptors."""

import asyncio
import errno
import json
import random
from dataclasses import replace

import pytest

from backend.shared.self_healing.actions.restart import RestartAction
from backend.shared.self_healing.audit import AuditTrail
from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.repair import AutoRepair
from backend.shared.self_healing.settings import CapsSettings, StormSettings
from modules.contracts.clock import LoopClock
from modules.contracts.errors import ProcessError
from modules.contracts.events import EventBus
from modules.contracts.health import Decision, HealthStatus, RepairOptions, RepairPhase, Rung, ServiceOptions
from runtime.simulation.loop import virtual_time

WATCH = ServiceOptions(interval_s=1, reprobe_s=0.25, fall=3)
QUICK = RepairOptions(backoff_base_s=1, verify_passes=2, healthy_delay_s=2, verify_timeout_s=10)
EVERYTHING = CapsSettings(max_concurrent=1000, max_unhealthy=100, storm=StormSettings(repairs=10_000))


class Processes:
    """Supervised processes: a service is well while its process runs. ``takes_s`` for a stop and for a start."""

    def __init__(self, clock, *names, takes_s=0.5, lives_s=None):
        self.clock = clock
        self.names = names
        self.takes_s = takes_s
        self.lives_s = lives_s
        self.down = set()
        self.faults = {}
        self.calls = []
        self.restarting = {}

    async def stop_process(self, name):
        self.calls.append(f"stop {name}")
        await self.clock.sleep(self.takes_s)
        self.down.add(name)

    async def restart(self, name):
        """As the real one: once begun it goes on, whoever leaves."""
        if name not in self.restarting:
            self.restarting[name] = asyncio.create_task(self._restart(name))
            self.restarting[name].add_done_callback(lambda _: self.restarting.pop(name))
        await asyncio.shield(self.restarting[name])

    async def _restart(self, name):
        self.calls.append(f"restart {name}")
        await self.clock.sleep(self.takes_s)
        self.down.add(name)
        if fault := self.faults.get(name):
            raise ProcessError(f"{name} does not start") from fault
        self.down.discard(name)
        if self.lives_s is not None:
            asyncio.get_running_loop().call_later(self.lives_s, self.down.add, name)


class World:
    def __init__(self, *names, caps=EVERYTHING, store=None, **processes):
        self.clock = LoopClock()
        self.events = EventBus(self.clock, history=100_000)
        self.heard = []
        self.events.listen(self.heard.append)
        if store is not None:
            AuditTrail(self.events, store)
        self.monitor = HealthMonitor(clock=self.clock, events=self.events, rng=random.Random(1))
        self.repair = AutoRepair(
            self.monitor, clock=self.clock, events=self.events, rng=random.Random(1), store=store, caps=caps
        )
        self.processes = Processes(self.clock, *names, **processes)
        self.down = self.processes.down

    def add(self, name, rungs=None, *, options=QUICK, watch=WATCH):
        async def check():
            return name not in self.down

        self.monitor.register_service(name, check, options=watch)
        own = RestartAction((name,), self.processes)
        self.repair.register_service(name, [own] if rungs is None else rungs, options=options)

    def restart(self, *names):
        return RestartAction(names, self.processes)

    async def __aenter__(self):
        await self.repair.start()
        await self.monitor.start()
        return self

    async def __aexit__(self, *exc):
        await self.monitor.stop()
        await self.repair.stop()
        await asyncio.gather(*self.processes.restarting.values(), return_exceptions=True)
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    def of(self, kind, service=None):
        return [e for e in self.heard if e.kind == kind and (service is None or e.service == service)]

    async def until(self, kind, service=None, *, within=600.0):
        async with asyncio.timeout(within):
            while not self.of(kind, service):
                await self.clock.sleep(0.05)
        return self.of(kind, service)[-1]


def useless(count):
    async def look(context):
        return "looked"

    return [look] * count


# --- no loop without an end, and no silence -------------------------------------------------------------


@virtual_time
async def test_a_service_that_dies_again_and_again_after_its_incidents_closed_is_given_up_on_loudly():
    world = World("api", lives_s=8)
    world.add("api", [Rung(world.restart("api"), attempts=3)])
    async with world:
        world.down.add("api")
        await world.clock.sleep(3600)
        assert len(world.of("repair_started")) == 3
        assert len(world.of("incident_closed")) == 3
        assert len(world.of("incident_opened")) == 4
        assert len(world.of("repair_gave_up")) == 1
        assert world.repair.get_status("api").phase is RepairPhase.GAVE_UP


@virtual_time
async def test_a_ladder_given_up_by_its_interval_says_so_and_goes_on_by_itself_when_there_is_room():
    world = World("api")
    options = replace(QUICK, attempts_per_interval=2, attempts_interval_s=300, verify_timeout_s=1, backoff_base_s=0)
    world.add("api", useless(5), options=options)
    async with world:
        world.down.add("api")
        gave_up = await world.until("repair_gave_up")
        assert "2 runs in 300 s" in gave_up.reason
        assert world.repair.get_status("api").next_at == pytest.approx(gave_up.at + 295, abs=5)
        await world.clock.sleep(310)
        assert len(world.of("repair_started")) == 4
        await world.clock.sleep(3600)
        assert len(world.of("repair_started")) == 5
        assert world.of("repair_gave_up")[-1].reason.startswith("every rung was tried")


@virtual_time
async def test_a_failed_service_that_must_not_be_repaired_has_an_incident_that_says_why_and_closes_when_it_is_well():
    world = World("api", "web", caps=CapsSettings(max_unhealthy=50))
    world.add("api")
    world.add("web")
    async with world:
        world.repair.pause("api")
        world.down |= {"api"}
        skipped = await world.until("repair_skipped", "api")
        assert skipped.rule == "paused"
        assert skipped.incident == world.of("incident_opened", "api")[0].incident
        world.down.add("web")
        await world.until("incident_closed", "web")  # the only slot is not taken by who waits
        assert world.of("repair_started", "api") == []
        world.down.clear()
        closed = await world.until("incident_closed", "api")
        assert closed.actions == 0


@pytest.mark.parametrize("rule", ["affected", "maintenance"])
@virtual_time
async def test_what_another_is_at_fault_for_or_people_work_on_has_no_incident(rule):
    world = World("api")
    world.add("api")

    class Policy:
        def decide(self, health):
            return Decision(False, rule if health.status is HealthStatus.UNHEALTHY else "healthy", "not now")

    world.repair.set_policy(Policy())
    world.repair.pause("api")
    async with world:
        world.down.add("api")
        await world.until("repair_skipped")
        await world.clock.sleep(60)
        assert world.of("incident_opened") == []


# --- restarts of more than one --------------------------------------------------------------------------


@pytest.mark.parametrize("grace", [0, 5])
@virtual_time
async def test_what_a_rung_restarts_with_its_root_has_no_incident_and_no_repair_of_its_own(grace):
    world = World("db", "api", "web", takes_s=4)
    watch = replace(WATCH, startup_grace_s=grace)
    group = world.restart("db", "api", "web")
    world.add("db", [Rung(group, timeout_s=60)], watch=watch)
    world.add("api", watch=watch)
    world.add("web", watch=watch)
    async with world:
        await world.clock.sleep(6)
        world.down.add("db")
        await world.until("incident_closed", "db")
        await world.clock.sleep(60)
        assert world.processes.calls == ["stop web", "stop api", "restart db", "restart api", "restart web"]
        assert {e.service for e in world.of("incident_opened")} == {"db"}


@virtual_time
async def test_what_a_rung_restarts_is_repaired_by_itself_when_it_stays_down_afterwards():
    world = World("db", "api")
    world.processes.faults["api"] = FileNotFoundError("api")
    world.add("db", [world.restart("db", "api")])
    world.add("api", useless(1))
    async with world:
        world.down.add("db")
        ended = await world.until("repair_ended", "db")
        assert ended.outcome == "failed"
        opened = await world.until("incident_opened", "api", within=15)
        assert opened.at - ended.at >= QUICK.verify_timeout_s


@virtual_time
async def test_no_two_rungs_work_on_one_service_at_a_time():
    world = World("db", "api", takes_s=3)
    world.add("db", [world.restart("db", "api")])
    world.add("api")
    async with world:
        world.down.add("db")
        await world.until("repair_started", "db")
        assert (await world.repair.repair("api")).repaired
        ended, started = world.of("repair_ended", "db")[0], world.of("repair_started", "api")[0]
        assert started.at >= ended.at
        assert [(e.rule, "db" in e.reason) for e in world.of("repair_skipped", "api")] == [("held", True)]
        assert world.processes.calls == ["stop api", "restart db", "restart api", "restart api"]


@virtual_time
async def test_a_root_that_cannot_be_started_leaves_none_of_its_dependents_stopped():
    world = World("db", "api", "web")
    world.processes.faults["db"] = FileNotFoundError("db")
    world.add("db", [world.restart("db", "api", "web")])
    world.add("api")
    world.add("web")
    async with world:
        world.down.add("db")
        ended = await world.until("repair_ended", "db")
        assert ended.outcome == "failed"
        assert "db could not be restarted: db does not start" in ended.detail
        assert "started again: api, web" in ended.detail
        assert world.down == {"db"}


@virtual_time
async def test_a_restart_that_outlasts_its_timeout_is_waited_for_and_then_verified_and_not_repeated():
    world = World("api", takes_s=8)
    world.add("api", [Rung(world.restart("api"), timeout_s=2, attempts=2)])
    async with world:
        world.down.add("api")
        await world.until("repair_started")
        await world.clock.sleep(1)
        world.down.clear()  # the old process answers again, and is about to be ended
        ended = await world.until("repair_ended")
        assert ended.duration_s == pytest.approx(8)
        assert "later than its timeout of 2 s" in ended.detail
        closed = await world.until("incident_closed")
        assert closed.at >= ended.at + QUICK.healthy_delay_s
        await world.clock.sleep(60)
        assert world.processes.calls == ["restart api"]


@virtual_time
async def test_nothing_is_verified_while_a_restart_goes_on_that_nobody_waits_for_any_more():
    world = World("api", takes_s=100)
    world.add("api", [Rung(world.restart("api"), timeout_s=2)])
    async with world:
        world.down.add("api")
        ended = await world.until("repair_ended")
        assert ended.outcome == "timed_out"
        world.down.clear()
        await world.clock.sleep(20)
        assert world.of("incident_closed") == []
        await world.until("incident_closed", within=60)


# --- slots ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "waits",
    [
        {"backoff_base_s": 5000.0, "backoff_max_s": 5000.0},
        {"cooldown_s": 5000.0},
        {"attempts_per_interval": 1, "attempts_interval_s": 5000.0},
    ],
)
@virtual_time
async def test_a_service_for_which_nothing_is_done_for_long_leaves_its_slot_to_others(waits):
    world = World("api", "web", caps=CapsSettings(max_unhealthy=50))
    world.add("api", useless(3), options=replace(QUICK, verify_timeout_s=1, **waits))
    world.add("web")
    async with world:
        world.down.add("api")
        await world.until("repair_ended", "api")
        world.down.add("web")
        await world.until("incident_closed", "web", within=15)
        assert len(world.of("repair_started", "api")) == 1


# --- what the repairer itself lacks ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
@virtual_time
async def test_want_of_descriptors_or_memory_uses_up_no_attempt_and_is_told_once_to_people(number):
    world = World("api")
    world.processes.faults["api"] = OSError(number, "none left")
    world.add("api")
    async with world:
        world.down.add("api")
        await world.clock.sleep(300)
        assert world.of("repair_gave_up") == []
        assert {e.outcome for e in world.of("repair_ended")} == {"failed"}
        gaps = [b.at - a.at for a, b in zip(world.of("repair_started"), world.of("repair_started")[1:], strict=False)]
        assert gaps == pytest.approx([1.5, 2.5, 4.5, 8.5, 16.5, *[30.5] * (len(gaps) - 5)], abs=0.01)
        assert len(world.of("component_failed")) == 1
        assert "api does not start" in world.of("component_failed")[0].detail
        world.processes.faults.clear()
        closed = await world.until("incident_closed", within=60)
        assert closed.actions == 1


@virtual_time
async def test_a_fault_of_the_services_own_program_does_use_up_its_attempts():
    world = World("api")
    world.processes.faults["api"] = OSError(errno.ENOEXEC, "no program")
    world.add("api")
    async with world:
        world.down.add("api")
        await world.until("repair_gave_up", within=60)


# --- kills between writing and telling ------------------------------------------------------------------


class Moments:
    """A store that remembers how it stood after each write, with what the world was like then."""

    def __init__(self, kept=None, trail=()):
        self.kept = dict(kept or {})
        self.trail = list(trail)
        self.moments = []
        self.world = dict

    def get(self, namespace, key):
        return json.loads(self.kept[key]) if key in self.kept else None

    def put(self, namespace, key, document):
        self.kept[key] = json.dumps(document)
        self._remember()

    def append_audit(self, record):
        self.trail.append(replace(record, data=json.loads(json.dumps(record.data))))
        self._remember()
        return len(self.trail)

    def audit(self, *, incident, kind):
        return [record for record in self.trail if (record.incident, record.kind) == (incident, kind)]

    def _remember(self):
        self.moments.append((dict(self.kept), list(self.trail), self.world()))


def program(store, down, runs, *, helps):
    """A service whose second rung helps, or none; what the world was like is kept with each write."""
    world = World("api", store=store)

    def rung(number):
        async def fix(context):
            await world.clock.sleep(1)
            runs.append(number)
            if helps and number == 1:
                down.clear()

        return fix

    world.processes.down = world.down = down
    world.add("api", [rung(0), rung(1)], options=replace(QUICK, verify_timeout_s=3))
    store.world = lambda: {"down": set(down), "runs": list(runs)}
    return world


@pytest.mark.parametrize("helps", [True, False])
@virtual_time
async def test_killed_after_any_write_the_next_run_loses_no_record_and_does_nothing_twice(helps):
    first = Moments()
    end = "incident_closed" if helps else "repair_gave_up"
    async with program(first, {"api"}, [], helps=helps) as world:
        await world.until(end)
        await world.clock.sleep(5)
    assert len(first.moments) > 10
    for kept, trail, was in first.moments:
        again = Moments(kept, trail)
        runs = was["runs"]
        async with program(again, was["down"], runs, helps=helps) as world:
            await world.clock.sleep(60)
        story = [
            (r.kind, r.data.get("rung"), r.data.get("outcome"))
            for r in again.trail
            if r.kind.startswith(("incident_", "repair_")) and r.data.get("outcome") != "interrupted"
        ]
        kinds = [kind for kind, *_ in story]
        assert kinds.count("incident_opened") == 1, story
        assert kinds.count(end) == 1, story
        assert len({r.incident for r in again.trail if r.incident}) == 1
        for number in (0, 1):
            assert story.count(("repair_ended", number, "done")) == 1, story
            assert ("repair_started", number, None) in story
            assert number in runs
