"""Health: the words, the results, and what monitors, repairers and recovery managers promise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from modules.contracts.clock import Clock
from modules.contracts.component import Component
from modules.contracts.slo import SLOStatus


class HealthStatus(StrEnum):
    """A service's health as its monitor believes it, after thresholds.

    UNKNOWN: not checked yet, or the prober itself cannot probe. STARTING: the startup grace or startup
    probe still holds. DEGRADED: alive, but not ready or flapping. UNHEALTHY: failed ``fall`` times.
    """

    UNKNOWN = "unknown"
    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class ProbeOutcome(StrEnum):
    """ERROR is the prober's own fault (no descriptors, a name that does not resolve): no verdict on the service."""

    PASS = "pass"  # noqa: S105  an outcome, not a password
    FAIL = "fail"
    ERROR = "error"


class Role(StrEnum):
    """What a probe decides: STARTUP gates the others, LIVENESS asks for repair, READINESS does not."""

    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class Wait:
    """For how long something has been waited, and how long it may take, in seconds."""

    spent_s: float
    allowed_s: float


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One look at a service. ``detail`` is a sentence that names what was found and what was expected.

    ``wait`` is given when the outcome rests on time alone: FAIL, it took too long; ERROR, it is too early to tell.
    """

    outcome: ProbeOutcome
    detail: str = ""
    facts: Mapping[str, float | str] = field(default_factory=dict)
    wait: Wait | None = None

    @property
    def passed(self) -> bool:
        return self.outcome is ProbeOutcome.PASS


PASS = ProbeResult(ProbeOutcome.PASS)


class Probe(Protocol):
    """Looks at a service once. It never raises but for cancellation, and holds no state of health."""

    @property
    def kind(self) -> str: ...

    async def probe(self) -> ProbeResult: ...

    async def close(self) -> None:
        """Give back connections; safe twice."""
        ...


Check = Callable[[], Awaitable[bool | ProbeResult | None]]
"""A user's check. True or None passes, False fails, an exception fails with its text."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How a monitor treats one service.

    Attributes:
        interval_s: between the beginnings of two scheduled checks, above 0.
        timeout_s: after which a check counts as failed, above 0.
        reprobe_s: wait before a quick re-probe once a check has failed (or recovered) short of its threshold.
        rise: consecutive passes that make it healthy.
        fall: consecutive failures that make it unhealthy.
        startup_grace_s: after registration or restart, failures keep it STARTING until a first pass.
        depends_on: services without which this one cannot work.
        flap_high, flap_low: weighted share of state changes over the last 21 results, in 0..1, at which
            flapping begins and ends (Nagios); ``flap_high`` 0 turns detection off.
    """

    interval_s: float = 5.0
    timeout_s: float = 1.0
    reprobe_s: float = 0.25
    rise: int = 1
    fall: int = 3
    startup_grace_s: float = 0.0
    depends_on: tuple[str, ...] = ()
    flap_high: float = 0.5
    flap_low: float = 0.25


@dataclass(frozen=True, slots=True)
class HealthCheckResult:
    """The outcome of one check of one service.

    Attributes:
        service: its name.
        healthy: whether this check passed.
        outcome: pass, fail, or the prober's own error.
        status: the service's health after this check.
        latency_ms: how long the check took.
        detail: what was found.
        checked_at: unix seconds.
        affected_by: failed services that it depends on, roots first; not empty means: do not repair it.
        role: which probe spoke.
        slo_status, error_budget_remaining: filled by V2; NO_DATA and None elsewhere.
    """

    service: str
    healthy: bool
    outcome: ProbeOutcome
    status: HealthStatus
    latency_ms: float
    detail: str
    checked_at: float
    affected_by: tuple[str, ...] = ()
    role: Role = Role.LIVENESS
    slo_status: SLOStatus = SLOStatus.NO_DATA
    error_budget_remaining: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What is known of a service without looking again."""

    name: str
    status: HealthStatus
    since: float
    ready: bool
    last: HealthCheckResult | None
    depends_on: tuple[str, ...]
    affected_by: tuple[str, ...]
    flapping: bool
    paused: bool
    consecutive_passes: int
    consecutive_failures: int


ResultListener = Callable[[HealthCheckResult], None]


