"""Metrics over prometheus-client, in a registry of their own, exposed as Prometheus text or OpenMetrics.

prometheus-client counts and exposes; naming, caps and objectives are those of every collector. Gauges of the
objectives are computed when they are scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from backend.shared.monitoring.objectives import Objective
from modules.contracts import collector as contract
from modules.contracts.catalog import BUCKETS, MAX_SERIES, Family
from modules.contracts.clock import Clock
from modules.contracts.slo import TrackerFactory


class _Series:
    """A prometheus-client child, and the value that it cannot be asked for."""

    __slots__ = ("_adds", "_record", "value")

    def __init__(self, child: Counter | Gauge | Histogram) -> None:
        self._adds = isinstance(child, Counter)
        self._record: Callable[[float], None]
        if isinstance(child, Counter):
            self._record = child.inc
        else:
            self._record = child.set if isinstance(child, Gauge) else child.observe
        self.value: float | None = None

    def record(self, value: float) -> None:
        self._record(value)
        self.value = (self.value or 0.0) + value if self._adds else value


class PrometheusCollector(contract.SeriesCollector[_Series]):
    """A ``MetricsCollector``; see there for names, units and errors.

    ``new_tracker`` counts for the objectives, an ``Objective`` when not given. ``process_metrics`` adds memory,
    CPU and descriptors of this process and its Python version, under the names that are customary for them.
    A metric has at most ``max_series`` series; further label values are counted as ``"other"``.
    """

    def __init__(
        self,
        prefix: str = "selfright",
        *,
        clock: Clock,
        new_tracker: TrackerFactory | None = None,
        process_metrics: bool = True,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._registry = CollectorRegistry()
        if process_metrics:
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
        taken = {name for family in self._registry.collect() for name in (family.name, *_sample_names(family))}
        tracker = new_tracker or partial(Objective, clock=clock)
        super().__init__(prefix, tracker, max_series=max_series, reserved=taken)
        self._registry.register(_ObjectiveGauges(self))
        self._parents: dict[str, Counter | Gauge | Histogram] = {}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition: OpenMetrics where ``accept`` asks for it, else Prometheus text 0.0.4."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _new_series(self, family: Family[_Series], label_values: tuple[str, ...]) -> _Series:
        parent = self._parents.get(family.name)
        if parent is None:
            parent = self._parents[family.name] = self._new_parent(family)
        return _Series(parent.labels(*label_values) if label_values else parent)

    def _new_parent(self, family: Family[_Series]) -> Counter | Gauge | Histogram:
        # prometheus-client puts the unit behind "_total" unless it is given the name without it.
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        if family.kind == "counter":
            return Counter(name, family.help, family.label_names, unit=family.unit, registry=self._registry)
        if family.kind == "gauge":
            return Gauge(name, family.help, family.label_names, unit=family.unit, registry=self._registry)
        return Histogram(
            name, family.help, family.label_names, unit=family.unit, registry=self._registry, buckets=BUCKETS
        )


class _ObjectiveGauges(Collector):
    def __init__(self, collector: PrometheusCollector) -> None:
        self._collector = collector

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name nothing ahead: the catalog holds these names free."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge in self._collector.slo_gauges():
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=list(gauge.samples[0][0]))
            for labels, value in gauge.samples:
                family.add_metric(list(labels.values()), value)
            yield family


def _sample_names(family: Metric) -> Iterator[str]:
    return (sample.name for sample in family.samples)
