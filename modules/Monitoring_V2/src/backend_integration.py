"""Monitoring V2: metrics with objectives over many windows, error budgets and burn rates, and alerts on incidents."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from modules.bridge import detect, detect_monitoring, resolve
from modules.contracts.clock import Clock, SystemClock
from modules.contracts.component import Component
from modules.contracts.errors import BackendUnavailableError
from modules.contracts.events import EventBus
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOReport, SLOStatus
from modules.contracts.state import StateStore
from modules.local.metrics import LocalCollector

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from modules.settings import AlertSettings

__all__ = [
    "BACKEND_AVAILABLE",
    "BACKEND_ERROR",
    "SLOReport",
    "SLOStatus",
    "get_alert_manager",
    "get_metrics_collector",
]

_BACKEND = detect_monitoring()
BACKEND_AVAILABLE = _BACKEND.available
BACKEND_ERROR = _BACKEND.error


def get_metrics_collector(
    prefix: str = "selfright", use_backend: bool | None = None, *, clock: Clock | None = None
) -> MetricsCollector:
    """Return a collector whose metric names begin with ``prefix``. Raises ConfigurationError for a bad prefix.

    ``use_backend``: None takes the backend where it is available, True warns when it is not, False stays local,
    where objectives have one window and no burn rates.
    """
    clock = clock or SystemClock()
    if resolve(use_backend, detect_monitoring(), "the metrics collector"):
        from backend.shared.monitoring.metrics import PrometheusCollector  # noqa: PLC0415  optional

        return PrometheusCollector(prefix, clock=clock)
    return LocalCollector(prefix, clock=clock)


def get_alert_manager(
    settings: AlertSettings,
    *,
    clock: Clock,
    events: EventBus,
    store: StateStore | None = None,
    rng: random.Random | None = None,
    use_backend: bool | None = None,
) -> Component:
    """Return what tells people about incidents on ``events``. Raises BackendUnavailableError: nothing local can."""
    backend = detect("backend.shared.monitoring.alerts")
    if backend.available and use_backend is not False:
        from backend.shared.monitoring.alerts import AlertManager  # noqa: PLC0415  optional

        return AlertManager(settings, clock=clock, events=events, store=store, rng=rng)
    reason = backend.error or "use_backend=False was asked for"
    raise BackendUnavailableError(
        f"alerts are sent by the backend only, and it cannot serve: {reason};"
        " install what is missing and leave the backend on, or remove alerts.targets"
    )