class HealthMonitor(Component, Protocol):
    """Checks services, on a schedule once started and on demand always.

    Scheduled checks of one service never overlap; a check on demand joins one that is under way. Health
    changes go to the event bus as ``HealthChanged``; every result goes to the listeners.
    """

    def register_service(
        self,
        name: str,
        check: Check | Probe,
        *,
        startup: Check | Probe | None = None,
        readiness: Check | Probe | None = None,
        options: ServiceOptions | None = None,
    ) -> None:
        """Watch a service. Raises DuplicateServiceError or ConfigurationError, and then changes nothing.

        A dependency may be registered later, but by ``start`` all must be there, without a cycle.
        """
        ...

    def unregister_service(self, name: str) -> None:
        """Forget a service; UnknownServiceError when there is none."""
        ...

    @property
    def services(self) -> tuple[str, ...]: ...

    def get_options(self, name: str) -> ServiceOptions:
        """Return how a service is treated. Raises UnknownServiceError."""
        ...

    async def check_health(self, name: str) -> HealthCheckResult:
        """Check now, count the result, and return it. Raises UnknownServiceError."""
        ...

    async def check_all(self) -> Mapping[str, HealthCheckResult]:
        """Check every service at once."""
        ...

    def get_status(self, name: str) -> ServiceHealth:
        """Return what is known without looking again. Raises UnknownServiceError."""
        ...

    def add_listener(self, listener: ResultListener) -> None:
        """Call ``listener`` with each result, in the loop, before ``check_health`` returns."""
        ...

    def expect_restart(self, name: str) -> None:
        """Begin the startup grace anew, after a restart that was ordered."""
        ...

    def pause(self, name: str) -> None:
        """Stop scheduled checks of a service until ``resume``."""
        ...

    def resume(self, name: str) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Heartbeats:
    """When each service last reported by itself, in the monotonic seconds of the clock that was handed in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def beat(self, service: str) -> None:
        self._last[service] = self._clock.monotonic()

    def age(self, service: str) -> float | None:
        """Seconds since the last heartbeat, or None before the first."""
        last = self._last.get(service)
        return None if last is None else self._clock.monotonic() - last


class GroupGuard(Protocol):
    """Ends process groups with SIGKILL when this program dies, however it dies."""

    def add(self, group: int) -> None:
        """Guard a group from now on; never raises."""
        ...

    def drop(self, group: int) -> None:
        """Forget a group that is gone: its number may come back for somebody else."""
        ...


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What probes and repair actions may be given when they are built from settings.

    ``load`` turns a dotted name into an object and refuses packages that are not allowed
    (ConfigurationError); ``processes`` is None where the runtime supervises none; ``restart_group`` names
    what restarts with the service under a scope, in start order; ``guard`` takes the groups of commands.
    """

    service: str
    clock: Clock
    heartbeats: Heartbeats
    load: Callable[[str], Any]
    processes: ProcessControl | None = None
    restart_group: Callable[[str, RestartScope], tuple[str, ...]] = lambda name, scope: (name,)
    guard: GroupGuard | None = None


# --- repair -----------------------------------------------------------------------------------------


class RepairPhase(StrEnum):
    """Where an incident is. IDLE: none is open."""

    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"
    VERIFYING = "verifying"
    GAVE_UP = "gave_up"


class RungOutcome(StrEnum):
    """How one run of a rung ended. HELPED and DID_NOT_HELP are said after verification."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    DRY_RUN = "dry_run"


@dataclass(frozen=True, slots=True)
class RepairContext:
    """What a rung may know when it runs."""

    service: str
    incident: str
    reason: str
    attempt: int


class RepairAction(Protocol):
    """One way to repair a service. ``run`` raises RepairError when it did not do its work.

    It is cancelled at its timeout and must then leave no child process behind.
    """

    @property
    def kind(self) -> str: ...

    @property
    def describe(self) -> str:
        """A short text for people and the audit trail, without secrets: ``"restart api"``."""
        ...

    async def run(self, context: RepairContext) -> str:
        """Do it and return one sentence that says what was done."""
        ...


RepairFunction = Callable[[RepairContext], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of a ladder: an action, its timeout and how many attempts it has before the next rung."""

    action: RepairAction
    timeout_s: float = 30.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """How one service is repaired. Times in seconds.

    Attributes:
        backoff_base_s, backoff_max_s: full-jitter exponential wait before attempt n > 1 of an incident:
            uniform(0, min(max, base * 2**(n-2))). The first attempt does not wait.
        attempts_per_interval, attempts_interval_s: at most so many rung runs in so long.
        cooldown_s: least time between the end of one rung run and the next.
        verify_passes: passing checks after a rung before it counts as having helped.
        healthy_delay_s: how long the service must then stay healthy before the incident closes.
        verify_timeout_s: after which a rung that brought no recovery has not helped.
        stable_s: this long after an incident closed, the next one begins at the first rung with fresh
            counters; sooner, it goes on where the last one stood.
    """

    backoff_base_s: float = 1.0
    backoff_max_s: float = 300.0
    attempts_per_interval: int = 10
    attempts_interval_s: float = 600.0
    cooldown_s: float = 0.0
    verify_passes: int = 2
    healthy_delay_s: float = 2.0
    verify_timeout_s: float = 15.0
    stable_s: float = 600.0


