"""What an SLO says: objective, good and total, error budget, burn rate.

The error budget of an objective ``o`` (percent) over a window is the share ``1 - o/100`` of events that
may be bad. ``error_budget_remaining`` is a percentage of that budget: 100 untouched, 0 spent, negative
overspent. The burn rate is the observed bad share over the allowed one: at 1 the budget lasts exactly
its window (Google SRE workbook, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from modules.contracts.errors import ConfigurationError

AT_RISK_BELOW = 25.0
"""With less than so many percent of its budget left an objective is at risk."""
MAX_WINDOW_S = 366 * 86_400.0


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

    def drain(self) -> Mapping[float, tuple[int, int]]:
        """Return ``{60-s slot start, unix seconds: (good, total)}`` recorded since the last drain, to be kept."""
        ...


TrackerFactory = Callable[..., SLOTracker]
"""``(name, *, objective, window_s) -> SLOTracker``: how a monitor is given its SLO engine."""


def check_objective(name: str, objective: float, window_s: float) -> None:
    """Raise ConfigurationError unless an objective of this name, percentage and window (seconds) can be kept."""
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
        raise ConfigurationError(
            f"the name of an objective must be 1 to 200 printable characters, found {name!r}; give it a short name"
        )
    if not _is_number(objective) or not 0 < objective < 100:
        raise ConfigurationError(
            f"objective of {name}: must be a percentage above 0 and below 100, found {objective!r};"
            " 100 leaves no error budget, choose for example 99.9"
        )
    if not _is_number(window_s) or not 0 < window_s <= MAX_WINDOW_S:
        raise ConfigurationError(
            f"window of {name}: must be above 0 and at most 366 days ({MAX_WINDOW_S:.0f} s), found {window_s!r} s"
        )


def burn_rate(objective: float, good: int, total: int) -> float | None:
    """Return the observed bad share over the allowed one, or None without data."""
    if not total:
        return None
    # 100 - 99.99 is 0.010000000000005; the rounding makes "exactly spent" come out as exactly 1.
    return (total - good) * 100 / (round(100 - objective, 9) * total)


def summarize(
    name: str,
    objective: float,
    window_s: float,
    counts: tuple[int, int],
    *,
    burn_rates: Mapping[str, float] | None = None,
    alerting: bool = False,
    value: float | None = None,
) -> SLOReport:
    """Judge ``counts`` (good, total) of the whole window: the one place where an SLOStatus is decided.

    ``alerting`` says that a burn-rate alert fires.
    """
    good, total = counts
    burn = burn_rate(objective, good, total)
    left = None if burn is None else round(100 * (1 - burn), 9)
    if left is None:
        status = SLOStatus.NO_DATA
    elif left <= 0:
        status = SLOStatus.VIOLATED
    else:
        status = SLOStatus.AT_RISK if alerting or left < AT_RISK_BELOW else SLOStatus.MET
    return SLOReport(
        name=name,
        objective=objective,
        window_s=window_s,
        good=good,
        total=total,
        sli=100 * good / total if total else None,
        error_budget_remaining=left,
        status=status,
        burn_rates=burn_rates or {},
        value=value,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
