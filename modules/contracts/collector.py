"""What every metrics collector does alike: its catalog of series, and the objectives on its samples.

An implementation adds how a series is kept and how all of them are exposed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import ge, gt, le, lt
from typing import Any, Generic

from modules.contracts.catalog import Family, MetricCatalog, S
from modules.contracts.errors import ConfigurationError
from modules.contracts.metrics import Comparison, MetricKind
from modules.contracts.slo import SLOReport, SLOTracker, TrackerFactory

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<=": le, "<": lt, ">=": ge, ">": gt}
_SLO_GAUGES = {
    "slo_objective_ratio": "Share of good events that is promised.",
    "slo_sli_ratio": "Share of good events in the window of the objective.",
    "slo_error_budget_remaining_ratio": "Share of the error budget that is left; negative when overspent.",
    "slo_burn_rate": "Speed at which the error budget is spent; at 1 it lasts exactly its window.",
}


@dataclass(frozen=True, slots=True)
class ThresholdSLO:
    """The promise that ``objective`` percent of ``metric``'s samples satisfy ``value <comparison> threshold``."""

    name: str
    threshold: float
    metric: str
    comparison: Comparison
    window_minutes: float
    objective: float


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric that is computed when it is asked for: ``samples`` are pairs of labels and value."""

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


class SeriesCollector(ABC, Generic[S]):
    """A ``MetricsCollector``. Objectives count the samples of a metric over all its labels, from their definition on.

    ``new_tracker(name, objective=, window_s=)`` makes what counts them. To be used from one thread.
    """

    def __init__(
        self, prefix: str, new_tracker: TrackerFactory, *, max_series: int, reserved: Iterable[str] = ()
    ) -> None:
        taken = (*reserved, *(f"{prefix}_{name}" for name in _SLO_GAUGES))
        self._catalog: MetricCatalog[S] = MetricCatalog(prefix, self._new_series, reserved=taken, max_series=max_series)
        self._new_tracker = new_tracker
        self._slos: dict[str, tuple[ThresholdSLO, SLOTracker]] = {}
        self._watching: dict[str, list[tuple[Callable[[float, float], bool], float, SLOTracker]]] = {}

    @abstractmethod
    def _new_series(self, family: Family[S], label_values: tuple[str, ...]) -> S:
        """Return where the values of a new series go."""

    @abstractmethod
    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type for an HTTP ``Accept`` header."""

    @property
    def prefix(self) -> str:
        return self._catalog.prefix

    def record_metric(
        self,
        name: str,
        value: float,
        labels: Mapping[str, str] | None = None,
        *,
        kind: MetricKind = "histogram",
        unit: str = "",
        help: str = "",
    ) -> None:
        """Record one value: observed (histogram), added (counter) or set (gauge).

        Raises ConfigurationError, and records nothing, when a name or number cannot be used, or when the metric
        was recorded with another kind, unit or set of labels before.
        """
        self._catalog.record(name, value, labels, kind=kind, unit=unit, help=help)
        for satisfies, threshold, tracker in self._watching.get(name, ()):
            tracker.record(satisfies(value, threshold), value=value)

    def define_slo(
        self,
        name: str,
        threshold: float,
        metric: str,
        comparison: Comparison,
        *,
        window_minutes: float = 60,
        objective: float = 99.0,
    ) -> None:
        """Promise that ``objective`` percent of ``metric``'s samples satisfy ``value <comparison> threshold``.

        The same definition again changes nothing; another one under a known name raises ConfigurationError.
        """
        if comparison not in _COMPARE:
            raise ConfigurationError(
                f"objective {name!r}: found comparison {comparison!r}; allowed: {', '.join(_COMPARE)}"
            )
        for what, number in (("threshold", threshold), ("window_minutes", window_minutes)):
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise ConfigurationError(f"objective {name!r}: {what} must be a finite number, found {number!r}")
        definition = ThresholdSLO(name, threshold, metric, comparison, window_minutes, objective)
        known = self._slos.get(name)
        if known is not None:
            if known[0] != definition:
                raise ConfigurationError(
                    f"objective {name!r} is defined already, as {known[0]}; choose another name for {definition}"
                )
            return
        tracker = self._new_tracker(name, objective=objective, window_s=window_minutes * 60)
        self._slos[name] = (definition, tracker)
        self._watching.setdefault(metric, []).append((_COMPARE[comparison], threshold, tracker))

    def get_slo_status(self) -> Mapping[str, SLOReport]:
        """Return every defined objective by name."""
        return {name: tracker.report() for name, (_, tracker) in self._slos.items()}

    def metric_names(self) -> Sequence[str]:
        """Return the full names that were recorded, sorted."""
        return [family.name for family in self._catalog.families]

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """Return the newest recorded value of a gauge or histogram, the total of a counter, or None."""
        return self._catalog.value(name, labels)

    def export(self) -> dict[str, Any]:
        """Return definitions and values as plain JSON types."""
        return {
            "prefix": self.prefix,
            "slos": {name: asdict(definition) for name, (definition, _) in self._slos.items()},
            "slo_status": {name: _plain(report) for name, report in self.get_slo_status().items()},
            "metrics": {
                family.name: {
                    "kind": family.kind,
                    "unit": family.unit,
                    "help": family.help,
                    "series": [
                        {"labels": dict(zip(family.label_names, values, strict=True)), "value": series.value}
                        for values, series in family.series.items()
                    ],
                }
                for family in self._catalog.families
            },
        }

    def slo_gauges(self) -> list[Gauge]:
        """Return what the objectives say now, for the exposition; those without data say nothing of themselves."""
        samples: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name in _SLO_GAUGES}
        for name, report in self.get_slo_status().items():
            labels = {"slo": name}
            samples["slo_objective_ratio"].append((labels, report.objective / 100))
            if report.sli is not None:
                samples["slo_sli_ratio"].append((labels, report.sli / 100))
            if report.error_budget_remaining is not None:
                left = report.error_budget_remaining / 100
                samples["slo_error_budget_remaining_ratio"].append((labels, left))
            samples["slo_burn_rate"] += (
                ({**labels, "window": window}, rate) for window, rate in report.burn_rates.items()
            )
        return [
            Gauge(f"{self.prefix}_{name}", help, tuple(samples[name]))
            for name, help in _SLO_GAUGES.items()
            if samples[name]
        ]


def _plain(report: SLOReport) -> dict[str, Any]:
    return {**asdict(report), "status": report.status.value, "burn_rates": dict(report.burn_rates)}
