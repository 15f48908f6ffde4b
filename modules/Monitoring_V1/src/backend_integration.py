"""Monitoring V1: a plain collector, and traces. Its objectives have one window and an error budget, no burn rates."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from modules.bridge import detect, detect_monitoring, resolve
from modules.contracts.clock import Clock, SystemClock
from modules.contracts.errors import BackendUnavailableError
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus
from modules.contracts.tracing import Tracer
from modules.local.metrics import LocalCollector
from modules.local.slo import LocalObjective
from modules.local.tracing import LocalTracer

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from modules.settings import TracingSettings

__all__ = ["BACKEND_AVAILABLE", "BACKEND_ERROR", "SLOStatus", "get_metrics_collector", "get_tracer"]

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


def get_tracer(
    name: str = "selfright",
    use_backend: bool | None = None,
    *,
    settings: TracingSettings | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Tracer:
    """Return a tracer, which records spans when ``settings`` say so, and else passes the context of traces on.

    ``use_backend`` is as for the collector. Raises BackendUnavailableError when spans are asked for and the backend,
    the only one that records, cannot serve. ``rng`` draws the identifiers; the system's generator unless given.
    """
    if settings is not None and settings.enabled:
        recording = detect("backend.shared.monitoring.tracing", "backend.shared.monitoring.tracing_export")
        if use_backend is False or not recording.available:
            raise BackendUnavailableError(
                "tracing.enabled is true, and spans are recorded by the backend only, which cannot serve:"
                f" {recording.error or 'use_backend=False was asked for'};"
                " leave the backend on and install selfright[otel], or set tracing.enabled=false"
            )
        from backend.shared.monitoring.tracing import OtelTracer  # noqa: PLC0415  optional
        from backend.shared.monitoring.tracing_export import SpanPipeline  # noqa: PLC0415  needs the extra

        pipeline = SpanPipeline(settings, rng=rng or random.SystemRandom())
        return OtelTracer(name, clock=clock or SystemClock(), pipeline=pipeline)
    if resolve(use_backend, detect("backend.shared.monitoring.tracing"), "the tracer"):
        from backend.shared.monitoring.tracing import OtelTracer  # noqa: PLC0415  optional

        return OtelTracer(name, clock=clock or SystemClock())
    return LocalTracer(name)
