"""Monitoring V1: a plain metrics collector. Its objectives have one window and an error budget, no burn rates."""

from __future__ import annotations

from functools import partial

from modules.bridge import detect_monitoring, resolve
from modules.contracts.clock import Clock, SystemClock
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus
from modules.local.metrics import LocalCollector
from modules.local.slo import LocalObjective

__all__ = ["BACKEND_AVAILABLE", "BACKEND_ERROR", "SLOStatus", "get_metrics_collector"]

_BACKEND = detect_monitoring()
BACKEND_AVAILABLE = _BACKEND.available
BACKEND_ERROR = _BACKEND.error


def get_metrics_collector(
    prefix: str = "selfright", use_backend: bool | None = None, *, clock: Clock | None = None
) -> MetricsCollector:
    """Return a collector whose metric names begin with ``prefix``. Raises ConfigurationError for a bad prefix.

    ``use_backend``: None takes the backend where it is available, True warns when it is not, False stays local.
    """
    clock = clock or SystemClock()
    if resolve(use_backend, detect_monitoring(), "the metrics collector"):
        from backend.shared.monitoring.metrics import PrometheusCollector  # noqa: PLC0415  optional

        return PrometheusCollector(prefix, clock=clock, new_tracker=partial(LocalObjective, clock=clock))
    return LocalCollector(prefix, clock=clock)