@dataclass(frozen=True, slots=True)
class RepairStatus:
    """A service's repair as it stands now. ``rung`` counts from 0 and is the one in use or next."""

    service: str
    phase: RepairPhase
    incident: str | None = None
    opened_at: float | None = None
    rung: int = 0
    rungs: tuple[str, ...] = ()
    attempts: int = 0
    next_at: float | None = None
    reason: str = ""
    paused: bool = False


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The end of one ``repair`` call: whether the service is healthy again, and what was done."""

    service: str
    incident: str
    repaired: bool
    actions: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to repair. ``rule`` is a stable word (``"affected"``, ``"maintenance"``), ``reason`` a sentence."""

    repair: bool
    rule: str
    reason: str
    skip_backoff: bool = False


class RepairPolicy(Protocol):
    """Says of a service that is not well whether it is to be repaired now. Pure: asked often."""

    def decide(self, health: ServiceHealth) -> Decision: ...


class AutoRepair(Component, Protocol):
    """Runs repair ladders under shared caps.

    Once started it watches the monitor's results: it asks its policy, opens an incident, climbs the ladder,
    verifies and closes. Its own policy repairs what is UNHEALTHY and not affected by a failed dependency.
    """

    def set_policy(self, policy: RepairPolicy) -> None:
        """Ask ``policy`` from now on instead."""
        ...

    def register_service(
        self,
        name: str,
        rungs: Sequence[Rung | RepairAction | RepairFunction],
        *,
        options: RepairOptions | None = None,
    ) -> None:
        """Give a service its ladder. Raises DuplicateServiceError or ConfigurationError."""
        ...

    @property
    def services(self) -> tuple[str, ...]: ...

    def get_ladder(self, name: str) -> tuple[Rung, ...]:
        """Return a service's rungs, the first first. Raises UnknownServiceError."""
        ...

    def get_options(self, name: str) -> RepairOptions:
        """Return how a service's ladder is climbed. Raises UnknownServiceError."""
        ...

    async def repair(self, name: str, reason: str = "asked for") -> RepairReport:
        """Climb the ladder until the service is verified healthy or the ladder ends. Joins one under way."""
        ...

    def get_status(self, name: str) -> RepairStatus: ...

    def pause(self, name: str | None = None) -> None:
        """Begin no further rung, for one service or all, until ``resume``."""
        ...

    def resume(self, name: str | None = None) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class RecoveryManager(Component, Protocol):
    """V2: decides from health, dependencies and error budget whether to repair, and keeps the audit trail."""

    async def recover(self, name: str, reason: str = "asked for") -> RepairReport: ...

    def get_status(self, name: str) -> RepairStatus: ...

    def export(self) -> Mapping[str, Any]: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


# --- supervised processes ---------------------------------------------------------------------------

RestartScope = Literal["one", "rest", "all"]


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A supervised process now. ``exit_code`` is the last one, negative for a signal, as in subprocess."""

    name: str
    running: bool
    pid: int | None
    started_at: float | None
    restarts: int
    exit_code: int | None

    @property
    def ending(self) -> str:
        """How it ended last: ``"ended with code 3"``, ``"was ended by signal 9"`` or ``"has not been started"``."""
        if self.exit_code is None:
            return "has not been started"
        return f"was ended by signal {-self.exit_code}" if self.exit_code < 0 else f"ended with code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to supervise: ``command`` without a shell, ``env`` added to the program's own.

    ``stop_timeout_s`` lies between SIGTERM and SIGKILL; ``log`` is ``"tail"`` (the newest 64 KiB of its output
    are kept), ``"inherit"`` or ``"discard"``.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stop_timeout_s: float = 5.0
    log: Literal["tail", "inherit", "discard"] = "tail"


class ProcessControl(Protocol):
    """Starts and stops the processes that the runtime supervises, by service name."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def get_status(self, name: str) -> ProcessStatus: ...

    async def restart(self, name: str) -> None:
        """End the process if it runs (stop signal, then SIGKILL) and start it anew. Raises ProcessError."""
        ...

    async def start_process(self, name: str) -> None: ...

    async def stop_process(self, name: str) -> None: ...
