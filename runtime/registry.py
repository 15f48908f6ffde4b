"""The closed registry of module versions: what ``selfhealing=v2`` or ``monitoring=v3`` stands for.

Each entry builds a module's objects through its factories, and nothing else in the runtime knows a version.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from modules.contracts.alerts import AlertManager
from modules.contracts.clock import Clock
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthMonitor, Probe, RecoveryManager, ServiceOptions
from modules.contracts.metrics import MetricsCollector
from modules.contracts.objectives import BudgetSteps, ObjectiveEngine
from modules.contracts.slo import SLOReport, SLOTracker
from modules.contracts.state import StateStore
from modules.contracts.tracing import Tracer
from modules.settings import ServiceSLOSettings
from runtime.settings import RootSettings


@dataclass(frozen=True, slots=True)
class Ground:
    """What every module is built on. ``use_backend`` is the ``backend`` key as the factories take it."""

    settings: RootSettings
    clock: Clock
    events: EventBus
    rng: random.Random
    store: StateStore
    use_backend: bool | None
    steps: Callable[[str], Collection[str]] = lambda service: ()
    """The steps of the error budget policy in force for a service."""

    def in_maintenance(self, service: str) -> bool:
        """Whether a service is in a maintenance window now."""
        now = self.clock.time()
        return any(window.covers(service, now) for window in self.settings.selfhealing.maintenance)


@dataclass(frozen=True, slots=True)
class Watch:
    """A service as a monitor is given it: its probes by role, how it is checked, and its own objective."""

    name: str
    liveness: Probe
    readiness: Probe | None
    startup: Probe | None
    options: ServiceOptions
    objective: ServiceSLOSettings

    def register_with(self, monitor: HealthMonitor) -> None:
        """Register with a monitor that knows no objectives."""
        monitor.register_service(
            self.name, self.liveness, startup=self.startup, readiness=self.readiness, options=self.options
        )


@dataclass(frozen=True, slots=True)
class Healing:
    """The objects of the SelfHealing module.

    ``monitor`` and ``repair`` are what others see; ``scheduled`` and ``ladders`` are the ones that services
    are registered with and that run, which differ from them in quarantine.
    """

    monitor: HealthMonitor
    scheduled: HealthMonitor
    register: Callable[[Watch], None]
    repair: AutoRepair | None = None
    ladders: AutoRepair | None = None
    recovery: RecoveryManager | None = None
    repairs: bool = False
    slo: Callable[[str], SLOReport | None] = lambda name: None
    trackers: Callable[[], Mapping[str, SLOTracker]] = field(default=dict)


def _watch_only(ground: Ground) -> Healing:
    from modules.SelfHealing_V1.src.backend_integration import get_health_monitor

    monitor = get_health_monitor(ground.use_backend, clock=ground.clock, events=ground.events, rng=ground.rng)
    return Healing(monitor, monitor, lambda watch: watch.register_with(monitor))


def _self_healing_v1(ground: Ground) -> Healing:
    from modules.SelfHealing_V1.src.backend_integration import get_auto_repair

    watching = _watch_only(ground)
    repair = get_auto_repair(
        watching.monitor,
        ground.use_backend,
        clock=ground.clock,
        events=ground.events,
        rng=ground.rng,
        store=ground.store,
        caps=ground.settings.selfhealing.caps,
        dry_run=ground.settings.selfhealing.dry_run,
    )
    return replace(watching, repair=repair, ladders=repair, repairs=True)


def _self_healing_v2(ground: Ground) -> Healing:
    from modules.SelfHealing_V2.src.backend_integration import (
        ServiceObjective,
        get_auto_repair,
        get_health_monitor,
        get_recovery_manager,
    )

    settings = ground.settings
    monitor = get_health_monitor(
        slo_latency_ms=settings.slo.latency_ms,
        slo_availability=settings.slo.availability,
        slo_window_days=settings.slo.window_days,
        use_backend=ground.use_backend,
        clock=ground.clock,
        events=ground.events,
        rng=ground.rng,
        in_maintenance=ground.in_maintenance,
    )
    repair = get_auto_repair(
        monitor,
        ground.use_backend,
        clock=ground.clock,
        events=ground.events,
        rng=ground.rng,
        store=ground.store,
        caps=settings.selfhealing.caps,
        dry_run=settings.selfhealing.dry_run,
    )
    recovery = get_recovery_manager(
        monitor,
        repair,
        ground.use_backend,
        clock=ground.clock,
        events=ground.events,
        settings=settings.selfhealing.recovery,
        maintenance=settings.selfhealing.maintenance,
        steps=ground.steps,
    )

    def register(watch: Watch) -> None:
        own = watch.objective
        monitor.register_service(
            watch.name,
            watch.liveness,
            startup=watch.startup,
            readiness=watch.readiness,
            options=watch.options,
            slo=ServiceObjective(own.latency_ms, own.availability, own.window_days),
        )

    return Healing(
        monitor,
        monitor,
        register,
        repair,
        repair,
        recovery,
        repairs=True,
        slo=monitor.get_slo_report,
        trackers=lambda: monitor.trackers,
    )


def _self_healing_v3(ground: Ground) -> Healing:
    from modules.SelfHealing_V3.src import backend_integration as quarantine

    live = _self_healing_v1(ground)
    return replace(
        live,
        monitor=quarantine.get_health_monitor(live.monitor),
        repair=quarantine.get_auto_repair(live.repair),
        repairs=False,
    )


SELF_HEALING: Mapping[str, Callable[[Ground], Healing]] = {
    "none": _watch_only,
    "v1": _self_healing_v1,
    "v2": _self_healing_v2,
    "v3": _self_healing_v3,
}


@dataclass(frozen=True, slots=True)
class Metering:
    """The objects of the Monitoring module: the collector that others see, the one that is filled, and the tracer.

    ``tracer`` is None where no spans are asked for; quarantine begins none. ``engine`` (objectives), ``steps`` (error
    budget policy) and ``alerts`` are V2's, and the backend's.
    """

    shown: MetricsCollector | None = None
    filled: MetricsCollector | None = None
    tracer: Tracer | None = None
    engine: ObjectiveEngine | None = None
    steps: BudgetSteps | None = None
    alerts: AlertManager | None = None


def _tracer(ground: Ground, make: Callable[..., Tracer]) -> Tracer | None:
    """Return a tracer when spans are asked for. Without one nothing is imported for it, and no span costs anything."""
    settings = ground.settings.tracing
    return make(use_backend=ground.use_backend, settings=settings, clock=ground.clock) if settings.enabled else None


def _monitoring_v1(ground: Ground) -> Metering:
    from modules.Monitoring_V1.src.backend_integration import get_metrics_collector, get_tracer

    collector = get_metrics_collector(ground.settings.monitoring.prefix, ground.use_backend, clock=ground.clock)
    return Metering(collector, collector, _tracer(ground, get_tracer))


def _monitoring_v2(ground: Ground) -> Metering:
    from modules.Monitoring_V2.src import backend_integration as v2

    settings, clock, events, choice = ground.settings, ground.clock, ground.events, ground.use_backend
    collector = v2.get_metrics_collector(settings.monitoring.prefix, choice, clock=clock)
    tracer = _tracer(ground, v2.get_tracer)
    if choice is False or not v2.BACKEND_AVAILABLE:
        return Metering(collector, collector, tracer)
    engine = v2.get_slo_engine(
        clock=clock, events=events, alerting=settings.slo.alerting, in_maintenance=ground.in_maintenance
    )
    steps = v2.get_budget_steps(settings.slo.policy, engine.reports, clock=clock, events=events)
    alerts = v2.get_alert_manager(settings.alerts, clock=clock, events=events, store=ground.store, rng=ground.rng)
    return Metering(collector, collector, tracer, engine, steps, alerts)


def _monitoring_v3(ground: Ground) -> Metering:
    from modules.Monitoring_V3.src.backend_integration import get_metrics_collector

    live = _monitoring_v1(ground).filled
    return Metering(get_metrics_collector(source=live), live)


MONITORING: Mapping[str, Callable[[Ground], Metering]] = {
    "none": lambda ground: Metering(),
    "v1": _monitoring_v1,
    "v2": _monitoring_v2,
    "v3": _monitoring_v3,
}
