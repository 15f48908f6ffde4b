"""A service that reports by itself: it has failed when its last heartbeat is older than ``ttl_s``.

Until the first heartbeat may be expected there is no verdict, because silence is never green. Heartbeats of a
process that has been replaced since are not the new one's: they would vouch for what may never have come up.
"""

from __future__ import annotations

import math

from backend.shared.self_healing.probes.process import supervision
from backend.shared.self_healing.settings import HeartbeatProbeSettings
from modules.contracts.clock import Clock
from modules.contracts.health import BuildContext, Heartbeats, ProbeOutcome, ProbeResult, ProcessControl, Wait


class HeartbeatProbe:
    """Looks at the age of the newest heartbeat.

    When there is none, ``ttl_s`` counts from the first look, or from the start of another process since.
    """

    kind = "heartbeat"

    def __init__(
        self,
        service: str,
        ttl_s: float,
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
            return self._await_first(Wait(now - self._began, self._ttl_s))
        facts = {"heartbeat_age_s": age}
        if age > self._ttl_s:
            detail = f"the last heartbeat was {age:.1f} s ago, expected one every {self._ttl_s:g} s"
            return ProbeResult(ProbeOutcome.FAIL, detail, facts, Wait(age, self._ttl_s))
        return ProbeResult(ProbeOutcome.PASS, facts=facts)

    async def close(self) -> None:
        """Nothing is held."""

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

    def _await_first(self, wait: Wait) -> ProbeResult:
        if wait.spent_s <= self._ttl_s:
            detail = f"no heartbeat yet; the first is waited for {self._ttl_s:g} s"
            return ProbeResult(ProbeOutcome.ERROR, detail, wait=wait)
        return ProbeResult(
            ProbeOutcome.FAIL, f"never sent a heartbeat, expected one every {self._ttl_s:g} s", wait=wait
        )


def build(settings: HeartbeatProbeSettings, context: BuildContext) -> HeartbeatProbe:
    return HeartbeatProbe(context.service, settings.ttl_s, context.heartbeats, context.clock, supervision(context))
