"""The file itself: locked, damaged, foreign, unwritable, full, and killed in the middle of the work."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.state import schema
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.errors import StateError
from modules.contracts.state import AuditRecord

ROOT = Path(__file__).parents[3]


def record(number=0):
    return AuditRecord(at=0.0, kind="test", message=f"record {number}", data={"number": number})


@contextlib.contextmanager
def as_ordinary_user():
    """Run the body without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, but only its owner may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
        yield folder
        folder.chmod(0o755)


def test_a_missing_folder_is_made(open_store, tmp_path):
    store = open_store(tmp_path / "a" / "b" / "state.db")
    store.put("n", "k", {"v": 1})
    assert store.get("n", "k") == {"v": 1}


def test_a_folder_in_place_of_the_file_is_named(open_store, tmp_path):
    with pytest.raises(StateError, match=rf"{tmp_path} is a folder; name a file, such as {tmp_path}/selfright.db"):
        open_store(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(open_store, tmp_path):
    (tmp_path / "var").write_text("")
    with pytest.raises(StateError, match=r"state file .*/var/selfright.db: its folder cannot be made"):
        open_store()


def test_an_unwritable_folder_is_told_with_what_to_do(open_store, open_folder):
    with as_ordinary_user(), pytest.raises(StateError, match=rf"make {open_folder} writable for uid \d+, or choose"):
        open_store(open_folder / "state.db")


def test_an_unreachable_folder_is_told_with_what_to_do(open_store, open_folder):
    open_folder.chmod(0)
    with as_ordinary_user(), pytest.raises(StateError, match=r"Permission denied.*or choose another state.path"):
        open_store(open_folder / "state.db")


def test_a_read_only_file_is_told_at_once_and_not_at_the_first_record(open_store, open_folder):
    path = open_folder / "state.db"
    open_folder.chmod(0o777)
    open_store(path).close()
    path.chmod(0o444)
    (open_folder / "state.db.lock").chmod(0o666)
    with as_ordinary_user(), pytest.raises(StateError, match=rf"{path} cannot be opened .*cannot be written by uid"):
        open_store(path)


def test_a_failed_opening_leaves_the_file_free_for_the_next_one(open_store, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StateError):
        open_store()
    path.unlink()
    assert open_store().audit() == []


def test_a_database_of_another_program_is_refused_and_not_touched(open_store, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    with pytest.raises(
        StateError, match=r"database of another program \(tables: bookmarks\).*choose another state.path"
    ):
        open_store()
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused_and_not_touched(open_store, path):
    store = open_store()
    store._db.execute("UPDATE schema_version SET version = 99")
    store.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"has schema version 99, and this program knows 1 at most.*newer program"):
        open_store()
    assert path.read_bytes() == before


def test_an_older_file_is_migrated_and_keeps_its_records(open_store, path, monkeypatch):
    old = open_store()
    old.append_audit(record(7))
    old.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("ALTER TABLE audit ADD COLUMN who TEXT",)))
    new = open_store()
    assert [r.data for r in new.audit()] == [{"number": 7}]
    assert new._db.execute("SELECT version, who FROM schema_version, audit").fetchall() == [(2, None)]


def test_a_migration_that_fails_half_way_leaves_the_old_version(open_store, path, monkeypatch):
    open_store().close()
    broken = ("ALTER TABLE audit ADD COLUMN who TEXT", "ALTER TABLE nothing ADD COLUMN who TEXT")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(StateError, match='near "nothing": syntax error'):
            open_store()
    store = open_store()
    assert "who" not in {row[1] for row in store._db.execute("PRAGMA table_info(audit)")}
    assert store.notes == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: b"no database at all " * 300, "not a database"),
        (lambda data: data[: len(data) // 2], "malformed|page|disk image"),
        (lambda data: data[:4096] + b"\xa5" * 8192 + data[12288:], "malformed|tree|disk image"),
        (lambda data: data[:40], "malformed|not a database"),
        (lambda data: data[:16384] + b"\xa5" * 4096 + data[20480:], "malformed|tree|page"),
    ],
    ids=["other bytes", "cut in half", "overwritten pages", "only a piece of the header", "one page of an index"],
)
def test_a_damaged_file_is_set_aside_whole_and_a_fresh_one_begun(open_store, path, damage, told):
    store = open_store()
    for number in range(200):
        store.append_audit(record(number))
    store.close()
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    fresh = open_store()
    assert fresh.audit() == []
    (note,) = fresh.notes
    aside = path.with_name("selfright.db.corrupt-20261118T110000Z")
    assert aside.read_bytes() == broken
    assert str(aside) in note
    assert re.search(told, note, re.IGNORECASE)


