"""The rules of recovery: which one decides, what it says, and what the manager adds to repairs."""

import json
from datetime import UTC, datetime

import pytest

from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.recovery import RecoveryManager
from backend.shared.self_healing.repair import AutoRepair
from backend.shared.self_healing.settings import MaintenanceSettings, RecoverySettings
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.events import EventBus
from modules.contracts.health import (
    HealthCheckResult,
    HealthStatus,
    ProbeOutcome,
    RepairOptions,
    ServiceHealth,
    ServiceOptions,
)
from modules.contracts.recovery import RULES
from modules.contracts.slo import summarize
from runtime.simulation.loop import virtual_time

NOW = 1_700_000_000.0
WINDOW = MaintenanceSettings(
    start=datetime.fromtimestamp(NOW - 10, UTC), end=datetime.fromtimestamp(NOW + 60, UTC), services=("api",)
)


class Frozen:
    def time(self):
        return NOW

    def monotonic(self):
        return 0.0


def report(left):
    """An SLO report with ``left`` percent of its budget: of 10,000 allowed bad events so many happened."""
    return summarize("api", 99.0, 3600.0, (1_000_000 - round(100 * (100 - left)), 1_000_000))


def health(status, **fields):
    last = HealthCheckResult("api", False, ProbeOutcome.FAIL, status, 3.0, "answered 500", NOW)
    known = {
        "since": NOW, "ready": False, "last": last, "depends_on": (), "affected_by": (), "flapping": False,
        "paused": False, "consecutive_passes": 0, "consecutive_failures": 3,
    }  # fmt: skip
    return ServiceHealth(name="api", status=status, **(known | fields))


def manager(left=None, settings=None, maintenance=(), events=None):
    clock = Frozen()
    events = events or EventBus(clock)
    monitor = HealthMonitor(clock=clock, events=events)
    repair = AutoRepair(monitor, clock=clock, events=events)
    return RecoveryManager(
        monitor,
        repair,
        clock=clock,
        events=events,
        settings=settings,
        maintenance=maintenance,
        budget=lambda name: None if left is None else report(left),
    )


UNHEALTHY, DEGRADED = HealthStatus.UNHEALTHY, HealthStatus.DEGRADED


@pytest.mark.parametrize(
    ("seen", "repair", "rule", "words"),
    [
        (health(UNHEALTHY), True, "unhealthy", "answered 500"),
        (health(HealthStatus.HEALTHY), False, "healthy", ""),
        (health(HealthStatus.STARTING), False, "starting", "starts"),
        (health(HealthStatus.UNKNOWN), False, "unknown", "answered 500"),
        (health(UNHEALTHY, affected_by=("db", "queue")), False, "affected", "db, queue"),
        (health(UNHEALTHY, paused=True), False, "paused", "resume"),
        (health(DEGRADED, flapping=True), False, "flapping", "settles"),
        (health(UNHEALTHY, flapping=True), False, "flapping", "settles"),
    ],
)
def test_each_rule_has_its_word_and_its_reason(seen, repair, rule, words):
    decision = manager().decide(seen)
    assert (decision.repair, decision.rule) == (repair, rule)
    assert words in decision.reason


def test_the_first_rule_that_has_a_say_decides():
    seen = health(UNHEALTHY, paused=True, affected_by=("db",), flapping=True)
    assert manager(maintenance=(WINDOW,)).decide(seen).rule == "maintenance"
    assert manager().decide(seen).rule == "affected"
    assert manager().decide(health(UNHEALTHY, paused=True, flapping=True)).rule == "paused"
    assert manager().decide(health(HealthStatus.STARTING, affected_by=("db",))).rule == "starting"
    names = [rule.__name__ for rule in RULES]
    assert names == ["maintenance", "starting", "affected", "paused", "flapping", "unknown", "degraded", "unhealthy"]


