"""A service that reports by itself: it has failed when its last heartbeat is older than ``ttl_s``."""

from __future__ import annotations

import math

from modules.contracts.clock import Clock
from modules.contracts.health import Heartbeats, ProbeOutcome, ProbeResult, ProcessControl, Wait


class HeartbeatProbe:
    """Passes while the newest heartbeat is younger than ``ttl_s``; before the first there is no verdict for so long.

    Those of a process that ``processes`` has replaced since are not the new one's.
    """

    kind = "heartbeat"

    def __init__(
        self,
        service: str,
        ttl_s: float,
        *,
        heartbeats: Heartbeats,
        clock: Clock,
        processes: ProcessControl | None = None,
    ) -> None:
        self._service = service
        self._ttl_s = ttl_s
        self._heartbeats = heartbeats
        self._clock = clock
        self._processes = processes
        self._pid: int | None = None
        self._began: float | None = None
        self._looked_at = self._counts_from = -math.inf

    async def probe(self) -> ProbeResult:
        now = self._clock.monotonic()
        if self._began is None:
            self._began = now
        self._notice_replacement(now)
        age = self._heartbeats.age(self._service)
        if age is None or now - age < self._counts_from:
            wait = Wait(now - self._began, self._ttl_s)
            if wait.spent_s <= self._ttl_s:
                detail = f"no heartbeat yet; the first is waited for {self._ttl_s:g} s"
                return ProbeResult(ProbeOutcome.ERROR, detail, wait=wait)
            return ProbeResult(ProbeOutcome.FAIL, f"no heartbeat within {self._ttl_s:g} s: none came yet", wait=wait)
        facts = {"heartbeat_age_s": age}
        if age <= self._ttl_s:
            return ProbeResult(ProbeOutcome.PASS, facts=facts)
        detail = f"no heartbeat within {self._ttl_s:g} s: the last came {age:.1f} s ago"
        return ProbeResult(ProbeOutcome.FAIL, detail, facts, Wait(age, self._ttl_s))

    def _notice_replacement(self, now: float) -> None:
        """Begin to wait anew from the start of another process than the one that ran at the last look."""
        status = self._processes.get_status(self._service) if self._processes else None
        if status is not None and status.pid is not None and status.started_at is not None:
            if self._pid is not None and status.pid != self._pid:
                # The wall clock may have jumped, but the start lies between the two looks.
                runs_for = min(max(0.0, self._clock.time() - status.started_at), now - self._looked_at)
                self._began = self._counts_from = now - runs_for
            self._pid = status.pid
        self._looked_at = now

    async def close(self) -> None:
        """Nothing is held."""
