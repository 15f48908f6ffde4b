"""What a deployment looks like now: the one description that admin API, terminal and tests share."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ConfigDict, Field

from modules.contracts.health import RepairPhase, RepairStatus
from modules.contracts.slo import SLOReport
from runtime.parts import Parts


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ProcessView(_View):
    """A supervised process."""

    running: bool
    pid: int | None
    started_at: float | None
    """Unix seconds."""
    restarts: int
    exit_code: int | None
    """Of the last end; negative for a signal."""


class SLOView(_View):
    """A service's SLO."""

    status: str
    """met, at_risk, violated or no_data."""
    objective: float
    """Percent of checks that must be good."""
    latency_ms: float
    """A slower check is not good."""
    window_s: float
    good: int
    total: int
    sli: float | None
    """Percent of good checks in the window."""
    error_budget_remaining: float | None
    """Percent of the budget left; negative when overspent."""
    burn_rates: dict[str, float]


class RepairView(_View):
    """A service's repair."""

    phase: str
    """idle, waiting, running, verifying or gave_up."""
    incident: str | None
    opened_at: float | None
    rung: int
    """From 0; the one in use or next."""
    rungs: tuple[str, ...]
    attempts: int
    next_at: float | None
    reason: str
    paused: bool


class ServiceView(_View):
    """A service as it stands."""

    name: str
    status: str
    """unknown, starting, healthy, degraded or unhealthy."""
    since: float
    """Unix seconds of the last change."""
    ready: bool
    detail: str
    """What the last check found."""
    latency_ms: float | None
    checked_at: float | None
    depends_on: tuple[str, ...]
    affected_by: tuple[str, ...]
    """Failed services that it depends on, roots first; while there are any it is not repaired."""
    flapping: bool
    paused: bool
    """Whether its checks or its repair are paused."""
    process: ProcessView | None
    slo: SLOView | None
    repair: RepairView | None


class BackendView(_View):
    """Which implementation serves."""

    requested: str
    available: bool
    error: str | None


class ComponentView(_View):
    """A part of the runtime itself."""

    state: str
    detail: str


class RuntimeView(_View):
    """The whole deployment."""

    deployment: str
    version: str
    state: str
    """starting, running, draining or stopped."""
    since: float
    now: float
    versions: dict[str, str]
    backend: BackendView
    dry_run: bool
    open_incidents: int
    last_event: int
    """Id of the newest event that this view includes: follow ``/api/v1/events`` after it."""
    services: tuple[ServiceView, ...] = Field(default=())
    components: dict[str, ComponentView] = Field(default={})
    budget_steps: dict[str, tuple[str, ...]] = Field(default={})
    """Steps of the error budget policy in force (tighten, shed, freeze), by objective."""
    notes: tuple[str, ...] = ()


def program_version() -> str:
    """Return the installed version, or ``"0"`` when run from a checkout that is not installed."""
    try:
        return version("selfright")
    except PackageNotFoundError:
        return "0"


def look_at(parts: Parts, name: str) -> ServiceView:
    """Describe one service. Raises UnknownServiceError."""
    health = parts.monitor.get_status(name)
    process = parts.processes.get_status(name) if name in parts.processes.names else None
    report = parts.slo(name)
    repair = parts.repair.get_status(name) if parts.repair and name in parts.repair.services else None
    return ServiceView(
        name=name,
        status=health.status.value,
        since=health.since,
        ready=health.ready,
        detail=health.last.detail if health.last else "not checked yet",
        latency_ms=health.last.latency_ms if health.last else None,
        checked_at=health.last.checked_at if health.last else None,
        depends_on=health.depends_on,
        affected_by=health.affected_by,
        flapping=health.flapping,
        paused=health.paused or (repair is not None and repair.paused),
        process=ProcessView.model_validate(process, from_attributes=True) if process else None,
        slo=_slo_view(parts, name, report) if report else None,
        repair=_repair_view(repair) if repair else None,
    )


def look(parts: Parts) -> RuntimeView:
    """Describe the whole deployment."""
    services = tuple(look_at(parts, name) for name in parts.monitor.services)
    return RuntimeView(
        deployment=parts.deployment,
        version=program_version(),
        state=parts.state,
        since=parts.state_since,
        now=parts.clock.time(),
        versions={
            "selfhealing": parts.settings.selfhealing.version,
            "monitoring": parts.settings.monitoring.version,
        },
        backend=BackendView(
            requested=parts.settings.backend, available=parts.backend_available, error=parts.backend_error
        ),
        dry_run=parts.settings.selfhealing.dry_run,
        open_incidents=sum(1 for s in services if s.repair and s.repair.phase != RepairPhase.IDLE),
        last_event=parts.events.last_id,
        services=services,
        components={
            name: ComponentView(state=status.state.value, detail=status.detail)
            for name, status in parts.components().items()
        },
        budget_steps=dict(parts.budget_steps()),
        notes=tuple(parts.notes),
    )


def _slo_view(parts: Parts, name: str, report: SLOReport) -> SLOView:
    own = parts.settings.services[name].slo.latency_ms if name in parts.settings.services else None
    return SLOView(
        status=report.status.value,
        objective=report.objective,
        latency_ms=own or parts.settings.slo.latency_ms,
        window_s=report.window_s,
        good=report.good,
        total=report.total,
        sli=report.sli,
        error_budget_remaining=report.error_budget_remaining,
        burn_rates=dict(report.burn_rates),
    )


def _repair_view(status: RepairStatus) -> RepairView:
    return RepairView(
        phase=status.phase.value,
        incident=status.incident,
        opened_at=status.opened_at,
        rung=status.rung,
        rungs=status.rungs,
        attempts=status.attempts,
        next_at=status.next_at,
        reason=status.reason,
        paused=status.paused,
    )
