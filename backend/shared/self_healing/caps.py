"""Safety over all services: how many repairs may go on at once, and when so many are a storm.

Healing must not become the outage. ``max_concurrent`` bounds the rungs that run, ``max_unhealthy`` the share of
services under repair (Cluster API's and node-healthcheck-operator's maxUnhealthy, percentages rounded down), and
the storm brake stops everything for a while when rungs begin faster than single faults explain. Pure: time is
handed in as monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from backend.shared.self_healing.settings import CapsSettings


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rung may not begin. ``retry_at`` is None where a slot has to become free first."""

    rule: str
    reason: str
    retry_at: float | None = None


class Caps:
    """Slots for repairs. ``services`` returns how many services there are.

    A service is under repair from its first rung until ``release``; it runs a rung between ``begin`` and ``end``.
    """

    def __init__(self, settings: CapsSettings, services: Callable[[], int]) -> None:
        self._settings = settings
        self._services = services
        self._running: set[str] = set()
        self._under_repair: set[str] = set()
        self._begun: deque[float] = deque(maxlen=settings.storm.repairs)
        self._brake_until = float("-inf")

    @property
    def running(self) -> frozenset[str]:
        """The services of which a rung runs."""
        return frozenset(self._running)

    @property
    def under_repair(self) -> frozenset[str]:
        """The services that hold a slot."""
        return frozenset(self._under_repair)

    def holds(self, service: str) -> bool:
        """Whether ``service`` is under repair."""
        return service in self._under_repair

    def admit(self, service: str, now: float) -> Refusal | None:
        """Return None when a rung of ``service`` may begin now, or else why not."""
        settings = self._settings
        if now < self._brake_until:
            storm = settings.storm
            return Refusal(
                "storm",
                f"{storm.repairs} repairs began within {storm.window_s:g} s; none begins for {storm.cooldown_s:g} s",
                self._brake_until,
            )
        if len(self._running) >= settings.max_concurrent:
            return Refusal("max_concurrent", f"{len(self._running)} repairs run at once, the most that may")
        allowed = settings.allowed_of(self._services())
        if service not in self._under_repair and len(self._under_repair) >= allowed:
            return Refusal(
                "max_unhealthy",
                f"{len(self._under_repair)} of {self._services()} services are under repair, the most that may"
                f" ({settings.max_unhealthy:g} %)",
            )
        return None

    def begin(self, service: str, now: float) -> None:
        """A rung begins; ``admit`` has just allowed it."""
        self._running.add(service)
        self._under_repair.add(service)
        self._begun.append(now)
        storm = self._settings.storm
        if len(self._begun) == storm.repairs and now - self._begun[0] <= storm.window_s:
            self._brake_until = now + storm.cooldown_s
            self._begun.clear()

    def end(self, service: str) -> None:
        """The rung ended; the service stays under repair."""
        self._running.discard(service)

    def release(self, service: str) -> None:
        """The service is no longer under repair, unless a rung of it runs."""
        if service not in self._running:
            self._under_repair.discard(service)
