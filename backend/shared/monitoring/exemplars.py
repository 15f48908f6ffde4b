"""Exemplars: from a number to one request behind it, by its trace id.

The newest exemplar of each counter and of each bucket of a histogram is kept beside its metric, dated by the clock
that was handed in, and joined to the samples as they are exposed (OpenMetrics 1.0, "Exemplars"). So it works alike
whether the samples are this process's own or the sum of several workers, whose files have no place for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Exemplar, Metric

from modules.contracts.catalog import BOUNDS, BUCKETS, Family, exposable
from modules.contracts.clock import Clock

_Key = tuple[str, frozenset[tuple[str, str]]]


class Exemplars:
    """The newest exemplars of one collector, by metric and sample. They were checked when they were recorded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._newest: dict[str, dict[_Key, Exemplar]] = {}

    def keep(
        self, family: Family[Any], label_values: tuple[str, ...], value: float, exemplar: Mapping[str, str]
    ) -> None:
        """Keep the exemplar of a value that was recorded into the series with these label values."""
        labels = list(zip(family.label_names, label_values, strict=True))
        if family.kind == "histogram":
            sample = f"{family.name}_bucket"
            labels.append(("le", BOUNDS[bisect_left(BUCKETS, value)]))
        else:
            sample = family.name
        text = {label: exposable(content) for label, content in exemplar.items()}
        of_family = self._newest.setdefault(family.name.removesuffix("_total"), {})
        of_family[sample, frozenset(labels)] = Exemplar(text, value, self._clock.time())

    def attach(self, metrics: Iterable[Metric]) -> Iterator[Metric]:
        """Pass the metrics on, with its exemplar beside each sample that has one."""
        for metric in metrics:
            newest = self._newest.get(metric.name)
            if newest:
                metric.samples = [
                    sample._replace(exemplar=newest.get((sample.name, frozenset(sample.labels.items()))))
                    for sample in metric.samples
                ]
            yield metric
