"""Metrics without the backend: counters, gauges and histograms, exposed as Prometheus text 0.0.4.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from math import isfinite, isnan

from modules.contracts.catalog import BOUNDS, BUCKETS, MAX_SERIES, Family
from modules.contracts.clock import Clock
from modules.contracts.collector import SeriesCollector
from modules.contracts.metrics import MetricKind
from modules.local.slo import LocalObjective

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Series:
    """One series: a number, and for a histogram the observations by bucket (the last one is +Inf) and their sum."""

    __slots__ = ("_adds", "counts", "sum", "value")

    def __init__(self, kind: MetricKind) -> None:
        self._adds = kind == "counter"
        self.counts = [0] * (len(BUCKETS) + 1) if kind == "histogram" else []
        self.sum = 0.0
        self.value: float | None = None

    def record(self, value: float) -> None:
        if self.counts:
            self.counts[bisect_left(BUCKETS, value)] += 1
            self.sum += value
        self.value = (self.value or 0.0) + value if self._adds else value


class LocalCollector(SeriesCollector[_Series]):
    """A ``MetricsCollector`` of the standard library alone; see there for names, units and errors.

    A metric has at most ``max_series`` series; further label values are counted as ``"other"``.
    """

    def __init__(self, prefix: str = "selfright", *, clock: Clock, max_series: int = MAX_SERIES) -> None:
        super().__init__(prefix, partial(LocalObjective, clock=clock), max_series=max_series)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type, which is the same whatever ``accept`` asks for.

        It has no place for exemplars: they are checked as everywhere, and not kept.
        """
        lines: list[str] = []
        for family in self._catalog.families:
            lines += _head(family.name, family.help, family.kind)
            for values, series in family.series.items():
                lines += _samples(family, dict(zip(family.label_names, values, strict=True)), series)
        for gauge in self.computed_gauges():
            lines += _head(gauge.name, gauge.help, "gauge")
            lines += (_sample(gauge.name, labels, value) for labels, value in gauge.samples)
        return "".join(f"{line}\n" for line in lines).encode(), CONTENT_TYPE

    def _new_series(self, family: Family[_Series], label_values: tuple[str, ...]) -> _Series:
        return _Series(family.kind)


def _head(name: str, help: str, kind: MetricKind) -> Iterator[str]:
    escaped = help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {escaped}"
    yield f"# TYPE {name} {kind}"


def _samples(family: Family[_Series], labels: Mapping[str, str], series: _Series) -> Iterator[str]:
    if family.kind != "histogram":
        yield _sample(family.name, labels, series.value or 0.0)
        return
    for bound, count in zip(BOUNDS, accumulate(series.counts), strict=True):
        yield _sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    yield _sample(f"{family.name}_count", labels, sum(series.counts))
    yield _sample(f"{family.name}_sum", labels, series.sum)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"
