"""Several workers, one exposition: each keeps its numbers in memory-mapped files that all of them can read.

The files are those of prometheus-client's multiprocess mode (https://prometheus.github.io/client_python/multiprocess/)
and its collector adds them up; but the directory belongs to one collector, so no environment variable has to be set
before the first import, and other registries of the process stay as they are.

A worker holds a lock on a file of its own for as long as it lives. The kernel gives it back even after ``kill -9``, so
a dead worker is known for sure, whoever has its process id by now. Its counters and histograms are added to those of
the retired ones, as a total must never shrink, and its gauges end with it. Whoever renders does that, under the
directory's lock and with a journal, so that a worker that is killed meanwhile neither loses a count nor doubles it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from modules.contracts.catalog import MAX_SERIES, OVERFLOW
from modules.contracts.errors import ConfigurationError, StateError

_log = logging.getLogger(__name__)

_KEPT = ("counter", "histogram")
"""Kinds whose values outlive their worker."""
_KINDS = (*_KEPT, "gauge")
_RETIRED = "retired"
_JOURNAL = "retiring.json"
_NEW = ".new"
_BROKEN = (RuntimeError, ValueError, struct.error, OSError, IndexError)
"""What reading a file raises that was not written to its end."""

_Sums = dict[str, float]


class _File(Protocol):
    """A memory-mapped dictionary of numbers and their times."""

    def write_value(self, key: str, value: float, timestamp: float) -> None: ...

    def close(self) -> None: ...


# What prometheus-client leaves untyped, with its types.
_open_file: Callable[[str], _File] = MmapedDict
_read_file: Callable[[str], Iterable[tuple[str, float, float, int]]] = MmapedDict.read_all_values_from_file
_sum_files: Callable[[list[str]], Iterable[Metric]] = MultiProcessCollector.merge


class Cell:
    """One number in a worker's file. ``value`` is this worker's own."""

    __slots__ = ("_file", "_key", "value")

    def __init__(self, file: _File, key: str) -> None:
        self.move(file, key)

    def move(self, file: _File, key: str) -> None:
        """Begin anew at 0 in another file."""
        self._file = file
        self._key = key
        self.value = 0.0
        file.write_value(key, 0.0, 0.0)

    def add(self, amount: float) -> None:
        self.value += amount
        self._file.write_value(self._key, self.value, 0.0)

    def set(self, value: float, at: float) -> None:
        """Set it, with the unix seconds by which the most recent of several workers is told."""
        self.value = value
        self._file.write_value(self._key, value, at)


class WorkerFiles:
    """This worker's files in ``directory``, and the sum of all workers'. A fork becomes a worker of its own, at 0.

    The directory belongs to the workers of one program on one machine; it is made when missing, and emptied by the
    first worker when no other lives. At most ``max_series`` series of a metric are kept of dead workers; more are
    added to ``"other"``. Raises ConfigurationError when it cannot be used; ``close`` gives everything back.
    """

    def __init__(self, directory: str | Path, *, max_series: int = MAX_SERIES) -> None:
        self._directory = Path(directory)
        self._max_series = max_series
        self._cells: list[tuple[Cell, str, str]] = []
        self._files: dict[str, _File] = {}
        self._broken: set[str] = set()
        self._lock: int | None = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._join()
        except OSError as error:
            raise ConfigurationError(
                f"multiprocess_dir {str(directory)!r} cannot be used: {error.strerror or error};"
                " name a directory that all workers can write, for them alone"
            ) from error
        _living.add(self)

    def cell(
        self,
        kind: str,
        metric: str,
        sample: str,
        labels: tuple[Sequence[str], Sequence[str]],
        help: str,
    ) -> Cell:
        """Return a new number, 0 at first. ``kind`` is that of the file, for a gauge with its mode: gauge_livesum."""
        key = mmap_key(metric, sample, list(labels[0]), list(labels[1]), help)
        cell = Cell(self._file(kind), key)
        self._cells.append((cell, kind, key))
        return cell

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all workers, by name, after retiring the dead. Raises StateError."""
        try:
            with self._exclusive():
                self._retire([worker for worker, lives in self._workers() if not lives])
                files = sorted(self._directory.glob("*.db"))
                merged = [
                    metric for kind in _KINDS for metric in self._merge([f for f in files if f.name.startswith(kind)])
                ]
        except OSError as error:
            raise StateError(
                f"the workers' metrics in {str(self._directory)!r} cannot be read: {error.strerror or error};"
                " restart the workers when the directory is gone"
            ) from error
        known: dict[str, Metric] = {}
        for metric in merged:
            if known.setdefault(metric.name, metric) is not metric:
                self._tell_once(f"metric {metric.name} is of another kind in another worker, and left out as that")
        yield from (known[name] for name in sorted(known))

    def close(self) -> None:
        """Give back files and lock: the other workers take this one for dead. Safe twice."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._cells.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- who lives ---

    def _join(self) -> None:
        with self._exclusive():
            workers = list(self._workers())
            if any(lives for _, lives in workers):
                self._retire([worker for worker, lives in workers if not lives])
            else:
                self._empty()
            taken = {worker for worker, lives in workers if lives}
            names = (f"{os.getpid()}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, len(taken) + 2))))
            self._worker = next(name for name in names if name not in taken)
            self._lock = os.open(self._lock_file(self._worker), os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _workers(self) -> Iterator[tuple[str, bool]]:
        """Yield each worker that has joined, and whether it lives."""
        for path in sorted(self._directory.glob("*.worker")):
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield path.stem, True
            else:
                yield path.stem, False
            finally:
                os.close(handle)

    def _lock_file(self, worker: str) -> Path:
        return self._directory / f"{worker}.worker"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep the other workers out, for milliseconds, and finish what one of them began when it was killed."""
        handle = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            journal = self._directory / _JOURNAL
            if journal.exists():
                self._finish(json.loads(journal.read_text()))
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a fork may hold a copy of the handle, so closing is not enough
            os.close(handle)

    def _be_born(self) -> None:
        """Become a worker of its own after a fork; the parent's files and lock stay the parent's."""
        if self._lock is None:
            return
        os.close(self._lock)
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._join()
        for cell, kind, key in self._cells:
            cell.move(self._file(kind), key)

    # --- the dead ---

    def _retire(self, dead: list[str]) -> None:
        if not dead:
            return
        for kind in _KEPT:
            of_dead = [path for worker in dead if (path := self._path(kind, worker)).exists()]
            if of_dead:
                retired = self._path(kind, _RETIRED)
                self._write(Path(f"{retired}{_NEW}"), self._sum([retired, *of_dead]))
        journal = self._directory / _JOURNAL
        draft = Path(f"{journal}{_NEW}")
        draft.write_text(json.dumps(dead))
        draft.rename(journal)  # from here on it is finished by whoever comes next, if not by this worker
        self._finish(dead)

    def _finish(self, dead: list[str]) -> None:
        for kind in _KEPT:
            retired = self._path(kind, _RETIRED)
            with suppress(FileNotFoundError):
                Path(f"{retired}{_NEW}").rename(retired)
        for worker in dead:
            for path in (*self._directory.glob(f"*_{worker}.db"), self._lock_file(worker)):
                path.unlink(missing_ok=True)
        (self._directory / _JOURNAL).unlink(missing_ok=True)

    def _sum(self, files: Iterable[Path]) -> _Sums:
        sums: _Sums = {}
        series: dict[str, set[str]] = {}
        for path in files:
            for key, value in self._read(path):
                metric, sample, labels, help = json.loads(key)
                bound = {"le": labels.pop("le")} if "le" in labels else {}
                known = series.setdefault(metric, set())
                identity = json.dumps(labels, sort_keys=True)
                if labels and identity not in known and len(known) >= self._max_series:
                    labels = dict.fromkeys(labels, OVERFLOW)
                else:
                    known.add(identity)
                labels |= bound
                kept = mmap_key(metric, sample, list(labels), list(labels.values()), help)
                sums[kept] = sums.get(kept, 0.0) + value
        return sums

    def _read(self, path: Path) -> list[tuple[str, float]]:
        try:
            if path.stat().st_size == 0:  # its worker is just making it
                return []
            return [(key, value) for key, value, *_ in _read_file(str(path))]
        except FileNotFoundError:
            return []
        except _BROKEN as error:
            self._tell_once(f"{path.name} of the workers' metrics is broken, and left out: {error}")
            return []

    @staticmethod
    def _write(path: Path, sums: _Sums) -> None:
        path.unlink(missing_ok=True)
        file = _open_file(str(path))
        try:
            for key, value in sums.items():
                file.write_value(key, value, 0.0)
        finally:
            file.close()

    def _empty(self) -> None:
        for pattern in ("*.db", f"*{_NEW}", "*.worker"):
            for path in self._directory.glob(pattern):
                path.unlink(missing_ok=True)

    # --- the living ---

    def _file(self, kind: str) -> _File:
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = _open_file(str(self._path(kind, self._worker)))
        return file

    def _path(self, kind: str, worker: str) -> Path:
        return self._directory / f"{kind}_{worker}.db"

    def _merge(self, files: list[Path]) -> list[Metric]:
        try:
            return list(_sum_files([str(path) for path in files]))
        except _BROKEN:  # rare enough to look for the culprits only then
            whole = [path for path in files if self._read(path)]
            return list(_sum_files([str(path) for path in whole]))

    def _tell_once(self, what: str) -> None:
        if what not in self._broken:
            self._broken.add(what)
            _log.warning("%s", what)


_living: weakref.WeakSet[WorkerFiles] = weakref.WeakSet()


def _after_fork() -> None:
    for files in list(_living):
        files._be_born()


os.register_at_fork(after_in_child=_after_fork)
