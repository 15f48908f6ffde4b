"""From validated settings to a deployment: the parts, and the graph in which they start and stop.

Building opens the state file and nothing else; sockets, tasks and processes begin at ``graph.start()``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from modules import bridge
from modules.contracts.clock import Clock, SystemClock
from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import BackendUnavailableError, ConfigurationError
from modules.contracts.events import EventBus
from modules.contracts.gauges import objective_gauges
from modules.contracts.health import BuildContext, Heartbeats, ProcessSpec, RepairOptions, ServiceOptions
from modules.contracts.slo import SLOTracker
from modules.local.processes import ProcessSupervisor
from modules.settings import ServiceSettings
from runtime.extensions import Extensions
from runtime.graph import Graph, Hook
from runtime.parts import Parts
from runtime.registry import MONITORING, SELF_HEALING, Ground, Healing, Metering, Watch
from runtime.settings import RootSettings
from runtime.state import StateKeeper
from runtime.telemetry import Telemetry, counts_bad, objective_counters
from runtime.web.server import AdminServer


@dataclass(frozen=True, slots=True)
class Deployment:
    """A built deployment, ready to start."""

    parts: Parts
    graph: Graph
    admin: AdminServer

    @property
    def address(self) -> str:
        """The admin API's URL; empty before the start."""
        return self.admin.address


def use_backend(settings: RootSettings) -> bool | None:
    """The ``backend`` key as factories take it. Raises BackendUnavailableError for ``on`` without a backend."""
    if settings.backend == "on":
        backend = bridge.detect_self_healing()
        if not backend.available:
            raise BackendUnavailableError(
                f"backend=on, but the backend cannot be used: {backend.error};"
                " install what is missing, or set backend=auto"
            )
    return {"auto": None, "on": True, "off": False}[settings.backend]


def assemble(settings: RootSettings, *, deployment: str = "", clock: Clock | None = None) -> Deployment:
    """Build everything. Raises SelfrightError with nothing left open."""
    clock = clock or SystemClock()
    choice = use_backend(settings)
    rng = random.Random(settings.seed)  # noqa: S311  phases and jitter, not secrets
    events = EventBus(clock, first_id=_first_event_id(clock))
    store, notes = bridge.open_store(settings.state.path, clock=clock, use_backend=choice)
    try:
        return _assemble(Ground(settings, clock, events, rng, store, choice), deployment, notes)
    except BaseException:
        store.close()
        raise


def _assemble(ground: Ground, deployment: str, notes: list[str]) -> Deployment:
    settings, clock, events = ground.settings, ground.clock, ground.events
    dependencies = DependencyGraph({name: service.depends_on for name, service in settings.services.items()})
    supervisor = ProcessSupervisor(
        {name: _process_spec(s) for name in dependencies.order if (s := settings.services[name]).process},
        clock=clock,
        events=events,
        environment=lambda: {"SELFRIGHT_URL": admin.address},
    )
    heartbeats = Heartbeats(clock)
    metering = MONITORING[settings.monitoring.version](ground)
    if metering.steps is not None:
        ground = replace(ground, steps=metering.steps.for_service)
    healing = SELF_HEALING[settings.selfhealing.version](ground)
    extensions = Extensions(settings.extensions)
    for name in dependencies.order:
        context = BuildContext(
            name, clock, heartbeats, extensions.load, supervisor, dependencies.restart_group, supervisor.guard
        )
        _register(healing, name, settings.services[name], context, ground.use_backend)
    _promise(settings, healing, metering)

    backend = bridge.detect_self_healing()
    parts = Parts(
        settings=settings,
        clock=clock,
        events=events,
        store=ground.store,
        monitor=healing.monitor,
        processes=supervisor,
        heartbeats=heartbeats,
        repair=healing.repair,
        recovery=healing.recovery,
        collector=metering.shown,
        alerts=metering.alerts,
        slo=healing.slo,
        objectives=metering.engine.reports if metering.engine else dict,
        budget_steps=lambda: metering.steps.in_force if metering.steps else {},
        backend_available=backend.available,
        backend_error=backend.error,
        deployment=deployment,
        state_since=clock.time(),
        notes=notes,
    )
    graph = Graph()
    parts.components = graph.statuses
    admin = AdminServer(parts, host=settings.server.host, port=settings.server.port)
    graph.add("address", Hook(start=admin.bind, stop=admin.release, detail=lambda: admin.address))
    _connect(graph, healing, metering, ground, supervisor)
    graph.add("admin", admin, requires=("monitor",))
    return Deployment(parts, graph, admin)


