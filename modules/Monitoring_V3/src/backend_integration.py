"""Monitoring V3, quarantined: looks at a collector and a tracer, exports them, and refuses every change."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from modules.bridge import ReadOnlyView
from modules.contracts.clock import Clock
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus
from modules.contracts.tracing import Tracer
from modules.Monitoring_V1.src.backend_integration import BACKEND_AVAILABLE, BACKEND_ERROR
from modules.Monitoring_V1.src.backend_integration import get_metrics_collector as _new_collector
from modules.Monitoring_V1.src.backend_integration import get_tracer as _new_tracer

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from modules.settings import TracingSettings

__all__ = ["BACKEND_AVAILABLE", "BACKEND_ERROR", "SLOStatus", "get_metrics_collector", "get_tracer"]

_READS = ("prefix", "get_slo_status", "metric_names", "value", "render", "export")
_TRACER_READS = ("name", "current", "inject", "extract", "export", "status")


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


def get_tracer(
    name: str = "selfright",
    use_backend: bool | None = None,
    *,
    settings: TracingSettings | None = None,
    clock: Clock | None = None,
    source: Tracer | None = None,
) -> Tracer:
    """Return a read-only view of ``source``, or of a V1 tracer that is never started when none is given.

    It reads the context of requests and passes it on; to begin a span raises ReadOnlyModuleError.
    """
    view = ReadOnlyView(
        source if source is not None else _new_tracer(name, use_backend, settings=settings, clock=clock),
        module="Monitoring_V3",
        reads=_TRACER_READS,
        instead="modules.Monitoring_V2.src.backend_integration.get_tracer()",
    )
    return cast("Tracer", view)
