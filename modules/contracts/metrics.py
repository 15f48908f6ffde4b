"""What a metrics collector promises, whichever implementation serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from modules.contracts.slo import SLOReport

Comparison = Literal["<=", "<", ">=", ">"]
MetricKind = Literal["gauge", "counter", "histogram"]


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
    ) -> None:
        """Record one value: observed (histogram), added (counter) or set (gauge)."""
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