def _connect(graph: Graph, healing: Healing, metering: Metering, ground: Ground, supervisor: ProcessSupervisor) -> None:
    """Say which component needs which. Children start before the admin server, whose import they overlap."""
    settings, events, store, clock = ground.settings, ground.events, ground.store, ground.clock
    trail = bridge.audit_trail(events, store, use_backend=ground.use_backend)
    first: tuple[str, ...] = ()
    if metering.tracer is not None:  # first to start and last to stop: it records what the others do meanwhile
        graph.add("tracing", metering.tracer)
        first = ("tracing",)
    graph.add("state", StateKeeper(store, settings.state.path, clock=clock, events=events), requires=first)
    graph.add("audit", Hook(stop=trail.close), requires=("state",))
    graph.add("processes", supervisor, requires=("audit", "address"))
    watchers: list[str] = ["processes"]
    if metering.filled is not None:
        Telemetry(
            metering.filled,
            healing.scheduled,
            events,
            latency_ms={
                name: service.slo.latency_ms or settings.slo.latency_ms for name, service in settings.services.items()
            },
            in_maintenance=ground.in_maintenance,
        )
    if metering.alerts is not None:
        graph.add("alerts", metering.alerts, requires=("audit",))
        watchers.append("alerts")

    def trackers() -> Mapping[str, SLOTracker]:
        return {**healing.trackers(), **(metering.engine.trackers if metering.engine else {})}

    keeper = bridge.sample_keeper(trackers, store, clock=clock, events=events, use_backend=ground.use_backend)
    if keeper is not None:
        graph.add("samples", keeper, requires=("state",))
        watchers.append("samples")
    if metering.engine is not None and metering.steps is not None:
        graph.add("objectives", metering.engine, requires=tuple(watchers))
        graph.add("policy", metering.steps, requires=("objectives",))
        watchers.append("policy")
    if healing.recovery is not None:
        graph.add("repair", healing.recovery, requires=tuple(watchers))
        watchers.append("repair")
    elif healing.ladders is not None and healing.repairs:
        graph.add("repair", healing.ladders, requires=tuple(watchers))
        watchers.append("repair")
    graph.add("monitor", healing.scheduled, requires=tuple(watchers))


def _promise(settings: RootSettings, healing: Healing, metering: Metering) -> None:
    """Give the SLO engine the services' objectives and the declared ones, and what they count."""
    engine, collector = metering.engine, metering.filled
    if engine is None or collector is None:
        return
    kept = healing.trackers()
    for name, service in settings.services.items():
        engine.watch_service(
            name,
            latency_ms=service.slo.latency_ms or settings.slo.latency_ms,
            availability=service.slo.availability or settings.slo.availability,
            window_days=service.slo.window_days or settings.slo.window_days,
            tracker=kept.get(name),
        )
    declared = settings.slo.objectives
    for name, objective in declared.items():
        engine.define(name, objective)
    healing.scheduled.add_listener(engine.observe_check)
    collector.add_observer(engine.observe_metric)
    prefix = settings.monitoring.prefix
    collector.add_gauges(lambda: objective_gauges(prefix, engine.reports().values()))
    collector.add_gauges(
        objective_counters(
            prefix,
            lambda: {name: counts for name, counts in engine.counted.items() if name in declared},
            by_bad=[name for name, objective in declared.items() if counts_bad(objective)],
        )
    )


def _register(
    healing: Healing, name: str, service: ServiceSettings, context: BuildContext, choice: bool | None
) -> None:
    """Register one service with its monitor and give it its ladder."""
    roles = [probe for probe in (service.liveness, service.readiness, service.startup) if probe]
    liveness = bridge.build_probe(service.liveness, context, use_backend=choice)
    readiness = bridge.build_probe(service.readiness, context, use_backend=choice) if service.readiness else None
    startup = bridge.build_probe(service.startup, context, use_backend=choice) if service.startup else None
    options = ServiceOptions(
        interval_s=service.interval_s,
        timeout_s=max(probe.timeout_ms for probe in roles) / 1000,
        reprobe_s=service.reprobe_ms / 1000,
        rise=service.rise,
        fall=service.fall,
        startup_grace_s=service.startup_grace_s,
        depends_on=service.depends_on,
        flap_high=service.flap.high if service.flap.enabled else 0,
        flap_low=service.flap.low if service.flap.enabled else 0,
    )
    healing.register(Watch(name, liveness, readiness, startup, options, service.slo))
    if healing.ladders is not None:
        rungs = [bridge.build_rung(rung, context, use_backend=choice) for rung in service.ladder]
        healing.ladders.register_service(name, rungs, options=RepairOptions(**service.repair_policy.model_dump()))


def _process_spec(service: ServiceSettings) -> ProcessSpec:
    if service.process is None:
        raise ConfigurationError("a service without a process has no process to supervise")
    return ProcessSpec(**service.process.model_dump())


def _first_event_id(clock: Clock) -> int:
    """Ids must grow across restarts, or a reader that resumes would be given the wrong events."""
    return int(clock.time() * 1000)
