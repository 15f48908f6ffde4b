"""What a repairer knows of one service: its ladder, where it stands, and the incident that is open."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from modules.contracts.errors import ConfigurationError
from modules.contracts.health import (
    Decision,
    HealthStatus,
    RepairOptions,
    RepairPhase,
    RepairReport,
    Rung,
    ServiceHealth,
)


class Caps(Protocol):
    """What is asked of the caps over all services."""

    @property
    def max_concurrent(self) -> int: ...

    def allowed_of(self, services: int) -> int:
        """How many of so many services may be under repair at once."""
        ...


@dataclass(frozen=True, slots=True)
class LocalCaps:
    """So many rungs at once; at most so many percent of the services under repair, rounded down, at least one."""

    max_concurrent: int = 3
    max_unhealthy: float = 50

    def allowed_of(self, services: int) -> int:
        return max(1, math.floor(services * self.max_unhealthy / 100))


class RepairUnhealthy:
    """The policy of a repairer that stands alone: what is UNHEALTHY, unless for a dependency's fault."""

    def decide(self, health: ServiceHealth) -> Decision:
        if health.affected_by:
            roots = ", ".join(health.affected_by)
            return Decision(False, "affected", f"{health.name} depends on {roots}, which is repaired first")
        if health.status is HealthStatus.UNHEALTHY:
            return Decision(True, "unhealthy", f"{health.name} is unhealthy")
        return Decision(False, health.status.value, f"{health.name} is {health.status.value}, which is not repaired")


@dataclass(slots=True)
class Incident:
    """An open incident. ``ordered``: a person asked, so neither policy nor back-off hold it up."""

    id: str
    reason: str
    opened_at: float
    began: float
    ordered: bool
    run_now: bool
    actions: list[str] = field(default_factory=list)
    phase: RepairPhase = RepairPhase.WAITING
    next_at: float | None = None
    again: bool = False
    ended: asyncio.Future[RepairReport] | None = None


@dataclass(slots=True)
class Ladder:
    """A service's ladder and where it stands, which outlives an incident for ``stable_s``."""

    name: str
    rungs: tuple[Rung, ...]
    options: RepairOptions
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    incident: Incident | None = None
    task: asyncio.Task[None] | None = None
    rung: int = 0
    tries: int = 0
    """Runs of the rung in use."""
    attempts: int = 0
    runs: deque[float] = field(default_factory=deque)
    ran_at: float = -math.inf
    closed_at: float = -math.inf
    paused: bool = False
    skipped: str | None = None

    def spent_until(self, now: float) -> float:
        """Until when the attempts of the interval are used up; long ago when they are not."""
        options = self.options
        while self.runs and self.runs[0] <= now - options.attempts_interval_s:
            self.runs.popleft()
        if len(self.runs) < options.attempts_per_interval:
            return -math.inf
        return self.runs[-options.attempts_per_interval] + options.attempts_interval_s


def refuse_bad_options(name: str, options: RepairOptions) -> None:
    """Raise ConfigurationError that names the option, what was found and what is allowed."""
    for key in ("attempts_per_interval", "verify_passes"):
        if getattr(options, key) < 1:
            raise ConfigurationError(f"repair of {name!r}: {key} must be at least 1, found {getattr(options, key)!r}")
    for key in ("attempts_interval_s", "verify_timeout_s"):
        if not getattr(options, key) > 0:
            raise ConfigurationError(f"repair of {name!r}: {key} must be above 0, found {getattr(options, key)!r}")
    for key in ("backoff_base_s", "backoff_max_s", "cooldown_s", "healthy_delay_s", "stable_s"):
        if not getattr(options, key) >= 0:
            raise ConfigurationError(f"repair of {name!r}: {key} must be 0 or more, found {getattr(options, key)!r}")
