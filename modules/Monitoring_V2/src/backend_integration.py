"""Monitoring V2: metrics with objectives over many windows, error budgets and burn rates, and alerts on incidents."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from modules.bridge import detect, detect_monitoring, resolve
from modules.contracts.alerts import AlertManager
from modules.contracts.clock import Clock, SystemClock
from modules.contracts.errors import BackendUnavailableError
from modules.contracts.events import EventBus
from modules.contracts.metrics import MetricsCollector
from modules.contracts.objectives import BudgetSteps, ObjectiveEngine
from modules.contracts.slo import ObjectiveReport, SLOReport, SLOStatus
from modules.contracts.state import StateStore
from modules.local.metrics import LocalCollector
from modules.Monitoring_V1.src.backend_integration import get_tracer

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from modules.settings import AlertingSettings, AlertSettings, BudgetStepSettings

__all__ = [
    "BACKEND_AVAILABLE",
    "BACKEND_ERROR",
    "SLOReport",
    "SLOStatus",
    "get_alert_manager",
    "get_budget_steps",
    "get_metrics_collector",
    "get_slo_engine",
    "get_tracer",
]

_BACKEND = detect_monitoring()
BACKEND_AVAILABLE = _BACKEND.available
BACKEND_ERROR = _BACKEND.error


def get_metrics_collector(
    prefix: str = "selfright",
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    multiprocess_dir: str | None = None,
) -> MetricsCollector:
    """Return a collector whose metric names begin with ``prefix``. Raises ConfigurationError for a bad prefix.

    ``use_backend``: None takes the backend where it is available, True warns when it is not, False stays local,
    where objectives have one window and no burn rates. ``multiprocess_dir``, a folder that several workers share, makes
    each of them expose the sum of all; it needs the backend.
    """
    clock = clock or SystemClock()
    if resolve(use_backend, detect_monitoring(), "the metrics collector"):
        from backend.shared.monitoring.metrics import PrometheusCollector  # noqa: PLC0415  optional

        return PrometheusCollector(prefix, clock=clock, multiprocess_dir=multiprocess_dir)
    if multiprocess_dir is not None:
        raise BackendUnavailableError(
            f"metrics of several workers are summed by the backend only, and it cannot serve: {_reason(use_backend)};"
            " install what is missing and leave the backend on, or pass no multiprocess_dir"
        )
    return LocalCollector(prefix, clock=clock)


def get_slo_engine(
    *,
    clock: Clock,
    events: EventBus,
    alerting: AlertingSettings,
    in_maintenance: Callable[[str], bool] = lambda name: False,
    use_backend: bool | None = None,
) -> ObjectiveEngine:
    """Return what keeps the objectives of a deployment. Raises BackendUnavailableError: nothing local can."""
    if use_backend is False or not detect_monitoring().available:
        raise BackendUnavailableError(
            f"objectives are kept by the backend only, and it cannot serve: {_reason(use_backend)};"
            " install what is missing and leave the backend on, or remove slo.objectives"
        )
    from backend.shared.monitoring.engine import SLOEngine  # noqa: PLC0415  optional

    return SLOEngine(clock=clock, events=events, alerting=alerting, in_maintenance=in_maintenance)


def get_budget_steps(
    steps: Sequence[BudgetStepSettings],
    objectives: Callable[[], Mapping[str, ObjectiveReport]],
    *,
    clock: Clock,
    events: EventBus,
    use_backend: bool | None = None,
) -> BudgetSteps:
    """Return what enforces the error budget policy. Raises BackendUnavailableError: nothing local can."""
    if use_backend is False or not detect_monitoring().available:
        raise BackendUnavailableError(
            f"the error budget policy is enforced by the backend only, and it cannot serve: {_reason(use_backend)};"
            " install what is missing and leave the backend on, or remove slo.policy"
        )
    from backend.shared.monitoring.enforcement import BudgetPolicy, Enforcement  # noqa: PLC0415  optional

    return Enforcement(BudgetPolicy(steps, events=events), objectives, clock=clock, events=events)


def _reason(use_backend: bool | None) -> str:
    return detect_monitoring().error or f"use_backend={use_backend} was asked for"


def get_alert_manager(
    settings: AlertSettings,
    *,
    clock: Clock,
    events: EventBus,
    store: StateStore | None = None,
    rng: random.Random | None = None,
    use_backend: bool | None = None,
) -> AlertManager:
    """Return what tells people about the incidents and burning budgets on ``events``.

    Raises BackendUnavailableError: nothing local can.
    """
    backend = detect("backend.shared.monitoring.alerts")
    if backend.available and use_backend is not False:
        from backend.shared.monitoring import alerts  # noqa: PLC0415  optional

        return alerts.AlertManager(settings, clock=clock, events=events, store=store, rng=rng)
    reason = backend.error or "use_backend=False was asked for"
    raise BackendUnavailableError(
        f"alerts are sent by the backend only, and it cannot serve: {reason};"
        " install what is missing and leave the backend on, or remove alerts.targets"
    )
