"""What an objective says: over each window, in burn rates, in alerts, and as one status.

Pure but for the counts that it reads: what becomes of them is decided here, and told by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from backend.shared.monitoring.burn import WINDOWS, AlertRows, BurnAlert, Change, alert_table, burns, window_name
from backend.shared.monitoring.composite import Source
from backend.shared.monitoring.settings import (
    AlertingSettings,
    AnyWindow,
    CompositeIndicatorSettings,
    ObjectiveSettings,
    OccurrencesSettings,
    RollingWindowSettings,
)
from modules.contracts.clock import Clock
from modules.contracts.errors import ConfigurationError
from modules.contracts.slo import (
    BurnAlertState,
    MemberReport,
    ObjectiveReport,
    SLOStatus,
    Verdict,
    WindowReport,
    burn_rate,
    check_objective,
    judge,
)

PROJECTED_FROM_S = 3600.0
"""Exhaustion is projected from the burn rate over the last hour."""
_ROUNDING = 1e-6


@lru_cache(maxsize=1024)  # the tables are few, the objectives many
def _reported(table: tuple[BurnAlert, ...], period_s: float) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return names and lengths of the windows whose burn rates are reported, shortest first."""
    lengths = {length for length in WINDOWS.values() if length <= period_s}
    lengths |= {length for alert in table for length in (alert.short_s, alert.long_s)}
    return tuple(window_name(length) for length in sorted(lengths)), tuple(sorted(lengths))


