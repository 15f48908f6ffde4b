import pytest

from modules.contracts.errors import StateError
from modules.contracts.state import AuditRecord


def record(message):
    return AuditRecord(at=1.0, kind="health_changed", message=message)


def test_a_state_file_in_its_place_is_left_alone(open_store):
    assert open_store().check() is None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_state_file_that_is_removed_or_replaced_is_written_again_with_all_it_held(open_store, path, replaced):
    store = open_store()
    store.append_audit(record("before"))
    for file in path.parent.glob("selfright.db*"):
        file.unlink()
    if replaced:
        path.write_text("something else")
    assert "nothing is lost" in store.check()
    store.append_audit(record("after"))
    store.close()
    again = open_store()
    assert [r.message for r in again.audit()] == ["after", "before"]


def test_a_lock_that_is_removed_is_taken_again_before_another_program_can(open_store, path):
    store = open_store()
    path.with_name("selfright.db.lock").unlink()
    assert "taken again" in store.check()
    with pytest.raises(StateError, match="in use by process"):
        open_store()


def test_a_state_file_that_cannot_be_written_again_is_told_and_the_store_still_reads(open_store, path):
    store = open_store()
    store.append_audit(record("before"))
    for file in path.parent.glob("selfright.db"):
        file.unlink()
    path.mkdir()
    with pytest.raises(StateError, match="cannot be written again"):
        store.check()
    path.rmdir()
    assert "nothing is lost" in store.check()
    assert [r.message for r in store.audit()] == ["before"]
