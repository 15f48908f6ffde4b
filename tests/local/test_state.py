from __future__ import annotations

import pytest

from modules.contracts.clock import SystemClock
from modules.contracts.errors import StateError
from modules.contracts.events import EventBus, IncidentOpened, RepairSkipped
from modules.contracts.state import AuditRecord
from modules.local import state
from modules.local.state import LocalAuditTrail, MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def record(**said: object) -> AuditRecord:
    return AuditRecord(**{"at": 1.0, "kind": "note", "message": "", **said})


def test_audit_records_come_newest_first_and_oldest_first_after_an_id(store):
    for number in range(1, 6):
        assert store.append_audit(record(message=str(number))) == number
    assert [found.id for found in store.audit()] == [5, 4, 3, 2, 1]
    assert [found.id for found in store.audit(limit=2)] == [5, 4]
    assert [found.id for found in store.audit(before=3)] == [2, 1]
    assert [found.id for found in store.audit(after=2, limit=2)] == [3, 4]


def test_audit_records_are_found_by_service_incident_and_kind(store):
    store.append_audit(record(service="api", incident="api-1", kind="repair"))
    store.append_audit(record(service="api", kind="note"))
    store.append_audit(record(service="db", kind="repair"))
    assert [found.id for found in store.audit(service="api")] == [2, 1]
    assert [found.id for found in store.audit(kind="repair")] == [3, 1]
    assert [found.id for found in store.audit(incident="api-1", service="api", kind="repair")] == [1]


def test_the_audit_forgets_its_oldest_records_and_goes_on_numbering(store, monkeypatch):
    monkeypatch.setattr(state, "AUDIT_KEPT", 3)
    small = MemoryStore()
    for _ in range(10):
        small.append_audit(record())
    assert [found.id for found in small.audit()] == [10, 9, 8]


def test_what_is_changed_after_it_was_put_or_got_does_not_reach_the_store(store):
    document = {"rungs": [1]}
    store.put("repair", "api", document)
    document["rungs"].append(2)
    store.get("repair", "api")["rungs"].append(3)
    store.documents("repair")["api"]["rungs"].append(4)
    assert store.get("repair", "api") == {"rungs": [1]}


def test_documents_are_kept_by_namespace_and_deleted(store):
    store.put("repair", "api", {"rung": 1})
    store.put("alerts", "api", {"fired": True})
    assert store.documents("repair") == {"api": {"rung": 1}}
    store.delete("repair", "api")
    store.delete("repair", "api")
    assert store.get("repair", "api") is None
    assert store.get("alerts", "api") == {"fired": True}


def test_what_is_no_json_is_refused_and_changes_nothing(store):
    store.put("repair", "api", {"rung": 1})
    for wrong in ({"rung": object()}, {"rung": float("nan")}):
        with pytest.raises(StateError, match="'api' of 'repair'"):
            store.put("repair", "api", wrong)
    assert store.get("repair", "api") == {"rung": 1}


def test_samples_of_one_slot_add_up_and_old_slots_go_first(store, monkeypatch):
    monkeypatch.setattr(state, "SLOTS_KEPT", 2)
    store.add_samples({"api": {60.0: (1, 2)}, "db": {60.0: (5, 5)}})
    store.add_samples({"api": {60.0: (3, 3), 120.0: (1, 1)}})
    assert store.samples("api", since=0) == {60.0: (4, 5), 120.0: (1, 1)}
    store.add_samples({"api": {180.0: (1, 1)}})
    assert store.samples("api", since=0) == {120.0: (1, 1), 180.0: (1, 1)}
    assert store.samples("api", since=150) == {180.0: (1, 1)}
    assert store.samples("nobody", since=0) == {}


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.audit()


def test_the_audit_trail_records_every_event_until_it_is_closed(store):
    events = EventBus(SystemClock())
    trail = LocalAuditTrail(events, store)
    events.publish(IncidentOpened(service="api", incident="api-1", reason="it failed"))
    events.publish(RepairSkipped(service="api", rule="affected", reason="db failed"))
    trail.close()
    trail.close()
    events.publish(RepairSkipped(service="api", rule="paused", reason="nobody listens"))
    skipped, opened = store.audit()
    assert (opened.kind, opened.incident, opened.data["reason"]) == ("incident_opened", "api-1", "it failed")
    assert (skipped.service, skipped.data["rule"], skipped.at) == ("api", "affected", skipped.data["at"])
