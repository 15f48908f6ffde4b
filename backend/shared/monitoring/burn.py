"""When is the error budget spent too fast? Multi-window, multi-burn-rate alerts.

From the Google SRE workbook, chapter 5: an alert fires while the budget burns at its factor over a long
window (enough is spent to matter) and over a short one, a twelfth as long (it is still being spent). The
factor follows from the share of the budget that may go in the long window: share x period / long window.

Two additions for services with little traffic: fewer than ``MIN_BAD_EVENTS`` bad events never fire, however
large their share is; and a short window without events is no sign of recovery, so the long one decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from modules.contracts.slo import burn_rate

Severity = Literal["page", "ticket"]

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0

WINDOWS: Mapping[str, float] = {
    "5m": 5 * MINUTE_S,
    "30m": 30 * MINUTE_S,
    "1h": HOUR_S,
    "2h": 2 * HOUR_S,
    "6h": 6 * HOUR_S,
    "1d": DAY_S,
    "3d": 3 * DAY_S,
}
"""The windows, in seconds, over which burn rates are reported: the long and short ones of all alerts."""

BUDGET_SHARES: tuple[tuple[Severity, float, float], ...] = (
    ("page", HOUR_S, 0.02),
    ("page", 6 * HOUR_S, 0.05),
    ("ticket", DAY_S, 0.10),
    ("ticket", 3 * DAY_S, 0.10),
)
"""(severity, long window in seconds, share of the budget that may be spent in it)."""

SHORT_OF_LONG = 12
MIN_FACTOR = 0.9
"""A slower burn than this leaves budget over at the end of the period. (28 days give 0.93 for three days.)"""
MIN_BAD_EVENTS = 3
"""One failure at ten requests an hour is no outage."""


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """Fires while the burn rate is at least ``factor`` over both windows (seconds)."""

    severity: Severity
    long_s: float
    short_s: float
    factor: float


def burn_alerts(objective: float, period_s: float) -> tuple[BurnAlert, ...]:
    """Return the alerts of an objective (percent) over a period (seconds).

    Left out are those that can never fire, as even a full outage burns only 1 / (1 - objective), and those
    whose factor says nothing, as the period is not much longer than their window.
    """
    highest = burn_rate(objective, good=0, total=1) or 0.0
    return tuple(
        BurnAlert(severity, long_s, long_s / SHORT_OF_LONG, factor)
        for severity, long_s, share in BUDGET_SHARES
        if MIN_FACTOR <= (factor := share * period_s / long_s) <= highest
    )


def alerts_firing(
    alerts: Iterable[BurnAlert], objective: float, counts: Mapping[float, tuple[int, int]]
) -> tuple[BurnAlert, ...]:
    """Return those of ``alerts`` that fire, given (good, total) by window length in seconds."""
    return tuple(alert for alert in alerts if _fires(alert, objective, counts))


def _fires(alert: BurnAlert, objective: float, counts: Mapping[float, tuple[int, int]]) -> bool:
    good, total = counts[alert.long_s]
    long_burn = burn_rate(objective, good, total)
    if long_burn is None or long_burn < alert.factor or total - good < MIN_BAD_EVENTS:
        return False
    short_burn = burn_rate(objective, *counts[alert.short_s])
    return short_burn is None or short_burn >= alert.factor
