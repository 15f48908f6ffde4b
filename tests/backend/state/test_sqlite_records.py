"""Audit records, documents and samples: what is written is what is read, also after a restart."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.shared.state import sqlite
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.errors import StateError
from modules.contracts.state import AuditRecord

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def record(kind="repair_started", **fields):
    return AuditRecord(at=1.5, kind=kind, message="did it", **fields)


def test_an_audit_record_comes_back_as_it_was_written_with_its_id(store):
    written = record(service="api", incident="api-1", data={"rung": 0, "facts": {"why": [None, True]}})
    new = store.append_audit(written)
    assert store.audit() == [AuditRecord(**{**asdict(written), "id": new})]


def asdict(written):
    return {name: getattr(written, name) for name in ("at", "kind", "message", "service", "incident", "data")}


def test_audit_ids_grow_across_restarts_even_when_the_newest_record_is_gone(open_store):
    first = open_store()
    last = [first.append_audit(record()) for _ in range(3)][-1]
    first._db.execute("DELETE FROM audit")
    first.close()
    assert open_store().append_audit(record()) == last + 1


def test_the_audit_trail_is_read_newest_first_and_onwards_from_an_id_oldest_first(store):
    ids = [store.append_audit(record()) for _ in range(5)]
    assert [r.id for r in store.audit(limit=2)] == [ids[4], ids[3]]
    assert [r.id for r in store.audit(before=ids[2])] == [ids[1], ids[0]]
    assert [r.id for r in store.audit(after=ids[2])] == [ids[3], ids[4]]
    assert store.audit(limit=0) == []


def test_the_audit_trail_is_narrowed_by_service_incident_and_kind_together(store):
    wanted = store.append_audit(record("repair_ended", service="api", incident="api-1"))
    store.append_audit(record("repair_started", service="api", incident="api-1"))
    store.append_audit(record("repair_ended", service="db", incident="api-1"))
    store.append_audit(record("repair_ended", service="api", incident="api-2"))
    assert [r.id for r in store.audit(service="api", incident="api-1", kind="repair_ended")] == [wanted]


def test_only_the_newest_audit_records_are_kept(store, monkeypatch):
    monkeypatch.setattr(sqlite, "AUDIT_KEPT", 10)
    ids = [store.append_audit(record()) for _ in range(25)]
    assert [r.id for r in store.audit(limit=100)] == ids[:-11:-1]


def test_output_that_is_no_utf8_is_kept_readable(store):
    store.append_audit(record(service="\udcff", data={"tail": "\udcff"}))
    assert store.audit(service="\udcff")[0].service == "\\udcff"


def test_a_document_replaces_the_one_before_and_namespaces_do_not_mix(store):
    store.put("alerts", "api", {"n": 1})
    store.put("alerts", "api", {"n": 2})
    store.put("repair", "api", {"n": 3})
    assert store.get("alerts", "api") == {"n": 2}
    assert store.documents("alerts") == {"api": {"n": 2}}
    assert store.get("alerts", "db") is None


def test_a_deleted_document_is_gone_and_deleting_nothing_is_no_error(store):
    store.put("alerts", "api", {})
    store.delete("alerts", "api")
    store.delete("alerts", "api")
    assert store.documents("alerts") == {}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_json_document_comes_back_the_same(store, document):
    store.put("any", "one", document)
    assert store.get("any", "one") == json.loads(json.dumps(document))


@pytest.mark.parametrize("value", [object(), math.nan, {1, 2}])
def test_what_is_no_json_is_refused_by_name_and_changes_nothing(store, value):
    store.put("alerts", "api", {"n": 1})
    with pytest.raises(StateError, match=r"document 'api' of 'alerts' is not made of JSON types"):
        store.put("alerts", "api", {"n": value})
    assert store.get("alerts", "api") == {"n": 1}


def test_samples_of_one_slot_add_up_and_are_read_from_a_time_on(store, clock):
    now = clock.now
    store.add_samples({"api": {now - 60: (1, 2), now: (3, 3)}, "db": {now: (9, 9)}})
    store.add_samples({"api": {now: (0, 1)}})
    assert store.samples("api", since=0) == {now - 60: (1, 2), now: (3, 4)}
    assert store.samples("api", since=now) == {now: (3, 4)}
    assert store.samples("web", since=0) == {}


def test_slots_become_hours_after_six_hours_and_younger_ones_stay(store, clock):
    hour = clock.now
    store.add_samples({"api": {hour + 60 * n: (1, 2) for n in range(120)}})
    clock.now = hour + 7 * 3600
    store.add_samples({})
    kept = store.samples("api", since=0)
    assert kept[hour] == (60, 120)
    assert [start for start in kept if start < hour + 3600] == [hour]
    assert len([start for start in kept if start >= hour + 3600]) == 60


def test_slots_are_merged_a_bite_at_a_time_until_none_is_old(store, clock, monkeypatch):
    monkeypatch.setattr(sqlite, "MERGE_AT_ONCE", 50)
    hour = clock.now
    store.add_samples({"api": {hour + 60 * n: (1, 2) for n in range(60)}, "db": {hour: (3, 3)}})
    clock.now = hour + 7 * 3600
    store.add_samples({})
    assert 1 < len(store.samples("api", since=0)) < 60
    store.add_samples({})
    assert store.samples("api", since=0) == {hour: (60, 120)}
    assert store.samples("db", since=0) == {hour: (3, 3)}


def test_a_sample_that_comes_after_its_hour_was_merged_is_added_to_it(store, clock):
    hour = clock.now
    store.add_samples({"api": {hour: (1, 1)}})
    clock.now = hour + 8 * 3600
    store.add_samples({"api": {hour + 120: (0, 1)}})
    assert store.samples("api", since=0) == {hour: (1, 2)}
    store.add_samples({"api": {hour: (5, 5)}})
    assert store.samples("api", since=0) == {hour: (6, 7)}


def test_hours_are_dropped_after_four_hundred_days(store, clock):
    first = clock.now
    store.add_samples({"api": {first: (1, 1)}})
    clock.now = first + 400 * 86_400
    store.add_samples({"api": {clock.now: (2, 2)}})
    assert store.samples("api", since=0) == {first: (1, 1), clock.now: (2, 2)}
    clock.now += 3600
    store.add_samples({})
    assert store.samples("api", since=0) == {first + 400 * 86_400: (2, 2)}


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.integers(0, 40), st.dictionaries(st.integers(0, 2400), st.integers(0, 5), max_size=6)), max_size=8
    )
)
def test_merging_never_loses_or_invents_an_event(tmp_path_factory, batches):
    class Clock:
        now = 1_795_000_000.0

        def time(self):
            return self.now

    clock = Clock()
    begin = clock.now
    store = SqliteStore(tmp_path_factory.mktemp("samples") / "s.db", clock=clock)
    for hours, slots in batches:
        store.add_samples({"api": {begin + 60.0 * minute: (good, good + 1) for minute, good in slots.items()}})
        clock.now = begin + 3600 * hours  # the clock may jump back as well
    kept = store.samples("api", since=0).values()
    store.close()
    assert sum(good for good, _ in kept) == sum(sum(slots.values()) for _, slots in batches)
    assert sum(total for _, total in kept) == sum(good + 1 for _, slots in batches for good in slots.values())


@pytest.mark.parametrize("slot", [{0.0: (2, 1)}, {0.0: (-1, 1)}, {math.nan: (1, 1)}])
def test_samples_that_cannot_be_are_refused_and_their_whole_batch_with_them(store, slot):
    with pytest.raises(StateError, match="0 <= good <= total"):
        store.add_samples({"db": {60.0: (1, 1)}, "api": slot})
    assert store.samples("db", since=0) == {}


def test_threads_may_share_a_store(store):
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda _: store.append_audit(record()), range(200)))
    assert sorted(ids) == list(range(1, 201))
    assert len(store.audit(limit=1000)) == 200


def test_everything_is_there_after_a_restart(open_store, clock):
    before = open_store()
    new = before.append_audit(record(service="api"))
    before.put("repair", "api", {"rung": 1})
    before.add_samples({"api": {clock.now: (1, 2)}})
    before.close()
    after = open_store()
    assert [r.id for r in after.audit()] == [new]
    assert after.get("repair", "api") == {"rung": 1}
    assert after.samples("api", since=0) == {clock.now: (1, 2)}
    assert after.notes == []