@lru_cache(maxsize=1024)  # the same
def _window_names(windows: tuple[AnyWindow, ...]) -> tuple[str, ...]:
    """Return what the windows are called: ``"30d"``, ``"month"``, and ``"month Asia/Tokyo"`` beside another month."""
    names = [window_name(w.length_s) if isinstance(w, RollingWindowSettings) else w.unit for w in windows]
    return tuple(
        name if isinstance(w, RollingWindowSettings) or names.count(name) == 1 else f"{name} {w.time_zone}"
        for name, w in zip(names, windows, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What an objective's settings come to.

    ``names`` are those of its windows, ``reported`` names and lengths of the windows whose burn rates are reported,
    and ``longest_s`` is the longest rolling window that must be read.
    """

    names: tuple[str, ...]
    table: tuple[BurnAlert, ...]
    reported: tuple[tuple[str, ...], tuple[float, ...]]
    period_s: float
    longest_s: float


def terms_of(name: str, settings: ObjectiveSettings, alerting: AlertingSettings) -> Terms:
    """Check an objective beyond what its settings model does. Raises ConfigurationError that names the rule."""
    lengths = [window.length_s for window in settings.windows]
    for length in lengths:
        check_objective(name, settings.objective, length)
    names = _window_names(settings.windows)
    for window in names:
        if names.count(window) > 1:
            raise ConfigurationError(f"objective {name}: its window {window!r} is there twice; remove one of them")
    method = settings.method
    if not isinstance(method, OccurrencesSettings):
        if isinstance(settings.indicator, CompositeIndicatorSettings):
            raise ConfigurationError(
                f"objective {name}: found method {method.kind} on a composite, which has no events of its own;"
                " give the method to its members and leave it out here"
            )
        if method.slice_s > min(lengths):
            raise ConfigurationError(
                f"objective {name}: slices of {method.slice_s:g} s do not fit into its window {names[0]!r} of"
                f" {min(lengths):g} s; make slice_s smaller"
            )
    table = alert_table(name, alerting, settings.objective, lengths[0])
    rolling = [window.length_s for window in settings.windows if isinstance(window, RollingWindowSettings)]
    reported = _reported(table, lengths[0])
    return Terms(names, table, reported, lengths[0], longest_s=max([*rolling, *reported[1]]))


class Evaluation:
    """One objective: its promise, its counts and the states of its alerts."""

    __slots__ = (
        "_clock",
        "_kept",
        "_min_bad",
        "_source",
        "description",
        "members",
        "name",
        "rows",
        "service",
        "settings",
        "status",
        "terms",
    )  # fmt: skip  a table of names

    def __init__(
        self, name: str, settings: ObjectiveSettings, terms: Terms, alerting: AlertingSettings, clock: Clock
    ) -> None:
        self.name = name
        self.settings = settings
        self.terms = terms
        self.service = settings.service or getattr(settings.indicator, "service", None)
        self.rows = AlertRows(alerting.pending_s, alerting.resolve_s)
        self.status = SLOStatus.NO_DATA
        self.members: Sequence[tuple[str, float, Source]] = ()
        self._min_bad = alerting.low_traffic.min_bad_events
        self._clock = clock
        self._kept = SLOStatus.NO_DATA
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        """Where the counts come from. A composite has one once its members are known."""
        if self._source is None:
            raise ConfigurationError(f"composite objective {self.name} is asked before its members are known")
        return self._source

    @source.setter
    def source(self, source: Source) -> None:
        self._source = source

    def evaluate(self) -> tuple[Sequence[Change], Verdict, SLOStatus]:
        """Move the alerts on, and return what changed of them, the verdict, and the status that was before."""
        changes = self.rows.update(self._clock.monotonic(), list(self._holding()))
        verdict = self._verdict(*self._counts(self.settings.windows[0])[:2])
        previous, self.status = self.status, verdict.status
        return changes, verdict, previous

    def burn_over(self, window_s: float) -> float | None:
        """Return the burn rate over the last ``window_s`` seconds, None without data."""
        return burn_rate(self.settings.objective, *self.source.read(window_s))

    def alerts(self) -> tuple[BurnAlertState, ...]:
        """Return the rows that are pending or fire."""
        steady_to_wall = self._clock.time() - self._clock.monotonic()
        return tuple(
            BurnAlertState(
                objective=self.name,
                service=self.service,
                severity=alert.severity,
                state=state,
                window=alert.window,
                factor=alert.factor,
                burn_rate=self.burn_over(alert.long_s),
                since=since + steady_to_wall,
            )
            for alert, state, since in self.rows.active
        )

    def report(self) -> ObjectiveReport:
        """Return the objective as it stands now."""
        settings, source = self.settings, self.source
        windows = tuple(self._windows())
        first = windows[0]
        verdict = self._verdict(first.good, first.total)
        names, lengths = self.terms.reported
        rates: dict[str, float] = {}
        for name, counts in zip(names, source.read_all(lengths), strict=True):
            rate = burn_rate(settings.objective, *counts)
            if rate is not None:
                rates[name] = rate
        return ObjectiveReport(
            name=self.name,
            description=settings.description,
            service=self.service,
            objective=settings.objective,
            method=settings.method.kind,
            status=verdict.status,
            sli=verdict.sli,
            error_budget_remaining=verdict.error_budget_remaining,
            burn_rates=rates,
            value=source.value,
            windows=windows,
            projected_exhaustion_s=self._exhaustion(first),
            alerts=self.alerts() if self.rows.active else (),
            members=tuple(self._members()),
        )

    def _holding(self) -> Iterator[BurnAlert]:
        source, objective = self.source, self.settings.objective
        for alert in self.terms.table:
            long = source.read(alert.long_s)
            if (
                long[0] < long[1]
                and burns(alert, objective, long, source.read(alert.short_s))
                and source.bad_events(alert.long_s) >= self._min_bad - _ROUNDING
            ):
                yield alert

    def _counts(self, window: AnyWindow) -> tuple[float, float, float, float | None]:
        """Return (good, total, beginning, end or None) of a window."""
        if isinstance(window, RollingWindowSettings):
            length = window.length_s
            return *self.source.read(length), self._clock.time() - length, None
        return self.source.read_calendar((window.unit, window.time_zone))

    def _windows(self) -> Iterator[WindowReport]:
        settings = self.settings
        for name, window in zip(self.terms.names, settings.windows, strict=True):
            good, total, starts_at, ends_at = self._counts(window)
            verdict = judge(settings.objective, good, total)
            yield WindowReport(
                name=name,
                kind=window.kind,
                starts_at=starts_at,
                ends_at=ends_at,
                good=good,
                total=total,
                sli=verdict.sli,
                error_budget_remaining=verdict.error_budget_remaining,
                status=verdict.status,
            )

    def _verdict(self, good: float, total: float) -> Verdict:
        """Judge the first window, by the no-data policy where it holds nothing.

        What is kept is a warning or a violation: silence does not end it. Being met is not kept: silence is not
        green.
        """
        verdict = judge(self.settings.objective, good, total, alerting=self.rows.firing)
        if verdict.status is not SLOStatus.NO_DATA:
            self._kept = SLOStatus.NO_DATA if verdict.status is SLOStatus.MET else verdict.status
            return verdict
        match self.settings.no_data:
            case "violated":
                return Verdict(None, None, SLOStatus.VIOLATED)
            case "keep":
                return Verdict(None, None, self._kept)
            case "unknown":
                return verdict

    def _exhaustion(self, first: WindowReport) -> float | None:
        if first.error_budget_remaining is None:
            return None
        if first.error_budget_remaining <= 0:
            return 0.0
        rate = self.burn_over(min(PROJECTED_FROM_S, self.terms.period_s))
        if not rate:
            return None
        # By definition the whole budget lasts one period at a burn rate of 1.
        period = self.terms.period_s if first.ends_at is None else first.ends_at - first.starts_at
        left = period if first.ends_at is None else first.ends_at - self._clock.time()
        seconds = first.error_budget_remaining / 100 * period / rate
        return seconds if seconds <= left else None

    def _members(self) -> Iterator[MemberReport]:
        window = self.settings.windows[0]
        for name, weight, source in self.members:
            if isinstance(window, RollingWindowSettings):
                good, total = source.read(window.length_s)
            else:
                good, total, _, _ = source.read_calendar((window.unit, window.time_zone))
            yield MemberReport(name, weight, 100 * good / total if total else None)
