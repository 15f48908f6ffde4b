"""The error budget policy: which steps hold when, who hears of it, and what the recovery manager does then."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.monitoring.enforcement import BudgetPolicy, Enforcement
from backend.shared.monitoring.settings import BudgetStepSettings
from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.recovery import RecoveryManager
from backend.shared.self_healing.repair import AutoRepair
from modules.contracts.clock import LoopClock, SystemClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import EventBus
from modules.contracts.health import RepairOptions, ServiceOptions
from modules.contracts.slo import ObjectiveReport, SLOStatus
from modules.local.recovery import LocalRecoveryManager
from runtime.simulation.loop import virtual_time

STEPS = (
    BudgetStepSettings(below=0, step="freeze"),
    BudgetStepSettings(below=50, step="tighten"),
    BudgetStepSettings(below=20, step="shed"),
)


def report(left, name="checkout", service="api", status=None):
    status = status or (SLOStatus.NO_DATA if left is None else SLOStatus.MET)
    return ObjectiveReport(name, "", service, 99.0, "occurrences", status, None, left, {}, None, ())


@pytest.fixture
def events():
    return EventBus(SystemClock())


@pytest.fixture
def policy(events):
    return BudgetPolicy(STEPS, events=events)


def told(events):
    return [
        (event.objective, event.step, event.in_force, event.error_budget_remaining)
        for event in events.recent()
        if event.kind == "budget_step_changed"
    ]


@pytest.mark.parametrize(
    ("left", "steps"),
    [
        (100, ()), (50, ()), (49.9, ("tighten",)), (20, ("tighten",)), (19, ("tighten", "shed")),
        (0, ("tighten", "shed")), (-0.1, ("tighten", "shed", "freeze")), (-900, ("tighten", "shed", "freeze")),
    ],
)  # fmt: skip
def test_a_step_holds_below_its_threshold_the_mildest_first(policy, left, steps):
    policy.update([report(left)])
    assert policy.in_force.get("checkout", ()) == steps


def test_a_step_ends_only_above_its_threshold_by_the_margin(policy):
    for left, steps in ((49, ("tighten",)), (50, ("tighten",)), (50.9, ("tighten",)), (51, ()), (50, ())):
        policy.update([report(left)])
        assert policy.in_force.get("checkout", ()) == steps, left


def test_a_whole_budget_ends_a_step_that_holds_below_a_whole_one(events):
    policy = BudgetPolicy([BudgetStepSettings(below=100, step="tighten")], events=events)
    policy.update([report(99.9)])
    assert policy.in_force == {"checkout": ("tighten",)}
    policy.update([report(100)])
    assert policy.in_force == {}


@pytest.mark.parametrize(
    "silent",
    [report(None), report(100, status=SLOStatus.NO_DATA), report(float("nan")), report(None, status="violated")],
)
def test_no_data_changes_nothing(policy, events, silent):
    policy.update([silent])
    assert policy.in_force == {}
    policy.update([report(10)])
    before = told(events)
    policy.update([silent])
    assert policy.in_force == {"checkout": ("tighten", "shed")}
    assert told(events) == before


def test_each_change_is_published_once_with_what_is_left(policy, events):
    for left in (10, 10, 30, 80):
        policy.update([report(left)])
    assert told(events) == [
        ("checkout", "tighten", True, 10), ("checkout", "shed", True, 10),
        ("checkout", "shed", False, 30), ("checkout", "tighten", False, 80),
    ]  # fmt: skip
    first, last = events.recent()[0], events.recent()[-1]
    assert first.service == "api"
    assert first.message == "policy step tighten is in force for checkout: 10.0 % of the budget left"
    assert last.message == "policy step tighten ended for checkout: 80.0 % of the budget left"


def test_an_objective_that_is_gone_takes_its_steps_with_it(policy, events):
    policy.update([report(10), report(10, name="search")])
    policy.update([report(10, name="search")])
    assert policy.in_force == {"search": ("tighten", "shed")}
    assert told(events)[-2:] == [("checkout", "tighten", False, None), ("checkout", "shed", False, None)]
    assert "the objective is gone" in events.recent()[-1].message
    policy.update([report(50, name="search"), report(50)])
    assert "checkout" not in policy.in_force, "it begins anew, without the margin of before"


def test_nothing_is_kept_of_objectives_that_are_gone(policy):
    for number in range(100):
        policy.update([report(10, f"o{number}")])
    assert (list(policy._services), list(policy._in_force)) == (["o99"], ["o99"])


def test_a_service_has_the_steps_of_all_its_objectives_and_of_no_other(policy):
    policy.update(
        [report(-1, "spent", "api"), report(30, "slow", "api"), report(30, "other", "web"), report(-1, "all", None)]
    )
    assert policy.for_service("api") == ("tighten", "shed", "freeze")
    assert policy.for_service("web") == ("tighten",)
    assert policy.for_service("db") == ()


def test_subscribers_hear_each_change_until_they_end_it_and_one_that_fails_keeps_nobody_from_it(policy, events):
    heard = []

    def fail(change):
        raise RuntimeError("no")

    policy.subscribe(fail)
    end = policy.subscribe(lambda change: heard.append((change.step, change.in_force)))
    policy.update([report(40)])
    assert heard == [("tighten", True)]
    assert [event.component for event in events.recent() if event.kind == "component_failed"] == ["error budget policy"]
    end()
    end()
    policy.update([report(90)])
    assert heard == [("tighten", True)]


def test_reports_that_cannot_be_read_change_nothing(policy):
    def broken():
        yield report(10)
        raise RuntimeError("gone")

    policy.update([report(60), report(40, "search")])
    with pytest.raises(RuntimeError):
        policy.update(broken())
    assert policy.in_force == {"search": ("tighten",)}


def test_a_step_that_is_written_twice_holds_from_its_highest_threshold(events):
    twice = [BudgetStepSettings(below=below, step="shed") for below in (30, 10)]
    policy = BudgetPolicy(twice, events=events)
    policy.update([report(20)])
    assert policy.in_force == {"checkout": ("shed",)}
    assert policy.steps == {"shed": 30}


@pytest.mark.parametrize("margin", [-1, float("nan"), float("inf")])
def test_a_margin_that_cannot_be_is_refused(events, margin):
    with pytest.raises(ConfigurationError, match="margin of the error budget policy"):
        BudgetPolicy(STEPS, events=events, margin=margin)


@given(st.lists(st.one_of(st.none(), st.floats(-200, 100)), max_size=40))
def test_what_was_told_adds_up_to_what_is_in_force(budgets):
    events = EventBus(SystemClock())
    policy = BudgetPolicy(STEPS, events=events)
    for left in budgets:
        policy.update([report(left)])
    in_force = set()
    for _, step, begins, _ in told(events):
        assert (step in in_force) is not begins
        in_force ^= {step}
    assert in_force == set(policy.in_force.get("checkout", ()))
    last = next((left for left in reversed(budgets) if left is not None), 100)
    assert {step.step for step in STEPS if last < step.below} <= in_force
    assert in_force <= {step.step for step in STEPS if last < step.below + 1}


@virtual_time
async def test_the_enforcement_looks_at_once_and_again_and_again_until_it_is_stopped():
    clock = LoopClock()
    events = EventBus(clock)
    policy = BudgetPolicy(STEPS, events=events)
    left = 40
    enforcement = Enforcement(policy, lambda: {"checkout": report(left)}, clock=clock, events=events, every_s=10)
    await enforcement.stop()
    await enforcement.start()
    await enforcement.start()
    assert policy.in_force == {"checkout": ("tighten",)}
    assert enforcement.status.detail == "checkout: tighten"
    left = 90
    await clock.sleep(9.9)
    assert policy.in_force == {"checkout": ("tighten",)}
    await clock.sleep(0.2)
    assert policy.in_force == {}
    assert "no step" in enforcement.status.detail
    await enforcement.stop()
    await enforcement.stop()
    left = 10
    await clock.sleep(30)
    assert policy.in_force == {}
    assert enforcement.status.state is ComponentState.STOPPED
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_fault_is_told_once_and_the_next_look_may_succeed():
    clock = LoopClock()
    events = EventBus(clock)
    policy = BudgetPolicy(STEPS, events=events)
    objectives = None
    enforcement = Enforcement(policy, lambda: {"checkout": report(10 / objectives)}, clock=clock, events=events)
    await enforcement.start()
    await clock.sleep(35)
    assert [event.component for event in events.recent()] == ["error budget policy"]
    assert enforcement.status.state is ComponentState.DEGRADED
    objectives = 1
    await clock.sleep(10)
    assert enforcement.status.state is ComponentState.RUNNING
    assert policy.in_force == {"checkout": ("tighten", "shed")}
    await enforcement.stop()


@pytest.mark.parametrize("every_s", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_cannot_be_is_refused(events, policy, every_s):
    with pytest.raises(ConfigurationError, match="every_s"):
        Enforcement(policy, dict, clock=SystemClock(), events=events, every_s=every_s)


# --- what recovery does with it ---------------------------------------------------------------------


def managed(kind, clock, events, policy):
    """A monitor, repairs and a manager of either side, which asks the policy."""
    monitor = HealthMonitor(clock=clock, events=events)
    repair = AutoRepair(monitor, clock=clock, events=events, rng=random.Random(1))
    manager = (
        RecoveryManager(monitor, repair, clock=clock, events=events, steps=policy.for_service)
        if kind == "backend"
        else LocalRecoveryManager(repair, clock=clock, steps=policy.for_service)
    )
    return monitor, repair, manager


@pytest.mark.parametrize("kind", ["backend", "local"])
@virtual_time
async def test_a_degraded_service_is_repaired_as_soon_as_tighten_is_in_force(kind):
    clock = LoopClock()
    events = EventBus(clock)
    policy = BudgetPolicy(STEPS, events=events)
    monitor, repair, manager = managed(kind, clock, events, policy)
    ready, repaired = False, []

    async def is_ready():
        return ready

    async def fix(context):
        nonlocal ready
        ready = True
        repaired.append(clock.time())

    async def alive():
        return True

    monitor.register_service("api", alive, readiness=is_ready, options=ServiceOptions(interval_s=5, fall=1))
    repair.register_service("api", [fix], options=RepairOptions(healthy_delay_s=0))
    await manager.start()
    await monitor.start()
    await clock.sleep(60)
    assert repaired == []
    policy.update([report(60)])
    await clock.sleep(10)
    assert repaired == []
    policy.update([report(40)])
    asked = clock.time()
    await clock.sleep(10)
    assert len(repaired) == 1
    assert repaired[0] - asked <= 5.5
    await monitor.stop()
    await manager.stop()


@pytest.mark.parametrize(("left", "attempts"), [(90, 1), (40, 2)])
@virtual_time
async def test_with_tighten_in_force_the_second_attempt_does_not_wait_for_its_back_off(left, attempts):
    clock = LoopClock()
    events = EventBus(clock)
    policy = BudgetPolicy(STEPS, events=events)
    policy.update([report(left)])
    monitor, repair, manager = managed("backend", clock, events, policy)
    tries = []

    async def broken():
        return False

    async def fix(context):
        tries.append(clock.monotonic())

    monitor.register_service("api", broken, options=ServiceOptions(interval_s=1, fall=1))
    options = RepairOptions(backoff_base_s=600, backoff_max_s=600, verify_timeout_s=2, attempts_per_interval=100)
    repair.register_service("api", [fix, fix, fix, fix], options=options)
    await manager.start()
    await monitor.start()
    await clock.sleep(60)
    await monitor.stop()
    await manager.stop()
    assert len(tries) == attempts


@virtual_time
async def test_freeze_and_shed_stop_no_repair_neither_one_of_the_ladder_nor_one_that_is_ordered():
    clock = LoopClock()
    events = EventBus(clock)
    steps = [BudgetStepSettings(below=0, step="freeze"), BudgetStepSettings(below=50, step="shed")]
    policy = BudgetPolicy(steps, events=events)
    policy.update([report(-50)])
    monitor, repair, manager = managed("backend", clock, events, policy)
    well, repaired = False, 0

    async def check():
        return well

    async def fix(context):
        nonlocal well, repaired
        well = True
        repaired += 1

    monitor.register_service("api", check, options=ServiceOptions(interval_s=1, fall=1))
    repair.register_service("api", [fix], options=RepairOptions(healthy_delay_s=0))
    await manager.start()
    await monitor.start()
    await clock.sleep(20)
    assert repaired == 1
    assert (await manager.recover("api", "to be sure")).repaired
    assert repaired == 2
    assert manager.export()["services"]["api"]["budget_steps"] == ["shed", "freeze"]
    await monitor.stop()
    await manager.stop()


@virtual_time
async def test_a_policy_that_cannot_be_read_is_told_once_and_repairs_go_on():
    clock = LoopClock()
    events = EventBus(clock)
    monitor = HealthMonitor(clock=clock, events=events)
    repair = AutoRepair(monitor, clock=clock, events=events)
    manager = RecoveryManager(monitor, repair, clock=clock, events=events, steps=lambda name: 1 / 0)
    repaired = 0

    async def check():
        return repaired > 0

    async def fix(context):
        nonlocal repaired
        repaired += 1

    monitor.register_service("api", check, options=ServiceOptions(interval_s=1, fall=1))
    repair.register_service("api", [fix], options=RepairOptions(healthy_delay_s=0))
    await manager.start()
    await monitor.start()
    await clock.sleep(20)
    await monitor.stop()
    await manager.stop()
    assert repaired == 1
    faults = [event.detail for event in events.recent() if event.kind == "component_failed"]
    assert faults == ["the error budget policy of api cannot be read: ZeroDivisionError: division by zero"]
