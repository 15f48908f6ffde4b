"""State in one SQLite file: the audit trail, documents by namespace, and SLO samples.

Write-ahead log with ``synchronous=NORMAL``: what a call wrote is with the operating system when the call
returns, so it outlives ``kill -9`` of the program; a power cut may cost the newest transactions, never the
file (https://www.sqlite.org/wal.html). The audit trail keeps its newest records; samples become hours after
a while and go after more than a year, so that the file stops growing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from backend.shared.state import schema
from backend.shared.state.files import FileLock, is_file, set_aside
from modules.contracts.clock import Clock
from modules.contracts.errors import StateError
from modules.contracts.state import AuditRecord, Document

AUDIT_KEPT = 100_000
"""Newest audit records that are kept."""
HOUR_S = 3600
MERGE_AFTER_S = 6 * HOUR_S
"""Slots that begin longer ago are merged into hours."""
MERGE_AT_ONCE = 1000
"""At most so many slots are merged in one call."""
DROP_AFTER_S = 400 * 86_400
"""Hours that begin longer ago are forgotten: over a year, as windows may be that long."""

_BUSY_TIMEOUT_MS = 5000
_WAL_KEPT_BYTES = 4 * 1024 * 1024

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full or a quota is spent; nothing of this call was kept; free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written by uid {uid}; make it writable, or choose another state.path",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable for uid {uid}, or choose another state.path",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for uid {uid}, or choose another state.path",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; start again: it is then set aside and a fresh one begun",
    sqlite3.SQLITE_NOTADB: "the file is damaged; start again: it is then set aside and a fresh one begun",
    sqlite3.SQLITE_BUSY: "another program holds it open; close that one",
    sqlite3.SQLITE_CONSTRAINT: "the values are not allowed: 0 <= good <= total, and no time that is not a number",
}


class SqliteStore:
    """A ``StateStore`` in the file ``path``; its folder is made when missing. May be used from any thread.

    ``notes`` holds what a person should know about this opening, such as a damaged file that was set aside.
    Raises StateError when the file cannot be used; then nothing is left open.
    """

    def __init__(self, path: Path | str, *, clock: Clock) -> None:
        # SQLite follows links too; the lock must lie beside the same file by whatever name it is reached.
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self.notes: list[str] = []
        self._clock = clock
        self._mutex = threading.Lock()
        self._identity: os.stat_result | None = None
        self._make_folder()
        self._file_lock = FileLock(self.path)
        try:
            self._db: sqlite3.Connection | None = self._open()
        except BaseException:
            self._file_lock.release()
            raise

    # --- audit ---

    def append_audit(self, record: AuditRecord) -> int:
        row = (
            record.at,
            _text(record.kind),
            _text(record.message),
            _text(record.service),
            _text(record.incident),
            self._json(record.data, f"audit record {record.kind!r}"),
        )
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO audit (at, kind, message, service, incident, data) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            new = cursor.lastrowid or 0
            # Ids have no gaps, so this removes at most one record and needs no count.
            db.execute("DELETE FROM audit WHERE id <= ?", (new - AUDIT_KEPT,))
        return new

    def audit(
        self,
        *,
        service: str | None = None,
        incident: str | None = None,
        kind: str | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRecord]:
        wanted: dict[str, Any] = {
            "service = ?": _text(service),
            "incident = ?": _text(incident),
            "kind = ?": _text(kind),
            "id < ?": before,
            "id > ?": after,
        }
        conditions = {condition: value for condition, value in wanted.items() if value is not None}
        where = " AND ".join(conditions) or "1"
        order = "DESC" if after is None else "ASC"
        rows = self._rows(
            f"SELECT id, at, kind, message, service, incident, data FROM audit"  # noqa: S608  fixed words only
            f" WHERE {where} ORDER BY id {order} LIMIT ?",
            (*conditions.values(), max(0, limit)),
        )
        return [
            AuditRecord(
                id=row[0],
                at=row[1],
                kind=row[2],
                message=row[3],
                service=row[4],
                incident=row[5],
                data=json.loads(row[6]),
            )
            for row in rows
        ]

    # --- documents ---

    def put(self, namespace: str, key: str, document: Document) -> None:
        row = (_text(namespace), _text(key), self._json(document, f"document {key!r} of {namespace!r}"))
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO documents (namespace, key, document) VALUES (?, ?, ?)", row)

    def get(self, namespace: str, key: str) -> Document | None:
        rows = self._rows(
            "SELECT document FROM documents WHERE namespace = ? AND key = ?", (_text(namespace), _text(key))
        )
        return dict(json.loads(rows[0][0])) if rows else None

    def documents(self, namespace: str) -> Mapping[str, Document]:
        rows = self._rows("SELECT key, document FROM documents WHERE namespace = ? ORDER BY key", (_text(namespace),))
        return {key: json.loads(document) for key, document in rows}

    def delete(self, namespace: str, key: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM documents WHERE namespace = ? AND key = ?", (_text(namespace), _text(key)))

    # --- samples ---

    def add_samples(self, samples: Mapping[str, Mapping[float, tuple[int, int]]]) -> None:
        rows = [
            (_text(objective), start, good, total)
            for objective, slots in samples.items()
            for start, (good, total) in slots.items()
        ]
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?) ON CONFLICT (objective, start)"
                " DO UPDATE SET good = good + excluded.good, total = total + excluded.total",
                rows,
            )
            self._merge_old(db)

    def samples(self, objective: str, *, since: float) -> Mapping[float, tuple[int, int]]:
        name = _text(objective)
        # A slot that was added late may begin with an hour that is merged already, hence the sum.
        rows = self._rows(
            "SELECT start, sum(good), sum(total) FROM ("
            " SELECT start, good, total FROM samples WHERE objective = ? AND start >= ?"
            " UNION ALL SELECT start, good, total FROM sample_hours WHERE objective = ? AND start >= ?)"
            " GROUP BY start ORDER BY start",
            (name, since, name, since),
        )
        return {start: (good, total) for start, good, total in rows}

    def check(self) -> str | None:
        """Write something, after putting back a file that was removed or replaced under the program's feet.

        What was stored until now is still held by the open file without a name, and is copied from there. Returns
        a sentence when that was done. Raises StateError when nothing can be written.
        """
        mended = None
        with self._mutex:
            if not self._file_lock.in_place:
                held, self._file_lock = self._file_lock, FileLock(self.path)
                held.release()
                mended = f"the lock of state file {self.path} had been removed and was taken again"
            if self._identity is None or not is_file(self.path, self._identity):
                self._put_back(self._usable())
                mended = f"state file {self.path} had been removed or replaced and was written again, nothing is lost"
        with self._transaction() as db:
            db.execute("UPDATE schema_version SET version = version")
        return mended

    def _put_back(self, db: sqlite3.Connection) -> None:
        copy = self.path.with_name(f"{self.path.name}.new")
        try:
            with closing(sqlite3.connect(copy)) as fresh:
                db.backup(fresh)
            copy.replace(self.path)
            db.close()  # before the new one is opened: closing removes the write-ahead log of that name
        except (sqlite3.Error, OSError) as error:
            copy.unlink(missing_ok=True)
            raise StateError(
                f"state file {self.path} was removed, and cannot be written again ({error}); what happens from now is"
                " lost at the end: make room or permit writing there, and restart"
            ) from None
        self._db = self._connect()

    def close(self) -> None:
        with self._mutex:
            if self._db is None:
                return
            db, self._db = self._db, None
            try:
                db.close()  # the last one to close folds the write-ahead log into the file and removes it
            finally:
                self._file_lock.release()

    # --- opening ---

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            what = "a folder" if self.path.is_dir() else "no regular file"
            usable = self.path.is_file() or not self.path.exists()
        except OSError as error:
            raise StateError(
                f"state file {self.path}: its folder cannot be made or entered ({error.strerror}: {error.filename});"
                f" make that writable for uid {os.geteuid()}, or choose another state.path"
            ) from None
        if not usable:
            raise StateError(f"state file {self.path} is {what}; name a file, such as {self.path / 'selfright.db'}")

    def _open(self) -> sqlite3.Connection:
        try:
            self._inspect()
            return self._connect()
        except schema.DamagedFileError as damage:
            kept = set_aside(self.path, self._clock.time())
            self.notes.append(
                f"state file {self.path} was damaged ({damage}); it was set aside as {kept} and a fresh one begun:"
                " audit trail, budgets and repair counters start anew"
            )
        return self._connect()

    def _inspect(self) -> None:
        wal = self.path.with_name(self.path.name + "-wal")
        try:
            if self.path.exists() and self.path.stat().st_size:
                schema.inspect(self.path)
            elif wal.exists() and wal.stat().st_size:
                # SQLite would delete the log of a database that is gone.
                raise schema.DamagedFileError("it is missing or empty, but its write-ahead log is not")
        except sqlite3.Error as error:
            raise self._explained(error, "be read") from None

    def _connect(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._explained(error, "be opened") from None
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            schema.migrate(db)
            self._identity = self.path.stat()
            # A file that cannot be written is told now, not at the first record hours later.
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE schema_version SET version = version")
            db.execute("COMMIT")
        except BaseException as error:
            db.close()
            if isinstance(error, sqlite3.Error) and schema.is_damage(error):
                raise schema.DamagedFileError(str(error)) from None
            if isinstance(error, sqlite3.Error):
                raise self._explained(error, "be opened") from None
            raise
        return db

    # --- inside ---

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: whatever fails inside, nothing of it is kept and the store can be used again."""
        with self._mutex:
            db = self._usable()
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException as error:
                if db.in_transaction:  # SQLite itself rolls back after some errors
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._explained(error, "be written") from None
                raise

    def _rows(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._mutex:
            db = self._usable()
            try:
                return db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._explained(error, "be read") from None

    def _usable(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError(f"state file {self.path} is closed; open a new store on it")
        return self._db

    def _explained(self, error: sqlite3.Error, what: str) -> StateError:
        advice = _ADVICE.get(
            getattr(error, "sqlite_errorcode", 0) & 0xFF, "check the disk, or choose another state.path"
        )
        return StateError(f"state file {self.path} cannot {what} ({error}); {advice.format(uid=os.geteuid())}")

    def _json(self, document: Document, what: str) -> str:
        try:
            return json.dumps(document, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise StateError(
                f"state file {self.path}: {what} is not made of JSON types ({error}); nothing was written"
            ) from None

    def _merge_old(self, db: sqlite3.Connection) -> None:
        now = self._clock.time()
        # A bite at a time: with thousands of objectives a whole hour at once would hold up the loop.
        bite = ((now - MERGE_AFTER_S) // HOUR_S * HOUR_S, MERGE_AT_ONCE)
        db.execute(
            "INSERT INTO sample_hours SELECT objective, CAST(start / 3600 AS INTEGER) * 3600, sum(good), sum(total)"
            " FROM (SELECT * FROM samples WHERE start < ? ORDER BY start, objective LIMIT ?)"
            " WHERE true GROUP BY 1, 2 ON CONFLICT (objective, start)"
            " DO UPDATE SET good = good + excluded.good, total = total + excluded.total",
            bite,
        )
        db.execute(
            "DELETE FROM samples WHERE (objective, start) IN"
            " (SELECT objective, start FROM samples WHERE start < ? ORDER BY start, objective LIMIT ?)",
            bite,
        )
        db.execute("DELETE FROM sample_hours WHERE start < ?", (now - DROP_AFTER_S,))


def _text(text: str | None) -> str | None:
    """Bytes of a foreign program that are no UTF-8 arrive as lone surrogates, which SQLite cannot hold."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")
