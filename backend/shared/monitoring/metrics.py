"""Metrics over prometheus-client, in a registry of their own, exposed as Prometheus text or OpenMetrics.

prometheus-client counts and exposes; naming, caps, objectives and observers are those of every collector. Gauges of
objectives and of further sources are computed when they are scraped. With ``multiprocess_dir`` the numbers of several
workers are added up (``multiprocess``), and exemplars are joined to them as they are exposed (``exemplars``).
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from backend.shared.monitoring.exemplars import Exemplars
from backend.shared.monitoring.multiprocess import Cell, WorkerFiles
from backend.shared.monitoring.objectives import Objective
from modules.contracts import collector as contract
from modules.contracts.catalog import BOUNDS, BUCKETS, MAX_SERIES, Family
from modules.contracts.clock import Clock
from modules.contracts.slo import TrackerFactory

_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")


class _Series(Protocol):
    """A series that knows where it belongs, so that an exemplar finds it again."""

    family: Family[_Series]
    labels: tuple[str, ...]

    @property
    def value(self) -> float | None: ...

    def record(self, value: float) -> None: ...


class _OwnSeries:
    """A prometheus-client child, and the value that it cannot be asked for."""

    __slots__ = ("_adds", "_record", "family", "labels", "value")

    def __init__(self, child: Counter | Gauge | Histogram, family: Family[_Series], labels: tuple[str, ...]) -> None:
        self.family = family
        self.labels = labels
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


class _SharedSeries:
    """A series in this worker's files; ``value`` is this worker's own."""

    __slots__ = ("_buckets", "_cell", "_clock", "_last", "family", "labels")

    def __init__(self, files: WorkerFiles, family: Family[_Series], labels: tuple[str, ...], clock: Clock) -> None:
        self.family = family
        self.labels = labels
        self._clock = clock
        self._last: float | None = None
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        kind = f"gauge_live{family.gauge_mode}" if family.kind == "gauge" else family.kind
        help = f"{family.unit} {family.help}"  # the files have no place for the unit, which never holds a space
        names = family.label_names
        sample = f"{name}_sum" if family.kind == "histogram" else family.name
        self._cell: Cell = files.cell(kind, name, sample, (names, labels), help)
        self._buckets = [
            files.cell(kind, name, f"{name}_bucket", ((*names, "le"), (*labels, bound)), help)
            for bound in (BOUNDS if family.kind == "histogram" else ())
        ]

    @property
    def value(self) -> float | None:
        return self._cell.value if self.family.kind == "counter" else self._last

    def record(self, value: float) -> None:
        self._last = value
        if self.family.kind == "gauge":
            self._cell.set(value, self._clock.time())
            return
        self._cell.add(value)
        if self._buckets:
            self._buckets[bisect_left(BUCKETS, value)].add(1)


class PrometheusCollector(contract.SeriesCollector[_Series]):
    """A ``MetricsCollector``; see there for names, units and errors.

    ``new_tracker`` counts for the objectives, an ``Objective`` when not given. ``process_metrics`` adds memory,
    CPU and descriptors of this process and its Python version, under the names that are customary for them.
    A metric has at most ``max_series`` series; further label values are counted as ``"other"``.

    With ``multiprocess_dir`` this process is one of several workers that share the directory, and each exposes the
    sum of all: counters and histograms added up, gauges by their ``gauge_mode`` while their worker lives. What is
    computed at exposition, objectives among it, and exemplars are those of the worker that is asked, and
    there are no process metrics. ``close`` ends that; being killed is as good.
    """

    def __init__(
        self,
        prefix: str = "selfright",
        *,
        clock: Clock,
        new_tracker: TrackerFactory | None = None,
        process_metrics: bool = True,
        max_series: int = MAX_SERIES,
        multiprocess_dir: str | Path | None = None,
    ) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        if process_metrics:  # with workers they are not exposed, but their names stay taken
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
        taken = {name for family in self._registry.collect() for name in (family.name, *_sample_names(family))}
        super().__init__(
            prefix,
            new_tracker or partial(Objective, clock=clock),
            max_series=max_series,
            reserved=taken,
            reserved_labels=() if multiprocess_dir is None else ("pid",),  # which tells workers apart
        )
        self._parents: dict[str, Counter | Gauge | Histogram] = {}
        self._exemplars = Exemplars(clock)
        self._files: WorkerFiles | None = None
        if multiprocess_dir is not None:
            self._files = WorkerFiles(multiprocess_dir, max_series=max_series)
            weakref.finalize(self, self._files.close)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition: OpenMetrics 1.0 where ``accept`` prefers it, else Prometheus text 0.0.4.

        Raises StateError when the files of several workers cannot be read.
        """
        encode, content_type = choose_encoder(_OPENMETRICS if _prefers_openmetrics(accept) else "")
        return encode(_Exposition(self._metrics)), content_type

    def close(self) -> None:
        """Leave the other workers, of which there may be none. Safe twice; nothing is recorded afterwards."""
        if self._files is not None:
            self._files.close()

    def _metrics(self) -> Iterator[Metric]:
        recorded = self._registry.collect() if self._files is None else map(_with_unit, self._files.collect())
        yield from self._exemplars.attach(recorded)
        for gauge in self.computed_gauges():
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=list(gauge.samples[0][0]))
            for labels, value in gauge.samples:
                family.add_metric([labels[name] for name in gauge.samples[0][0]], value)
            yield family

    def _keep_exemplar(self, series: _Series, value: float, exemplar: Mapping[str, str]) -> None:
        self._exemplars.keep(series.family, series.labels, value, exemplar)

    def _new_series(self, family: Family[_Series], label_values: tuple[str, ...]) -> _Series:
        if self._files is not None:
            return _SharedSeries(self._files, family, label_values, self._clock)
        parent = self._parents.get(family.name)
        if parent is None:
            parent = self._parents[family.name] = self._new_parent(family)
        return _OwnSeries(parent.labels(*label_values) if label_values else parent, family, label_values)

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


class _Exposition(CollectorRegistry):
    """What an encoder asks for its metrics."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()


def _with_unit(metric: Metric) -> Metric:
    metric.unit, _, metric.documentation = metric.documentation.partition(" ")
    return metric


def _prefers_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header (RFC 9110, 12.5.1) names OpenMetrics, and nothing that serves as text before it."""
    openmetrics = text = 0.0
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        given = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in parameters)}
        try:
            weight = float(given.get("q", "1"))
        except ValueError:
            continue
        if media == _OPENMETRICS and given.get("version", "") in _OPENMETRICS_VERSIONS:
            openmetrics = max(openmetrics, weight)
        elif media in ("text/plain", "text/*", "*/*"):
            text = max(text, weight)
    return openmetrics > 0 and openmetrics >= text


def _sample_names(family: Metric) -> Iterator[str]:
    return (sample.name for sample in family.samples)
