"""When is the error budget spent too fast? Multi-window, multi-burn-rate alerts.

From the Google SRE workbook, chapter 5: an alert fires while the budget burns at its factor over a long
window (enough is spent to matter) and over a short one, a twelfth as long (it is still being spent). The
factor follows from the share of the budget that may go in the long window: share x period / long window.

Two additions for services with little traffic: too few bad events never fire, however large their share is; and a
short window without events is no sign of recovery, so the long one decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from backend.shared.monitoring.settings import AlertingSettings, LowTrafficSettings
from modules.contracts.errors import ConfigurationError
from modules.contracts.slo import AlertSeverity, burn_rate

Severity = AlertSeverity

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
"""The windows, in seconds, over which burn rates are reported: the long and short ones of the workbook's alerts."""

SHORT_OF_LONG = 12
MIN_FACTOR = 0.9
"""A slower burn than this leaves budget over at the end of the period. (28 days give 0.93 for three days.)"""
MIN_BAD_EVENTS = LowTrafficSettings().min_bad_events
"""One failure at ten requests an hour is no outage."""
_UNITS = {"d": DAY_S, "h": HOUR_S, "m": MINUTE_S}


def window_name(length_s: float) -> str:
    """Return ``"30d"``, ``"6h"``, ``"5m"`` or ``"90s"``; within a thousandth of a whole number it is that."""
    for unit, unit_s in _UNITS.items():
        count = round(length_s / unit_s)
        if count and abs(count * unit_s - length_s) <= length_s / 1000:
            return f"{count}{unit}"
    return f"{length_s:g}s"


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """Fires while the burn rate is at least ``factor`` over both windows (seconds)."""

    severity: Severity
    long_s: float
    short_s: float
    factor: float

    @property
    def window(self) -> str:
        """The name of the long window."""
        return window_name(self.long_s)


def burn_alerts(objective: float, period_s: float) -> tuple[BurnAlert, ...]:
    """Return the workbook's alerts of an objective (percent) over a period (seconds).

    Left out are those that can never fire, as even a full outage burns only 1 / (1 - objective), and those
    whose factor says nothing, as the period is not much longer than their window.
    """
    return _workbook(objective, period_s)


@lru_cache(maxsize=1024)  # the tables are few, the objectives many
def _workbook(objective: float, period_s: float) -> tuple[BurnAlert, ...]:
    alerts = _derive(AlertingSettings(), period_s)
    return tuple(alert for alert in alerts if _why_senseless(alert, objective, period_s) is None)


def alert_table(name: str, alerting: AlertingSettings, objective: float, period_s: float) -> tuple[BurnAlert, ...]:
    """Return the alerts of objective ``name`` (percent, over ``period_s`` seconds) that its settings ask for.

    Raises ConfigurationError, with the arithmetic, for a row that was written and cannot do its work; of the table
    that stands by default such rows are left out.
    """
    if "burn_alerts" not in alerting.model_fields_set:
        return burn_alerts(objective, period_s)
    alerts = _derive(alerting, period_s)
    for alert in alerts:
        why = _why_senseless(alert, objective, period_s)
        if why is not None:
            raise ConfigurationError(
                f"burn alert of {name} ({alert.severity} over {alert.window}): {why};"
                " change its budget_share or long_s, or remove the row"
            )
    rows = [(alert.severity, alert.window) for alert in alerts]
    for row in rows:
        if rows.count(row) > 1:
            raise ConfigurationError(
                f"burn alerts of {name}: found {row[0]} over {row[1]} twice; keep the one with the smaller budget_share"
            )
    return alerts


def _derive(alerting: AlertingSettings, period_s: float) -> tuple[BurnAlert, ...]:
    return tuple(
        BurnAlert(row.severity, row.long_s, row.long_s / SHORT_OF_LONG, row.factor(period_s))
        for row in alerting.burn_alerts
    )


def _why_senseless(alert: BurnAlert, objective: float, period_s: float) -> str | None:
    """Say why a row can never fire, or fires when nothing is wrong; None when it makes sense."""
    share = alert.factor * alert.long_s / period_s
    arithmetic = f"its factor is {share:g} x {period_s:g} s / {alert.long_s:g} s = {alert.factor:.4g}"
    highest = burn_rate(objective, good=0, total=1) or 0.0
    if alert.factor > highest:
        return (
            f"it can never fire at an objective of {objective:g} %: {arithmetic}, but a full outage burns at"
            f" 1 / (1 - {objective / 100:g}) = {highest:.4g}"
        )
    if alert.factor < MIN_FACTOR:
        return f"it fires while the budget lasts: {arithmetic}, and a burn rate below 1 spends no budget early"
    return None


def alerts_firing(
    alerts: Iterable[BurnAlert], objective: float, counts: Mapping[float, tuple[float, float]]
) -> tuple[BurnAlert, ...]:
    """Return those of ``alerts`` that fire, given (good, total) by window length in seconds."""
    return tuple(
        alert
        for alert in alerts
        if burns(alert, objective, counts[alert.long_s], counts[alert.short_s])
        and counts[alert.long_s][1] - counts[alert.long_s][0] >= MIN_BAD_EVENTS
    )


def burns(alert: BurnAlert, objective: float, long: tuple[float, float], short: tuple[float, float]) -> bool:
    """Whether both windows, each as (good, total), burn at the alert's factor."""
    long_burn = burn_rate(objective, *long)
    if long_burn is None or long_burn < alert.factor:
        return False
    short_burn = burn_rate(objective, *short)
    return short_burn is None or short_burn >= alert.factor


@dataclass(slots=True)
class _Row:
    state: Literal["pending", "firing"]
    since: float
    held_at: float


@dataclass(frozen=True, slots=True)
class Change:
    """A row's new state."""

    alert: BurnAlert
    state: Literal["pending", "firing", "resolved"]


class AlertRows:
    """The states of one objective's rows: inactive, pending for ``pending_s``, firing until ceased ``resolve_s`` ago.

    Pure: asked with the time (seconds, steady) and the rows that hold. A pending row that ceases resolves at once.
    """

    __slots__ = ("_active", "_pending_s", "_resolve_s")

    def __init__(self, pending_s: float, resolve_s: float) -> None:
        self._pending_s = pending_s
        self._resolve_s = resolve_s
        self._active: dict[BurnAlert, _Row] = {}

    @property
    def firing(self) -> bool:
        """Whether any row fires."""
        return any(row.state == "firing" for row in self._active.values())

    @property
    def active(self) -> list[tuple[BurnAlert, Literal["pending", "firing"], float]]:
        """The rows that are pending or fire, with the steady time since which they do."""
        return [(alert, row.state, row.since) for alert, row in self._active.items()]

    def update(self, now: float, holding: Collection[BurnAlert]) -> Sequence[Change]:
        """Take in which rows hold at ``now`` and return what changed."""
        if not holding and not self._active:
            return ()
        changes: list[Change] = []
        for alert in holding:
            row = self._active.get(alert)
            if row is None:
                row = self._active[alert] = _Row("pending", now, now)
                if self._pending_s:
                    changes.append(Change(alert, "pending"))
            row.held_at = now
            if row.state == "pending" and now - row.since >= self._pending_s:
                row.state, row.since = "firing", now
                changes.append(Change(alert, "firing"))
        for alert, row in list(self._active.items()):
            waits = self._resolve_s if row.state == "firing" else 0
            if alert not in holding and now - row.held_at >= waits:
                del self._active[alert]
                changes.append(Change(alert, "resolved"))
        return changes
