"""Whether a process runs, by the runtime's own supervision or by its pid file, and how much memory it holds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from backend.shared.self_healing.probes.faults import erred, fail, judge_own
from backend.shared.self_healing.settings import ProcessProbeSettings
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, Probe, ProbeOutcome, ProbeResult, ProcessControl

_MIB = 1024 * 1024
_PROC = Path("/proc")
_PIDFILE_BYTES = 64

Find = Callable[[], int | ProbeResult]
"""Finds the process id, or says why there is none."""


class ProcessProbe:
    """Asks ``find`` for a process, and /proc for its resident memory when ``max_rss_mb`` is given."""

    kind = "process"

    def __init__(self, find: Find, max_rss_mb: float | None = None) -> None:
        self._find = find
        self._max_rss_mb = max_rss_mb

    async def probe(self) -> ProbeResult:
        pid = self._find()
        if isinstance(pid, ProbeResult):
            return pid
        if self._max_rss_mb is None:
            return ProbeResult(ProbeOutcome.PASS, facts={"pid": pid})
        try:
            rss_mb = _resident_mb(pid)
        except (FileNotFoundError, ProcessLookupError):
            return fail(f"process {pid} ended while it was looked at")
        except OSError as error:
            return judge_own(error) or erred(f"the memory of process {pid} cannot be read: {error.strerror}")
        facts: dict[str, float | str] = {"pid": pid, "rss_mb": rss_mb}
        if rss_mb > self._max_rss_mb:
            detail = f"process {pid} holds {rss_mb:.1f} MiB of memory, allowed are {self._max_rss_mb:g} MiB"
            return ProbeResult(ProbeOutcome.FAIL, detail, facts)
        return ProbeResult(ProbeOutcome.PASS, facts=facts)

    async def close(self) -> None:
        """Nothing is held."""


def supervised(processes: ProcessControl, service: str) -> Find:
    """Find the process that the runtime supervises for ``service``."""

    def find() -> int | ProbeResult:
        status = processes.get_status(service)
        return status.pid if status.running and status.pid is not None else fail(f"its process {status.ending}")

    return find


def supervision(context: BuildContext) -> ProcessControl | None:
    """Who supervises the service's process, when it has one."""
    has_process = context.processes is not None and context.service in context.processes.names
    return context.processes if has_process else None


class SupervisedProbe:
    """Asks ``probe`` only while the service's process runs; once that has ended there is nothing to wait for."""

    def __init__(self, probe: Probe, service: str, processes: ProcessControl) -> None:
        self.kind = probe.kind
        self._probe = probe
        self._find = supervised(processes, service)

    async def probe(self) -> ProbeResult:
        found = self._find()
        return found if isinstance(found, ProbeResult) else await self._probe.probe()

    async def close(self) -> None:
        await self._probe.close()


def by_pidfile(path: str) -> Find:
    """Find the process whose id stands in the file at ``path``."""

    def find() -> int | ProbeResult:
        try:
            with Path(path).open("rb") as file:
                text = file.read(_PIDFILE_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return fail(f"the pid file {path!r} does not exist")
        except OSError as error:
            return judge_own(error) or fail(f"the pid file {path!r} cannot be read: {error.strerror}")
        if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
            return fail(f"the pid file {path!r} holds {text[:20]!r}, expected a process id")
        pid = int(text)
        return pid if _runs(pid) else fail(f"process {pid} of the pid file {path!r} does not run")

    return find


def _resident_mb(pid: int) -> float:
    pages = int((_PROC / str(pid) / "statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it exists and belongs to another user
        pass
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:  # no /proc, or it is gone by now: the next look will tell
        return True
    return stat.rpartition(b")")[2].split()[:1] != [b"Z"]


def build(settings: ProcessProbeSettings, context: BuildContext) -> ProcessProbe:
    """Raises ConfigurationError when there is neither a supervised process nor a pid file, or no /proc for memory."""
    if settings.max_rss_mb is not None and not (_PROC / "self").exists():
        raise ConfigurationError(
            f"services.{context.service}: max_rss_mb needs /proc, which this system does not have; leave it out"
        )
    if settings.pidfile is not None:
        return ProcessProbe(by_pidfile(settings.pidfile), settings.max_rss_mb)
    processes = supervision(context)
    if processes is None:
        raise ConfigurationError(
            f"services.{context.service}: a process probe needs a process that the runtime supervises, and there is"
            f" none; give it services.{context.service}.process or the probe a pidfile"
        )
    return ProcessProbe(supervised(processes, context.service), settings.max_rss_mb)
