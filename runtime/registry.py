"""The closed registry of module versions: what ``selfhealing=v2`` or ``monitoring=v3`` stands for.

Each entry builds a module's objects through its factories, and nothing else in the runtime knows a version.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from modules.contracts.clock import Clock
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthMonitor, Probe, RecoveryManager, ServiceOptions
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOReport, SLOTracker
from modules.contracts.state import StateStore
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
    maintenance = settings.selfhealing.maintenance
    monitor = get_health_monitor(
        slo_latency_ms=settings.slo.latency_ms,
        slo_availability=settings.slo.availability,
        slo_window_days=settings.slo.window_days,
        use_backend=ground.use_backend,
        clock=ground.clock,
        events=ground.events,
        rng=ground.rng,
        in_maintenance=lambda name: any(window.covers(name, ground.clock.time()) for window in maintenance),
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
        maintenance=maintenance,
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
    """The objects of the Monitoring module: the collector that others see, and the one that is filled."""

    shown: MetricsCollector | None = None
    filled: MetricsCollector | None = None


def _monitoring_v1(ground: Ground) -> Metering:
    from modules.Monitoring_V1.src.backend_integration import get_metrics_collector

    collector = get_metrics_collector(ground.settings.monitoring.prefix, ground.use_backend, clock=ground.clock)
    return Metering(collector, collector)


def _monitoring_v2(ground: Ground) -> Metering:
    from modules.Monitoring_V2.src.backend_integration import get_metrics_collector

    collector = get_metrics_collector(ground.settings.monitoring.prefix, ground.use_backend, clock=ground.clock)
    return Metering(collector, collector)


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
