"""The audit trail: one record an event, in order, none lost while the store fails for a while."""

import math

import pytest

from backend.shared.self_healing import audit
from backend.shared.self_healing.audit import AuditTrail
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import SystemClock
from modules.contracts.errors import StateError
from modules.contracts.events import (
    AlertFired,
    BudgetChanged,
    ConfigurationApplied,
    EventBus,
    HealthChanged,
    IncidentOpened,
    ProcessExited,
    RepairControl,
    RepairSkipped,
)


class Store:
    """Keeps audit records; fails while ``full``."""

    def __init__(self):
        self.records = []
        self.full = False
        self.tries = 0

    def append_audit(self, record):
        self.tries += 1
        if self.full:
            raise StateError("the disk is full")
        self.records.append(record)
        return len(self.records)


def control(n):
    return RepairControl(action=f"pause {n}")


def test_every_decision_and_act_becomes_a_record_that_can_be_found_again(tmp_path):
    store, events = SqliteStore(tmp_path / "state.db", clock=SystemClock()), EventBus()
    trail = AuditTrail(events, store)
    published = [
        events.publish(event)
        for event in (
            HealthChanged(service="api", previous="healthy", current="unhealthy", affected_by=("db",)),
            IncidentOpened(service="api", incident="api-1", reason="down"),
            RepairSkipped(service="api", rule="affected", reason="db is down", incident="api-1"),
            RepairControl(action="pause"),
            ProcessExited(service="api", pid=7, exit_code=-9, expected=False),
            AlertFired(alert="a", severity="page", summary="s"),
            ConfigurationApplied(digest="d", summary="s"),
            BudgetChanged(service="api", previous="met", current="violated", error_budget_remaining=-3.0),
        )
    ]
    records = store.audit(after=0)
    assert [(e.kind, e.at, e.message, e.service) for e in published] == [
        (r.kind, r.at, r.message, r.service) for r in records
    ]
    assert [r.kind for r in store.audit(incident="api-1", after=0)] == ["incident_opened", "repair_skipped"]
    assert records[0].data["affected_by"] == ["db"]
    assert records[4].data["exit_code"] == -9
    trail.close()
    store.close()


def test_a_record_is_written_before_publish_returns():
    store, events = Store(), EventBus()
    AuditTrail(events, store)
    events.publish(control(1))
    assert len(store.records) == 1


def test_a_store_that_fails_is_told_once_and_nothing_is_lost_when_it_comes_back():
    store, events = Store(), EventBus()
    AuditTrail(events, store)
    events.publish(control(0))
    store.full = True
    for n in range(1, 4):
        events.publish(control(n))
    assert [e.detail for e in events.recent() if e.kind == "component_failed"] == [
        "records are kept in memory until the state file takes them again: the disk is full"
    ]
    store.full = False
    events.publish(control(4))
    assert [f"pause {n}" for n in range(5)] == [r.data["action"] for r in store.records if r.kind == "repair_control"]
    assert sum(r.kind == "component_failed" for r in store.records) == 1
    store.full = True
    events.publish(control(5))
    assert sum(e.kind == "component_failed" for e in events.recent()) == 2


def test_what_does_not_fit_into_memory_is_counted_and_told(monkeypatch):
    monkeypatch.setattr(audit, "KEPT", 3)
    store, events = Store(), EventBus()
    AuditTrail(events, store)
    store.full = True
    for n in range(5):
        events.publish(control(n))
    store.full = False
    events.publish(control(5))
    actions = [r.data.get("action") for r in store.records]
    assert [a for a in actions if a] == ["pause 3", "pause 4", "pause 5"]
    assert "4 records are lost" in events.recent()[-1].detail
    assert store.records[-1].kind == "component_failed"


def test_a_number_that_json_cannot_hold_does_not_stop_the_trail(tmp_path):
    store, events = SqliteStore(tmp_path / "state.db", clock=SystemClock()), EventBus()
    AuditTrail(events, store)
    events.publish(BudgetChanged(service="api", previous="met", current="met", error_budget_remaining=-math.inf))
    assert store.audit()[0].data["error_budget_remaining"] is None
    assert [e.kind for e in events.recent()] == ["budget_changed"]
    store.close()


def test_close_writes_what_waits_and_listens_no_more():
    store, events = Store(), EventBus()
    trail = AuditTrail(events, store)
    store.full = True
    events.publish(control(0))
    store.full = False
    trail.close()
    trail.close()
    events.publish(control(1))
    assert [r.data.get("action") for r in store.records] == ["pause 0", None]


def test_records_that_are_lost_at_the_end_are_logged(caplog):
    store, events = Store(), EventBus()
    trail = AuditTrail(events, store)
    store.full = True
    events.publish(control(0))
    trail.close()
    assert "2 records of the audit trail are lost: the disk is full" in caplog.text


@pytest.mark.parametrize("count", [1000])
def test_a_trail_tries_the_store_once_for_each_event_while_it_fails(count):
    store, events = Store(), EventBus()
    AuditTrail(events, store)
    store.full = True
    for n in range(count):
        events.publish(control(n))
    assert store.tries <= count + 1
