"""Monitoring V3, quarantined: looks at a collector, exports it, and refuses every change."""

from __future__ import annotations

from typing import cast

from modules.bridge import ReadOnlyView
from modules.contracts.clock import Clock
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus
from modules.Monitoring_V1.src.backend_integration import BACKEND_AVAILABLE, BACKEND_ERROR
from modules.Monitoring_V1.src.backend_integration import get_metrics_collector as _new_collector

__all__ = ["BACKEND_AVAILABLE", "BACKEND_ERROR", "SLOStatus", "get_metrics_collector"]

_READS = ("prefix", "get_slo_status", "metric_names", "value", "render", "export")


def get_metrics_collector(
    prefix: str = "selfright",
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    source: MetricsCollector | None = None,
) -> MetricsCollector:
    """Return a read-only view of ``source``, or of an empty V1 collector when none is given.

    ``export()`` gives its definitions and values for the move to V2. Every call that changes something raises
    ReadOnlyModuleError.
    """
    view = ReadOnlyView(
        source if source is not None else _new_collector(prefix, use_backend, clock=clock),
        module="Monitoring_V3",
        reads=_READS,
        instead="modules.Monitoring_V2.src.backend_integration.get_metrics_collector()",
    )
    return cast("MetricsCollector", view)
