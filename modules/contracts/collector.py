"""What every metrics collector does alike: its catalog of series, the objectives on its samples, its observers.

An implementation adds how a series is kept and how all of them are exposed.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import ge, gt, le, lt
from typing import Any, Generic

from modules.contracts.catalog import NAME, Family, MetricCatalog, S
from modules.contracts.errors import ConfigurationError
from modules.contracts.gauges import OBJECTIVE_GAUGES, SLO_GAUGES, slo_gauges
from modules.contracts.metrics import Comparison, Gauge, GaugeMode, GaugeSource, MetricKind, Observer
from modules.contracts.slo import SLOReport, SLOTracker, TrackerFactory

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<=": le, "<": lt, ">=": ge, ">": gt}
_NO_LABELS: Mapping[str, str] = {}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ThresholdSLO:
    """The promise that ``objective`` percent of ``metric``'s samples satisfy ``value <comparison> threshold``."""

    name: str
    threshold: float
    metric: str
    comparison: Comparison
    window_minutes: float
    objective: float


class SeriesCollector(ABC, Generic[S]):
    """A ``MetricsCollector``. Objectives count the samples of a metric over all its labels, from their definition on.

    ``new_tracker(name, objective=, window_s=)`` makes what counts them. To be used from one thread.
    """

    def __init__(
        self,
        prefix: str,
        new_tracker: TrackerFactory,
        *,
        max_series: int,
        reserved: Iterable[str] = (),
        reserved_labels: Iterable[str] = (),
    ) -> None:
        taken = (*reserved, *(f"{prefix}_{name}" for name in (*SLO_GAUGES, *OBJECTIVE_GAUGES)))
        self._catalog: MetricCatalog[S] = MetricCatalog(
            prefix,
            self._new_series,
            reserved=taken,
            reserved_labels=tuple(reserved_labels),
            max_series=max_series,
        )
        self._new_tracker = new_tracker
        self._slos: dict[str, tuple[ThresholdSLO, SLOTracker]] = {}
        self._watching: dict[str, list[tuple[Callable[[float, float], bool], float, SLOTracker]]] = {}
        self._observers: tuple[Observer, ...] = ()
        self._gauge_sources: list[GaugeSource] = []
        self._faults: dict[object, str] = {}

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
        exemplar: Mapping[str, str] | None = None,
        gauge_mode: GaugeMode = "all",
    ) -> None:
        """Record one value: observed (histogram), added (counter) or set (gauge).

        Raises ConfigurationError, and records nothing, when a name, number or exemplar cannot be used, or when the
        metric was recorded with another kind, unit, mode or set of labels before.
        """
        series = self._catalog.series(
            name, value, labels, kind=kind, unit=unit, help=help, gauge_mode=gauge_mode, exemplar=exemplar
        )
        series.record(value)
        if exemplar:
            self._keep_exemplar(series, value, exemplar)
        for satisfies, threshold, tracker in self._watching.get(name, ()):
            tracker.record(satisfies(value, threshold), value=value)
        for observer in self._observers:
            try:
                observer(name, value, labels or _NO_LABELS)
            except Exception as error:  # who records must not pay for who listens
                self._log_fault(id(observer), f"an observer failed on the metric {name}", error)

    def add_observer(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer(name, value, labels)`` after each sample that was recorded; the result ends that.

        The value of a counter is what was added. An observer that raises is logged, and the others still hear.
        """
        self._observers = (*self._observers, observer)

        def end() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)

        return end

    def add_gauges(self, source: GaugeSource) -> None:
        """Ask ``source`` for further gauges at each exposition. One that raises is logged and left out of it."""
        self._gauge_sources.append(source)

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

    def computed_gauges(self) -> list[Gauge]:
        """Return the gauges that are computed now, each name once: those of the objectives, then of each source."""
        families: dict[str, Gauge] = {gauge.name: gauge for gauge in slo_gauges(self.prefix, self._reports())}
        for source in self._gauge_sources:
            try:
                gauges = list(source())
            except Exception as error:  # the rest of the exposition is worth having
                self._log_fault(id(source), "a source of gauges failed and is left out", error)
                continue
            for gauge in gauges:
                known = families.get(gauge.name)
                if not gauge.samples or self._refused(gauge, known):
                    continue
                samples = gauge.samples if known is None else (*known.samples, *gauge.samples)
                families[gauge.name] = Gauge(gauge.name, gauge.help, samples)
        return list(families.values())

    def _refused(self, gauge: Gauge, known: Gauge | None) -> bool:
        """Whether a gauge would make the exposition one that cannot be read, which is logged."""
        names = [set(labels) for labels, _ in (known or gauge).samples[:1]]
        reason = ""
        if not NAME.fullmatch(gauge.name):
            reason = "no metric can have that name"
        elif self._catalog.is_recorded(gauge.name):
            reason = "a recorded metric has that name; choose another"
        elif any(set(labels) not in names for labels, _ in gauge.samples):
            reason = "its samples differ in their label names; give each the same"
        if reason:
            self._log_fault(gauge.name, f"the gauge {gauge.name} is left out", ConfigurationError(reason))
        return bool(reason)

    def _reports(self) -> Iterable[SLOReport]:
        return (tracker.report() for _, tracker in self._slos.values())

    def _keep_exemplar(self, series: S, value: float, exemplar: Mapping[str, str]) -> None:
        """Keep an exemplar for the exposition, where that can show one."""

    def _log_fault(self, whose: object, what: str, error: Exception) -> None:
        """Say it once, until it fails in another way: a log line a sample would be a fault of its own."""
        fault = f"{type(error).__name__}: {error}"
        if self._faults.get(whose) != fault:
            self._faults[whose] = fault
            _log.error("%s: %s", what, fault, exc_info=error)


def _plain(report: SLOReport) -> dict[str, Any]:
    return {**asdict(report), "status": report.status.value, "burn_rates": dict(report.burn_rates)}
