"""What an SLO says: objective, good and total, error budget, burn rate.

The error budget of an objective ``o`` (percent) over a window is the share ``1 - o/100`` of events that
may be bad. ``error_budget_remaining`` is a percentage of that budget: 100 untouched, 0 spent, negative
overspent. The burn rate is the observed bad share over the allowed one: at 1 the budget lasts exactly
its window (Google SRE workbook, chapter 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class SLOStatus(StrEnum):
    """NO_DATA is a value of its own: silence is never green."""

    MET = "met"
    AT_RISK = "at_risk"
    VIOLATED = "violated"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class SLOReport:
    """An objective as it stands now.

    Attributes:
        name: the objective's name.
        objective: percent of good events that is promised, below 100.
        window_s: length of the objective's window.
        good, total: events inside the window.
        sli: percent of good events, or None without data.
        error_budget_remaining: percent of the budget left, negative when overspent; None without data.
        burn_rates: burn rate by window name (``"1h"``); a window without data is absent.
        status: the verdict.
        value: the newest sample of a threshold objective, in its own unit; None for good/total ones.
    """

    name: str
    objective: float
    window_s: float
    good: int
    total: int
    sli: float | None
    error_budget_remaining: float | None
    status: SLOStatus
    burn_rates: Mapping[str, float] = field(default_factory=dict)
    value: float | None = None


class SLOTracker(Protocol):
    """Counts good and bad events of one objective in constant memory."""

    @property
    def name(self) -> str: ...

    def record(self, good: bool, *, value: float | None = None) -> None:
        """Count one event now. ``value`` is kept as the newest sample."""
        ...

    def report(self) -> SLOReport:
        """Return the state of the objective now."""
        ...

    def restore(self, samples: Mapping[float, tuple[int, int]]) -> None:
        """Take back ``{slot start, unix seconds: (good, total)}`` from an earlier run; future slots are dropped."""
        ...


TrackerFactory = Callable[..., SLOTracker]
"""``(name, *, objective, window_s) -> SLOTracker``: how a monitor is given its SLO engine."""
