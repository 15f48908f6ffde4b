"""The state file among other files: one program at a time, and nothing of a damaged one is lost.

The lock is an exclusive ``flock`` on a file of its own beside it: the kernel gives it back however the
program ends, and SQLite's own locks, which are taken per transaction, are not disturbed.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from modules.contracts.errors import StateError


class FileLock:
    """Holds ``<path>.lock`` from construction to ``release``. Raises StateError that names the holder's pid."""

    def __init__(self, path: Path) -> None:
        lock = self._name = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(
                f"state file {path}: its lock {lock} cannot be opened ({error.strerror});"
                f" make {path.parent} writable for uid {os.geteuid()}, or choose another state.path"
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StateError(
                f"state file {path} is in use by process {holder}; stop that one, or give each its own state.path"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise StateError(
                f"state file {path}: its lock {lock} cannot be held ({error.strerror});"
                " choose a state.path on a local disk with free space"
            ) from None

    @property
    def in_place(self) -> bool:
        """Whether the file that is locked still bears its name; somebody may have removed it."""
        return is_file(self._name, os.fstat(self._descriptor))

    def release(self) -> None:
        """Let others in. The file stays: to remove it would let two programs hold two files of one name."""
        os.close(self._descriptor)


def is_file(path: Path, known: os.stat_result) -> bool:
    """Whether ``path`` names the file that ``known`` describes."""
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


def set_aside(path: Path, now: float) -> Path:
    """Rename ``path`` with its -wal and -shm to ``<name>.corrupt-<UTC timestamp>`` and return the new name.

    Never overwrites. Raises StateError when it cannot be renamed; ``now`` is in unix seconds.
    """
    stamp = f"{path.name}.corrupt-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    suffixes = ("", "-wal", "-shm")
    target, again = path.with_name(stamp), 1
    while any(_beside(target, suffix).exists() for suffix in suffixes):
        again += 1
        target = path.with_name(f"{stamp}-{again}")
    for suffix in suffixes:
        try:
            _beside(path, suffix).rename(_beside(target, suffix))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StateError(
                f"state file {path} is damaged and {_beside(path, suffix).name} cannot be set aside as"
                f" {_beside(target, suffix)} ({error.strerror}); move it away, or choose another state.path"
            ) from None
    return target


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