def test_maintenance_names_its_end_and_holds_only_within_its_window():
    decision = manager(maintenance=(WINDOW,)).decide(health(UNHEALTHY))
    assert WINDOW.end.isoformat() in decision.reason
    over = MaintenanceSettings(start=WINDOW.start, end=datetime.fromtimestamp(NOW, UTC))
    other = MaintenanceSettings(start=WINDOW.start, end=WINDOW.end, services=("web",))
    assert manager(maintenance=(over, other)).decide(health(UNHEALTHY)).repair


@pytest.mark.parametrize(
    ("threshold", "left", "repair"),
    [
        (0, None, False), (0, 100, False), (0, -20, False), (50, None, False), (50, 60, False), (50, 50, False),
        (50, 49, True), (50, -20, True), (100, 100, False), (100, 99, True),
    ],
)  # fmt: skip
def test_a_degraded_service_is_repaired_only_when_too_little_of_its_budget_is_left(threshold, left, repair):
    settings = RecoverySettings(repair_degraded_below=threshold)
    decision = manager(left, settings).decide(health(DEGRADED))
    assert (decision.repair, decision.rule) == (repair, "degraded")


def test_readiness_alone_asks_for_no_repair():
    assert not manager(-100).decide(health(DEGRADED)).repair


@pytest.mark.parametrize(("left", "hurried"), [(None, False), (50, False), (10, False), (9, True), (-5, True)])
def test_with_little_budget_left_a_back_off_may_be_skipped_where_that_was_asked_for(left, hurried):
    assert manager(left, RecoverySettings(skip_backoff_below=10)).decide(health(UNHEALTHY)).skip_backoff is hurried
    assert not manager(left).decide(health(UNHEALTHY)).skip_backoff


def test_a_budget_that_cannot_be_read_is_told_once_and_repairs_go_on():
    events = EventBus(Frozen())
    recovery = manager(events=events)
    recovery._budget = lambda name: 1 / 0
    for _ in range(3):
        assert recovery.decide(health(UNHEALTHY)).repair
    assert [e.kind for e in events.recent()] == ["component_failed"]
    assert "ZeroDivisionError" in events.recent()[0].detail


@virtual_time
async def test_the_manager_starts_the_repairs_steers_them_and_tells_how_they_stand():
    clock = LoopClock(NOW)
    events = EventBus(clock)
    monitor = HealthMonitor(clock=clock, events=events)
    repair = AutoRepair(monitor, clock=clock, events=events)
    ends = datetime.fromtimestamp(NOW + 100, UTC)
    recovery = RecoveryManager(
        monitor,
        repair,
        clock=clock,
        events=events,
        maintenance=(MaintenanceSettings(start=WINDOW.start, end=ends),),
        budget=lambda name: report(40),
    )
    healthy = False

    async def check():
        return healthy

    async def fix(context):
        nonlocal healthy
        healthy = True

    monitor.register_service("api", check, options=ServiceOptions(interval_s=5))
    repair.register_service("api", [fix], options=RepairOptions(healthy_delay_s=2))
    await recovery.start()
    await monitor.start()
    assert recovery.status.state is ComponentState.RUNNING
    await clock.sleep(90)
    kinds = [e.kind for e in events.recent() if e.kind.startswith(("repair", "incident"))]
    assert kinds == ["repair_skipped"]
    await clock.sleep(11.5)
    exported = json.loads(json.dumps(recovery.export()))
    assert exported["services"]["api"]["error_budget_remaining"] == pytest.approx(40)
    assert [incident["service"] for incident in exported["open_incidents"]] == ["api"]
    assert exported["open_incidents"][0]["incident"] == recovery.get_status("api").incident
    assert "1 open incidents" in recovery.status.detail
    await clock.sleep(15)
    assert recovery.export()["open_incidents"] == []
    assert recovery.export()["services"]["api"]["status"] == "healthy"
    report_of_order = await recovery.recover("api", "to be sure")
    assert report_of_order.repaired
    await monitor.stop()
    await recovery.stop()
    await recovery.stop()
    assert recovery.status.state is ComponentState.STOPPED
