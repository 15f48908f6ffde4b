"""What the state file holds: its tables, how older files are brought up to date, and whether a file is one of ours.

A file says so by SQLite's ``application_id`` and by the one row of ``schema_version``. Migration ``n``
(counted from 0) turns version ``n`` into ``n + 1``, in one transaction; a released one is never edited.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from modules.contracts.errors import StateError

APPLICATION_ID = 0x53524754
"""``SRGT`` in the header of the file; ``file`` and others show it."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE schema_version (version INTEGER NOT NULL)",
        "INSERT INTO schema_version VALUES (0)",
        # AUTOINCREMENT: an id is never used again, even after the newest record was removed.
        """CREATE TABLE audit (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            message TEXT NOT NULL,
            service TEXT,
            incident TEXT,
            data TEXT NOT NULL)""",
        "CREATE INDEX audit_by_service ON audit (service, id)",
        "CREATE INDEX audit_by_incident ON audit (incident, id)",
        "CREATE INDEX audit_by_kind ON audit (kind, id)",
        """CREATE TABLE documents (
            namespace TEXT NOT NULL,
            key TEXT NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (namespace, key)) WITHOUT ROWID""",
        # Fresh slots and merged hours lie apart, so that merging reads nothing but what it merges.
        *(
            statement
            for table in ("samples", "sample_hours")
            for statement in (
                f"""CREATE TABLE {table} (
                    objective TEXT NOT NULL,
                    start REAL NOT NULL,
                    good INTEGER NOT NULL CHECK (good >= 0),
                    total INTEGER NOT NULL CHECK (total >= good),
                    PRIMARY KEY (objective, start)) WITHOUT ROWID""",
                f"CREATE INDEX {table}_by_start ON {table} (start)",
            )
        ),
    ),
)

_TABLES = {"schema_version", "audit", "documents", "samples", "sample_hours"}


class DamagedFileError(StateError):
    """The file is no intact database. It may be set aside; a file that is merely not ours may not."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def inspect(path: Path) -> None:
    """Look at an existing file without changing it.

    Raises DamagedFileError, or StateError when it belongs to another program or to a newer version.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            faults = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
            if faults != ["ok"]:
                raise DamagedFileError("; ".join(" ".join(fault.split()) for fault in faults))
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            application = db.execute("PRAGMA application_id").fetchone()[0]
            if application == 0 and not tables:
                return
            if application != APPLICATION_ID:
                raise StateError(
                    f"state file {path} is an SQLite database of another program (tables: "
                    f"{', '.join(sorted(tables)[:5])}); it was not touched; choose another state.path"
                )
            if missing := _TABLES - tables:
                raise DamagedFileError(f"without the table(s) {', '.join(sorted(missing))}")
            version = _version(db)
    except sqlite3.Error as error:
        if is_damage(error):
            raise DamagedFileError(str(error)) from None
        raise
    if version > len(MIGRATIONS):
        raise StateError(
            f"state file {path} has schema version {version}, and this program knows {len(MIGRATIONS)} at most;"
            " it was not touched; run the newer program, or choose another state.path"
        )


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to the newest version, each step in one transaction. ``db`` commits by itself.

    After an error its transaction is still open: close ``db``, and the last whole version stays.
    """
    fresh = not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    for version in range(0 if fresh else _version(db), len(MIGRATIONS)):
        db.execute("BEGIN IMMEDIATE")
        for statement in MIGRATIONS[version]:
            db.execute(statement)
        db.execute("UPDATE schema_version SET version = ?", (version + 1,))
        db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT version FROM schema_version").fetchone()
    if row is None or not isinstance(row[0], int):
        raise DamagedFileError("without a schema version")
    return row[0]
