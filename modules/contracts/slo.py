"""What an SLO says: objective, good and total, error budget, burn rate.

The error budget of an objective ``o`` (percent) over a window is the share ``1 - o/100`` of events that
may be bad. ``error_budget_remaining`` is a percentage of that budget: 100 untouched, 0 spent, negative
overspent. The burn rate is the observed bad share over the allowed one: at 1 the budget lasts exactly
its window (Google SRE workbook, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal, Protocol

from modules.contracts.errors import ConfigurationError, SelfrightError, did_you_mean

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


AlertSeverity = Literal["page", "ticket"]
BudgetingMethod = Literal["occurrences", "timeslices", "ratio_timeslices"]
WindowKind = Literal["rolling", "calendar"]


@dataclass(frozen=True, slots=True)
class WindowReport:
    """An objective over one of its windows.

    Attributes:
        name: ``"30d"`` or ``"month"``.
        kind: rolling or calendar.
        starts_at, ends_at: unix seconds; a rolling window has no end.
        good, total: what was counted: events, or slices; a fraction where ratios are counted.
        sli, error_budget_remaining: percent, or None without data.
        status: the verdict on these counts alone.
    """

    name: str
    kind: WindowKind
    starts_at: float
    ends_at: float | None
    good: float
    total: float
    sli: float | None
    error_budget_remaining: float | None
    status: SLOStatus


@dataclass(frozen=True, slots=True)
class BurnAlertState:
    """A row of an objective's burn-rate table that is pending or fires.

    Attributes:
        window: its long window (``"1h"``), which with the severity names the row.
        factor: burn rate at which it fires.
        burn_rate: as last evaluated over the long window, None once that holds no data.
        since: unix seconds at which the state began.
    """

    objective: str
    service: str | None
    severity: AlertSeverity
    state: Literal["pending", "firing"]
    window: str
    factor: float
    burn_rate: float | None
    since: float


@dataclass(frozen=True, slots=True)
class MemberReport:
    """A part of a composite objective: its weight, and its SLI (percent) over the composite's first window."""

    name: str
    weight: float
    sli: float | None


@dataclass(frozen=True, slots=True)
class ObjectiveReport:
    """An objective as it stands now, over all its windows.

    Attributes:
        service: the service it belongs to, if any.
        objective: percent that must be good.
        status, sli, error_budget_remaining: of the first window; the status also by alerts and no-data policy.
        burn_rates: burn rate by window name (``"1h"``); a window without data is absent.
        value: the newest sample, in its own unit; None where there is none.
        windows: every window, the first first.
        projected_exhaustion_s: seconds until the budget of the first window is spent if it burns on as in the last
            hour (or in the first window, when that is shorter), at steady traffic; 0 when spent, None without data
            and when the window passes before.
        alerts: the rows of the burn-rate table that are pending or fire.
        members: the parts of a composite.
    """

    name: str
    description: str
    service: str | None
    objective: float
    method: BudgetingMethod
    status: SLOStatus
    sli: float | None
    error_budget_remaining: float | None
    burn_rates: Mapping[str, float]
    value: float | None
    windows: tuple[WindowReport, ...]
    projected_exhaustion_s: float | None = None
    alerts: tuple[BurnAlertState, ...] = ()
    members: tuple[MemberReport, ...] = ()


class UnknownObjectiveError(SelfrightError, KeyError):
    """No objective of this name is defined."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"no objective named {name!r}{did_you_mean(name, names)}; known: {', '.join(names) or 'none'}")

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0])


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


def burn_rate(objective: float, good: float, total: float) -> float | None:
    """Return the observed bad share over the allowed one, or None without data."""
    return (total - good) * 100 / (_allowed(objective) * total) if total else None


@lru_cache(maxsize=1024)  # asked for each window of each report, and rounding is dear
def _allowed(objective: float) -> float:
    """Return the percentage that may be bad."""
    # 100 - 99.99 is 0.010000000000005; the rounding makes "exactly spent" come out as exactly 1.
    return round(100 - objective, 9)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What counts say: ``sli`` and ``error_budget_remaining`` in percent, None without data."""

    sli: float | None
    error_budget_remaining: float | None
    status: SLOStatus


_NO_DATA = Verdict(None, None, SLOStatus.NO_DATA)


def judge(objective: float, good: float, total: float, *, alerting: bool = False) -> Verdict:
    """Judge the counts of a whole window: the one place where an SLOStatus is decided.

    ``alerting`` says that a burn-rate alert fires.
    """
    burn = burn_rate(objective, good, total)
    if burn is None:
        return _NO_DATA
    left = round(100 * (1 - burn), 9)
    if left <= 0:
        status = SLOStatus.VIOLATED
    else:
        status = SLOStatus.AT_RISK if alerting or left < AT_RISK_BELOW else SLOStatus.MET
    return Verdict(100 * good / total, left, status)


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
    """Report on ``counts`` (good, total) of the whole window. ``alerting`` says that a burn-rate alert fires."""
    good, total = counts
    verdict = judge(objective, good, total, alerting=alerting)
    return SLOReport(
        name=name,
        objective=objective,
        window_s=window_s,
        good=good,
        total=total,
        sli=verdict.sli,
        error_budget_remaining=verdict.error_budget_remaining,
        status=verdict.status,
        burn_rates=burn_rates or {},
        value=value,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