def test_a_second_damaged_file_of_the_same_second_does_not_overwrite_the_first(open_store, path):
    path.parent.mkdir()
    for content in (b"first " * 100, b"second " * 100):
        path.write_bytes(content)
        open_store().close()
    kept = sorted(file.read_bytes()[:6] for file in path.parent.glob("*.corrupt-*"))
    assert kept == [b"first ", b"second"]


def test_the_write_ahead_log_is_set_aside_with_its_damaged_file(open_store, path):
    path.parent.mkdir()
    path.write_bytes(b"no database " * 100)
    path.with_name("selfright.db-wal").write_bytes(b"newest records")
    open_store().close()
    (wal,) = path.parent.glob("*.corrupt-*-wal")
    assert wal.read_bytes() == b"newest records"


def test_a_log_whose_database_is_gone_is_kept_too(open_store, path):
    path.parent.mkdir()
    path.with_name("selfright.db-wal").write_bytes(b"newest records")
    store = open_store()
    assert len(store.notes) == 1
    assert [file.read_bytes() for file in path.parent.glob("*.corrupt-*-wal")] == [b"newest records"]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 80_000), at=st.integers(0, 80_000), junk=st.binary(min_size=1, max_size=64))
def test_whatever_is_wrong_with_the_bytes_the_store_opens_or_says_why_and_keeps_them(tmp_path_factory, cut, at, junk):
    class Clock:
        def time(self):
            return 1_795_000_000.0

    path = tmp_path_factory.mktemp("state") / "s.db"
    store = SqliteStore(path, clock=Clock())
    for number in range(50):
        store.append_audit(record(number))
    store.close()
    data = bytearray(path.read_bytes()[:cut])
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    try:
        store = SqliteStore(path, clock=Clock())
    except StateError:
        assert path.read_bytes() == data
        return
    try:
        store.append_audit(record())
        if store.notes:
            (aside,) = path.parent.glob("*.corrupt-20*Z")
            assert aside.read_bytes() == data
    except StateError as error:
        assert "damaged" in str(error)  # noqa: PT017  either outcome is allowed
    finally:
        store.close()


def fill(store):
    """Add documents until the file may not grow any more; return the last one that was kept."""
    kept = 0
    while True:
        try:
            store.put("fill", str(kept + 1), {"text": "x" * 3000})
        except StateError as error:
            return kept, str(error)
        kept += 1


def test_a_full_disk_is_told_applies_nothing_by_half_and_the_store_works_again_afterwards(store, clock):
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 20}")
    kept, told = fill(store)
    assert "the disk is full" in told
    assert "free some space" in told
    many = {f"objective {n}": {clock.now + 60 * slot: (1, 1) for slot in range(100)} for n in range(50)}
    with pytest.raises(StateError, match="the disk is full"):
        store.add_samples(many)
    assert not any(store.samples(name, since=0) for name in many)
    assert len(store.documents("fill")) == kept
    store._db.execute("PRAGMA max_page_count = 100000")
    store.add_samples(many)
    assert all(len(store.samples(name, since=0)) == 100 for name in many)


def test_a_second_program_on_the_same_file_is_refused_with_the_pid_of_the_first(store, open_store, path, tmp_path):
    link = tmp_path / "by-another-name.db"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(StateError, match=rf"{path} is in use by process {os.getpid()}; stop that one"):
            open_store(name)
    store.close()
    assert open_store().audit() == []


WRITER = """
import sys
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import SystemClock
from modules.contracts.state import AuditRecord
store = SqliteStore(sys.argv[1], clock=SystemClock())
number = 0
while True:
    new = store.append_audit(AuditRecord(at=0.0, kind="test", message="", data={"number": number}))
    store.put("last", "one", {"number": number})
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


def test_after_kill_9_no_record_is_missing_and_the_lock_is_free(open_store, path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    with writer:
        try:
            told = [int(writer.stdout.readline()) for _ in range(200)]
            with pytest.raises(StateError, match=f"in use by process {writer.pid}"):
                open_store()
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().splitlines() if line]
        finally:
            writer.kill()
    store = open_store()
    assert store.notes == []
    numbers = [r.data["number"] for r in store.audit(after=0, limit=1_000_000)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= len(told)
    assert store.get("last", "one")["number"] >= told[-1]


def test_closing_leaves_one_tidy_file_and_later_calls_say_that_it_is_closed(store, path):
    store.append_audit(record())
    store.close()
    store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["selfright.db", "selfright.db.lock"]
    with pytest.raises(StateError, match=r"selfright.db is closed"):
        store.append_audit(record())
    with pytest.raises(StateError, match=r"selfright.db is closed"):
        store.audit()
