"""A service that reports by itself: it has failed when its last heartbeat is older than ``ttl_s``.

Until the first heartbeat may be expected there is no verdict, because silence is never green.
"""

from __future__ import annotations

from backend.shared.self_healing.probes.faults import erred, fail
from backend.shared.self_healing.settings import HeartbeatProbeSettings
from modules.contracts.clock import Clock
from modules.contracts.health import BuildContext, Heartbeats, ProbeOutcome, ProbeResult


class HeartbeatProbe:
    """Looks at the age of the newest heartbeat; ``ttl_s`` counts from the first look when there is none."""

    kind = "heartbeat"

    def __init__(self, service: str, ttl_s: float, heartbeats: Heartbeats, clock: Clock) -> None:
        self._service = service
        self._ttl_s = ttl_s
        self._heartbeats = heartbeats
        self._clock = clock
        self._began: float | None = None

    async def probe(self) -> ProbeResult:
        now = self._clock.monotonic()
        if self._began is None:
            self._began = now
        age = self._heartbeats.age(self._service)
        if age is None:
            if now - self._began <= self._ttl_s:
                return erred(f"no heartbeat yet; the first is waited for {self._ttl_s:g} s")
            return fail(f"never sent a heartbeat, expected one every {self._ttl_s:g} s")
        if age > self._ttl_s:
            return fail(f"the last heartbeat was {age:.1f} s ago, expected one every {self._ttl_s:g} s")
        return ProbeResult(ProbeOutcome.PASS, facts={"heartbeat_age_s": age})

    async def close(self) -> None:
        """Nothing is held."""


def build(settings: HeartbeatProbeSettings, context: BuildContext) -> HeartbeatProbe:
    return HeartbeatProbe(context.service, settings.ttl_s, context.heartbeats, context.clock)
