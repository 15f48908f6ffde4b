"""What every export is given: an objective with nothing left open, and the counters that Prometheus scrapes of it.

An objective is exported as a pair of counters, all events and the good or the bad ones, which are counted where the
objective itself is: whatever its indicator and comparison, Prometheus then divides the numbers that the engine divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backend.shared.monitoring.burn import BurnAlert, alert_table
from backend.shared.monitoring.settings import (
    AlertingSettings,
    AnyIndicator,
    AnyMethod,
    AnyWindow,
    HealthIndicatorSettings,
    ObjectiveSettings,
    OccurrencesSettings,
    RollingWindowSettings,
)
from modules.contracts.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Counters:
    """The full names of two counters at /metrics, and the label that picks the objective's series of both.

    ``part`` counts the good events, or the bad ones where ``part_is_bad``: what is counted itself only grows, while
    the rest may shrink for a moment between two counters.
    """

    total: str
    part: str
    label: tuple[str, str]
    part_is_bad: bool = False


@dataclass(frozen=True, slots=True)
class ExportedObjective:
    """An objective. ``objective`` is in percent; the first of ``windows`` is the one that alerts look at."""

    name: str
    service: str | None
    objective: float
    indicator: AnyIndicator
    windows: tuple[AnyWindow, ...]
    method: AnyMethod
    alerting: AlertingSettings
    counters: Counters
    prefix: str
    """Prefix of every metric's full name."""
    description: str = ""

    @property
    def period_s(self) -> float:
        """Length in seconds of the window that alerts look at."""
        return self.windows[0].length_s

    @property
    def burn_alerts(self) -> tuple[BurnAlert, ...]:
        """The rows of the table with their factors, as the engine has them."""
        return alert_table(self.name, self.alerting, self.objective, self.period_s)


@dataclass(frozen=True, slots=True)
class Export:
    """A file's text, and what the format cannot say and is therefore not in it, a sentence each."""

    text: str
    warnings: tuple[str, ...] = ()


def service_objective(
    name: str,
    *,
    latency_ms: float,
    availability: float,
    window_days: float,
    alerting: AlertingSettings,
    counters: Counters,
    prefix: str,
) -> ExportedObjective:
    """Return the objective of a service's checks: ``availability`` percent pass within ``latency_ms``."""
    return ExportedObjective(
        name=name,
        service=name,
        objective=availability,
        indicator=HealthIndicatorSettings(kind="health", service=name, latency_ms=latency_ms),
        windows=(RollingWindowSettings(kind="rolling", days=window_days),),
        method=OccurrencesSettings(kind="occurrences"),
        alerting=alerting,
        counters=counters,
        prefix=prefix,
        description=f"Checks of {name} that pass within {latency_ms:g} ms.",
    )


def declared_objective(
    name: str, settings: ObjectiveSettings, *, alerting: AlertingSettings, counters: Counters, prefix: str
) -> ExportedObjective:
    """Return an objective as it is written; ``alerting`` holds where it has none of its own."""
    indicator = settings.indicator
    of_service = indicator.service if isinstance(indicator, HealthIndicatorSettings) else None
    return ExportedObjective(
        name=name,
        service=settings.service or of_service,
        objective=settings.objective,
        indicator=indicator,
        windows=settings.windows,
        method=settings.method,
        alerting=settings.alerting or alerting,
        counters=counters,
        prefix=prefix,
        description=settings.description,
    )


def by_name(objectives: Iterable[ExportedObjective]) -> Mapping[str, ExportedObjective]:
    """Return the objectives by name, sorted. Raises ConfigurationError where two have the same."""
    known: dict[str, ExportedObjective] = {}
    for objective in sorted(objectives, key=lambda each: each.name):
        if objective.name in known:
            raise ConfigurationError(
                f"two objectives are named {objective.name!r}: services and declared objectives share their names"
                " in every export; rename the one under slo.objectives"
            )
        known[objective.name] = objective
    return known


def window_text(window: AnyWindow) -> str:
    """Say a window in a warning: ``"rolling window of 30 days"``."""
    if isinstance(window, RollingWindowSettings):
        return f"rolling window of {window.days:g} days"
    return f"calendar window ({window.unit}, {window.time_zone})"
