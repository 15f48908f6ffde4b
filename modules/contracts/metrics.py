"""What a metrics collector promises, whichever implementation serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modules.contracts.slo import SLOReport

Comparison = Literal["<=", "<", ">=", ">"]
MetricKind = Literal["gauge", "counter", "histogram"]
GaugeMode = Literal["all", "sum", "min", "max", "mostrecent"]
"""How the gauges of several workers become one: ``all`` keeps each, told apart by a label ``pid``."""

Observer = Callable[[str, float, Mapping[str, str]], None]
"""Is told of each sample that was recorded: the metric's name without prefix, the value and the labels."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric that is computed when it is asked for: ``name`` is its full one, ``samples`` pairs of labels and value.

    Every sample has the same label names.
    """

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


GaugeSource = Callable[[], Iterable[Gauge]]


class MetricsCollector(Protocol):
    """Named measurements, thresholds on them, and their exposition.

    A name is given without prefix and unit suffix rules: the collector adds its prefix and follows the
    Prometheus conventions. Numbers that are not finite are refused with ``ConfigurationError``.
    """

    @property
    def prefix(self) -> str: ...

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

        ``exemplar`` points from a histogram or counter to where the value came from, as ``{"trace_id": ...}``; it
        is shown where OpenMetrics is asked for. ``gauge_mode`` says what becomes of a gauge of several workers.
        """
        ...

    def add_observer(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` after each sample that was recorded; the returned function ends that."""
        ...

    def add_gauges(self, source: GaugeSource) -> None:
        """Ask ``source`` for further gauges at each exposition."""
        ...

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
        """Promise that ``objective`` percent of ``metric``'s samples satisfy ``value <comparison> threshold``."""
        ...

    def get_slo_status(self) -> Mapping[str, SLOReport]:
        """Return every defined objective by name."""
        ...

    def metric_names(self) -> Sequence[str]:
        """Return the full names that were recorded, sorted."""
        ...

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """Return the newest recorded value of a gauge or histogram, the total of a counter, or None."""
        ...

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type for an HTTP ``Accept`` header."""
        ...

    def export(self) -> Mapping[str, Any]:
        """Return the definitions and values of all metrics and objectives as plain JSON types."""
        ...
