"""Whether a service that is not well is to be repaired now: the rules of the recovery manager.

They stand in one list, each a small function that is asked in turn; the first that has a say decides. The budget
steers as in Google's error budget policy (SRE workbook, appendix B): with budget left one can afford to wait, with
none left one cannot. Of the steps of a written policy, ``tighten`` says so outright, whatever the thresholds are.
``freeze`` forbids changes, and a repair is none: it gives back what was there, and a budget that is nearly spent is
the last reason to leave a service broken. So it holds no rung, ordered or not; neither does ``shed``, which is about
load.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from modules.contracts.health import Decision, HealthStatus, ServiceHealth

TIGHTEN = "tighten"
"""The step of the error budget policy that asks for repair sooner."""


class MaintenanceWindow(Protocol):
    """A time in which nothing is repaired."""

    @property
    def end(self) -> datetime: ...

    def covers(self, service: str, now: float) -> bool:
        """Whether ``service`` is in maintenance at ``now`` (unix seconds)."""
        ...


class RecoveryRules(Protocol):
    """How the error budget steers repair, in percent of the budget that is left."""

    @property
    def repair_degraded_below(self) -> float: ...

    @property
    def skip_backoff_below(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules are asked about.

    ``now`` is in unix seconds, ``budget_left`` in percent, None without data; ``steps`` are those of the error budget
    policy that are in force for the service.
    """

    health: ServiceHealth
    now: float
    budget_left: float | None
    settings: RecoveryRules
    maintenance: Sequence[MaintenanceWindow]
    steps: Collection[str] = ()

    @property
    def found(self) -> str:
        """What the newest check found."""
        return self.health.last.detail if self.health.last else "not checked yet"

    @property
    def tightened(self) -> bool:
        """Whether the error budget policy asks for repair at once."""
        return TIGHTEN in self.steps

    @property
    def hurried(self) -> bool:
        """Whether too little of the budget is left to wait for the first back-off; with a threshold of 0 never."""
        if self.tightened:
            return True
        threshold = self.settings.skip_backoff_below
        return threshold > 0 and self.budget_left is not None and self.budget_left < threshold


Rule = Callable[[Situation], Decision | None]


def paused(on: Situation) -> Decision | None:
    """A service whose checks are paused is not known well enough."""
    if not on.health.paused:
        return None
    return Decision(False, "paused", "its checks are paused; resume them when it may be repaired")


def maintenance(on: Situation) -> Decision | None:
    """In a maintenance window people are at work."""
    window = next((window for window in on.maintenance if window.covers(on.health.name, on.now)), None)
    if window is None:
        return None
    return Decision(False, "maintenance", f"it is in maintenance until {window.end.isoformat()}")


def affected(on: Situation) -> Decision | None:
    """What fails for another's fault is healed at its root."""
    roots = on.health.affected_by
    return Decision(False, "affected", f"it fails because of {', '.join(roots)}") if roots else None


def flapping(on: Situation) -> Decision | None:
    """Repairing what changes its mind makes it change its mind more often."""
    if not on.health.flapping:
        return None
    return Decision(False, "flapping", "its checks pass and fail in turn; it is left alone until it settles")


def starting(on: Situation) -> Decision | None:
    """What still starts is given its time."""
    return Decision(False, "starting", "it still starts") if on.health.status is HealthStatus.STARTING else None


def unknown(on: Situation) -> Decision | None:
    """The prober's own fault is no reason to restart a service."""
    if on.health.status is not HealthStatus.UNKNOWN:
        return None
    return Decision(False, "unknown", f"nobody knows how it is: {on.found}")


def degraded(on: Situation) -> Decision | None:
    """A service that is alive but not ready is repaired only when the error budget runs out for it."""
    if on.health.status is not HealthStatus.DEGRADED:
        return None
    if on.tightened:
        return Decision(True, "degraded", f"degraded: {on.found}; the policy step {TIGHTEN} is in force", True)
    threshold, left = on.settings.repair_degraded_below, on.budget_left
    if threshold == 0:
        return Decision(False, "degraded", f"it is alive: {on.found}")
    have = "nothing is known of its error budget" if left is None else f"{left:.1f} % of its error budget are left"
    if left is None or left >= threshold:
        return Decision(False, "degraded", f"it is alive, {have}, and it is repaired below {threshold:g} %")
    return Decision(True, "degraded", f"degraded: {on.found}; {have}", skip_backoff=on.hurried)


def unhealthy(on: Situation) -> Decision | None:
    """A failed service never waits."""
    if on.health.status is not HealthStatus.UNHEALTHY:
        return None
    return Decision(True, "unhealthy", on.found, skip_backoff=on.hurried)


RULES: tuple[Rule, ...] = (maintenance, starting, affected, paused, flapping, unknown, degraded, unhealthy)


def decide(situation: Situation) -> Decision:
    """Ask the rules in turn; a service that none speaks of is healthy."""
    decisions = (rule(situation) for rule in RULES)
    return next((decision for decision in decisions if decision), Decision(False, "healthy", situation.found))
