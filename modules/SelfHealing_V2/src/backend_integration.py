"""SelfHealing V2: V1 with an objective for each service, and recovery that looks at the error budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from modules.bridge import detect_self_healing, ground_for, resolve, stands_on
from modules.contracts.clock import Clock
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthMonitor, RecoveryManager
from modules.contracts.slo import SLOStatus, TrackerFactory
from modules.contracts.state import StateStore
from modules.local.repair import LocalAutoRepair
from modules.SelfHealing_V1.src import backend_integration as v1
from modules.SelfHealing_V2.src.slo_monitor import Promise, ServiceObjective, SLOHealthMonitor

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from backend.shared.self_healing.settings import CapsSettings, MaintenanceSettings, RecoverySettings

__all__ = [
    "BACKEND_AVAILABLE",
    "BACKEND_ERROR",
    "SLOHealthMonitor",
    "SLOStatus",
    "ServiceObjective",
    "get_auto_repair",
    "get_health_monitor",
    "get_recovery_manager",
]

BACKEND_AVAILABLE: bool = detect_self_healing().available
BACKEND_ERROR: str | None = detect_self_healing().error


def get_health_monitor(
    slo_latency_ms: float = 1000,
    slo_availability: float = 99.9,
    slo_window_days: float = 30,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
    rng: random.Random | None = None,
    in_maintenance: Callable[[str], bool] = lambda name: False,
) -> SLOHealthMonitor:
    """Return a monitor that promises ``slo_availability`` percent of checks passed within ``slo_latency_ms``.

    What ``in_maintenance`` covers is not counted. Raises ConfigurationError for an objective that cannot be kept.
    """
    promise = Promise(slo_latency_ms, slo_availability, slo_window_days)
    served = resolve(use_backend, detect_self_healing(), "the health monitor")
    clock, events = ground_for(None, clock, events)
    monitor = SLOHealthMonitor(
        v1.get_health_monitor(served, clock=clock, events=events, rng=rng),
        tracker=_tracker(served),
        promise=promise,
        clock=clock,
        events=events,
        in_maintenance=in_maintenance,
    )
    stands_on(monitor, clock, events)
    return monitor


def _tracker(served: bool) -> TrackerFactory:
    if served:
        from backend.shared.monitoring.objectives import Objective  # noqa: PLC0415  optional

        return Objective
    from modules.local.slo import LocalObjective  # noqa: PLC0415  only where it serves

    return LocalObjective


def get_auto_repair(
    monitor: HealthMonitor | None = None,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
    rng: random.Random | None = None,
    store: StateStore | None = None,
    caps: CapsSettings | None = None,
    dry_run: bool = False,
) -> AutoRepair:
    """V1's, over a monitor with objectives when none is given."""
    served = resolve(use_backend, detect_self_healing(), "automatic repair")
    clock, events = ground_for(monitor, clock, events)
    monitor = monitor or get_health_monitor(use_backend=served, clock=clock, events=events, rng=rng)
    return v1.get_auto_repair(
        monitor, served, clock=clock, events=events, rng=rng, store=store, caps=caps, dry_run=dry_run
    )


def get_recovery_manager(
    monitor: HealthMonitor | None = None,
    repair: AutoRepair | None = None,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
    rng: random.Random | None = None,
    store: StateStore | None = None,
    caps: CapsSettings | None = None,
    dry_run: bool = False,
    settings: RecoverySettings | None = None,
    maintenance: Sequence[MaintenanceSettings] = (),
    steps: Callable[[str], Collection[str]] = lambda name: (),
) -> RecoveryManager:
    """Return what decides on repair by health, dependencies and budget. It starts and stops ``repair``.

    ``steps`` names the steps of the error budget policy that are in force for a service.

    ``rng``, ``store``, ``caps`` and ``dry_run`` are for the repairer that is built when none is given, and
    ``maintenance`` also for the monitor that is: the budget is that of a monitor with objectives, if it is one.
    """
    served = resolve(use_backend, detect_self_healing(), "the recovery manager")
    clock, events = ground_for(monitor, clock, events)
    if monitor is None:
        monitor = get_health_monitor(
            use_backend=served,
            clock=clock,
            events=events,
            rng=rng,
            in_maintenance=lambda name: any(window.covers(name, clock.time()) for window in maintenance),
        )
    repair = repair or get_auto_repair(
        monitor, served, clock=clock, events=events, rng=rng, store=store, caps=caps, dry_run=dry_run
    )
    budget = monitor.get_slo_report if isinstance(monitor, SLOHealthMonitor) else lambda name: None
    if served and not isinstance(repair, LocalAutoRepair):  # the backend's manager drives the backend's repairer only
        from backend.shared.self_healing.recovery import RecoveryManager as Backend  # noqa: PLC0415  optional

        return Backend(
            monitor,
            repair,
            clock=clock,
            events=events,
            settings=settings,
            maintenance=maintenance,
            budget=budget,
            steps=steps,
        )
    from modules.local.recovery import LocalRecoveryManager  # noqa: PLC0415  only where it serves

    return LocalRecoveryManager(
        repair, clock=clock, settings=settings, maintenance=maintenance, budget=budget, steps=steps
    )
