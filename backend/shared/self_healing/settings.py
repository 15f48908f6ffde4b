"""What a user writes about services: how they are probed, which processes they are, how they are repaired.

Needs pydantic alone, so that a configuration can be validated where the backend's own dependencies are
missing. Lists may be given as JSON arrays only; durations end in ``_s`` or ``_ms``, percentages are 0..100.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from backend.shared.settings import HttpUrl, Seconds, Settings, SpanSettings, Wait

_LONGEST_S = 86_400 * 366
Percent = Annotated[float, Field(gt=0, lt=100)]


def _dotted(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        raise ValueError(f"must be a dotted name such as shop.probes.check_stock, found {name!r}")
    return name


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return pattern


DottedName = Annotated[str, AfterValidator(_dotted)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Command = Annotated[tuple[str, ...], Field(min_length=1)]


# --- probes -----------------------------------------------------------------------------------------


class ProbeSettings(Settings):
    """What every kind of probe has."""

    timeout_ms: Annotated[float, Field(gt=0, le=600_000)] = 1000
    """After so many milliseconds the probe has failed."""


class HttpProbeSettings(ProbeSettings):
    """Ask a URL. Redirects are not followed unless said so; at most ``max_body_bytes`` are read."""

    kind: Literal["http"]
    url: HttpUrl
    """The address, http or https."""
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    """The request method."""
    headers: dict[str, str] = {}
    """Request headers. Put secrets in the environment: ``${oc.env:TOKEN}``."""
    expect_status: Annotated[tuple[Annotated[int, Field(ge=100, le=599)], ...], Field(min_length=1)] = (200,)
    """Status codes that pass."""
    expect_body: Pattern | None = None
    """A regular expression that must be found in the body."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """An answer slower than so many milliseconds fails, even within the timeout."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 0
    """How many redirects are followed; 0 takes the redirect itself as the answer."""
    max_body_bytes: Annotated[int, Field(gt=0, le=16_777_216)] = 65_536
    """How much of the body is read for ``expect_body``; the rest is left unread."""
    verify_tls: bool = True
    """Whether the certificate and its host name are checked."""
    min_certificate_days: Annotated[float, Field(ge=0)] | None = None
    """An https certificate that expires sooner than in so many days fails."""


class TcpProbeSettings(ProbeSettings):
    """Open a TCP connection and close it."""

    kind: Literal["tcp"]
    host: str = "127.0.0.1"
    """Host name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)]
    """Port."""


class ExecProbeSettings(ProbeSettings):
    """Run a command; exit code 0 passes. No shell. Its whole process group ends at the timeout."""

    kind: Literal["exec"]
    command: Command
    """Program and arguments."""
    env: dict[str, str] = {}
    """Variables added to the runtime's environment."""
    cwd: str | None = None
    """Working directory."""
    expect_output: Pattern | None = None
    """A regular expression that must be found in the first 64 KiB of its output."""


class ProcessProbeSettings(ProbeSettings):
    """Whether the supervised process runs, and how much memory it holds."""

    kind: Literal["process"]
    pidfile: str | None = None
    """A file with the process id of a process that is not supervised by the runtime."""
    max_rss_mb: Annotated[float, Field(gt=0)] | None = None
    """More resident memory than so many MiB fails."""


class HeartbeatProbeSettings(ProbeSettings):
    """The service reports by itself: PUT /api/v1/services/{name}/heartbeat."""

    kind: Literal["heartbeat"]
    ttl_s: Seconds = 30
    """Without a heartbeat for so long it has failed."""


class CallableProbeSettings(ProbeSettings):
    """Await a function of an allowed extension package. True or None passes, False or an exception fails."""

    kind: Literal["callable"]
    target: DottedName
    """Dotted name of the async function."""
    arguments: dict[str, str | int | float | bool | None] = {}
    """Keyword arguments for it."""


AnyProbe = Annotated[
    HttpProbeSettings
    | TcpProbeSettings
    | ExecProbeSettings
    | ProcessProbeSettings
    | HeartbeatProbeSettings
    | CallableProbeSettings,
    Field(discriminator="kind"),
]


class ProbesSettings(Settings):
    """Probes by role, where one is not enough."""

    startup: AnyProbe | None = None
    """Holds back the others until it has passed once."""
    liveness: AnyProbe
    """Its failure asks for repair."""
    readiness: AnyProbe | None = None
    """Its failure degrades the service and is not repaired."""


class FlapSettings(Settings):
    """Flap detection over the last 21 results, newest weighing most (Nagios)."""

    enabled: bool = True
    """Whether flapping is detected. A flapping service is degraded and not repaired until it settles."""
    high: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of weighted changes, 0..1, at which flapping begins."""
    low: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share at which it ends; below ``high``."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self


# --- processes --------------------------------------------------------------------------------------


class ProcessSettings(Settings):
    """A process that the runtime starts, watches and stops."""

    command: Command
    """Program and arguments, without a shell. ``{python}`` stands for the runtime's own interpreter."""
    env: dict[str, str] = {}
    """Variables added to the runtime's environment."""
    cwd: str | None = None
    """Working directory; the runtime's own when not given."""
    stop_timeout_s: Seconds = 5
    """Between SIGTERM and SIGKILL."""
    log: Literal["tail", "inherit", "discard"] = "tail"
    """What becomes of its output: the last 64 KiB are kept and shown, it goes to the terminal, or nowhere."""


# --- repair -----------------------------------------------------------------------------------------


class RungSettings(Settings):
    """What every rung has."""

    timeout_s: Seconds = 30
    """After so long the rung is ended and has failed. A restart once begun is waited for; its timeout must exceed
    the ``stop_timeout_s`` of all that it restarts."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """How often it is tried before the next rung."""


class RestartRungSettings(RungSettings):
    """Restart the supervised process: SIGTERM, then SIGKILL after its ``stop_timeout_s``."""

    kind: Literal["restart"]
    scope: Literal["one", "rest", "all"] = "one"
    """one: this service; rest: and all that depend on it; all: every supervised service of its group."""


class ExecRungSettings(RungSettings):
    """Run a command; exit code 0 is success. No shell. The incident is in its environment."""

    kind: Literal["exec"]
    command: Command
    """Program and arguments."""
    env: dict[str, str] = {}
    """Variables added to the runtime's environment."""
    cwd: str | None = None
    """Working directory."""


class WebhookRungSettings(RungSettings):
    """POST the incident as JSON; a 2xx answer is success."""

    kind: Literal["webhook"]
    url: HttpUrl
    """The address."""
    headers: dict[str, str] = {}
    """Request headers. Put secrets in the environment."""


class CallableRungSettings(RungSettings):
    """Await a function of an allowed extension package with the RepairContext."""

    kind: Literal["callable"]
    target: DottedName
    """Dotted name of the async function."""


class ClearCacheRungSettings(RungSettings):
    """Clear a cache. Refused until a caching module is in the configuration."""

    kind: Literal["clear_cache"]


class OpenBreakerRungSettings(RungSettings):
    """Open an upstream's circuit breaker. Refused until an orchestration module is in the configuration."""

    kind: Literal["open_breaker"]


AnyRung = Annotated[
    RestartRungSettings
    | ExecRungSettings
    | WebhookRungSettings
    | CallableRungSettings
    | ClearCacheRungSettings
    | OpenBreakerRungSettings,
    Field(discriminator="kind"),
]


class RepairPolicySettings(Settings):
    """How one service's ladder is climbed. See also ``modules.contracts.health.RepairOptions``."""

    backoff_base_s: Wait = 1
    """First upper bound of the random wait before a further attempt; doubles each time."""
    backoff_max_s: Wait = 300
    """Largest upper bound of that wait."""
    attempts_per_interval: Annotated[int, Field(ge=1)] = 10
    """At most so many rung runs in ``attempts_interval_s``. A service that needs more is given up until then."""
    attempts_interval_s: Seconds = 600
    """The interval for ``attempts_per_interval``."""
    cooldown_s: Wait = 0
    """Least time between two rung runs."""
    verify_passes: Annotated[int, Field(ge=1, le=100)] = 2
    """Passing checks after a rung before it has helped."""
    healthy_delay_s: Wait = 2
    """How long the service must then stay healthy before the incident closes."""
    verify_timeout_s: Seconds = 15
    """Without recovery for so long after a rung, the rung has not helped."""
    stable_s: Wait = 600
    """So long after an incident the ladder begins anew; sooner, the next incident uses up what is left of it, and
    when nothing is left it is given up until the service recovers, or a repair or resume is ordered."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_base_s > self.backoff_max_s:
            raise ValueError(f"backoff_base_s ({self.backoff_base_s:g}) must not be above backoff_max_s")
        return self


class ServiceSLOSettings(Settings):
    """A service's own objectives; what is not said comes from the ``slo`` group."""

    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """A check slower than so many milliseconds is not good."""
    availability: Percent | None = None
    """Percent of checks that must be good."""
    window_days: Annotated[float, Field(gt=0, le=366)] | None = None
    """Length of the window in days."""


class ServiceSettings(Settings):
    """One service: how it is probed, what it depends on, which process it is, how it is repaired."""

    probe: AnyProbe | None = None
    """How its health is seen. Not together with ``probes``."""
    probes: ProbesSettings | None = None
    """Probes by role: startup, liveness, readiness."""
    interval_s: Seconds = 5
    """Between the beginnings of two checks."""
    reprobe_ms: Annotated[float, Field(gt=0, le=60_000)] = 250
    """Wait before a quick re-probe after a first failure."""
    rise: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes in a row that make it healthy."""
    fall: Annotated[int, Field(ge=1, le=100)] = 3
    """Failures in a row that make it unhealthy."""
    startup_grace_s: Wait = 0
    """After a start, failures do not count for so long, until the first pass."""
    depends_on: tuple[str, ...] = ()
    """Services without which it cannot work. They are repaired first, it is not repaired for their fault."""
    flap: FlapSettings = FlapSettings()
    """Flap detection."""
    slo: ServiceSLOSettings = ServiceSLOSettings()
    """Its own objectives."""
    process: ProcessSettings | None = None
    """The process, when the runtime supervises it."""
    repair: tuple[AnyRung, ...] | None = None
    """The ladder. Not given: a restart rung with three attempts when there is a process, else none. ``[]``: never
    repaired."""
    repair_policy: RepairPolicySettings = RepairPolicySettings()
    """How the ladder is climbed."""

    @model_validator(mode="after")
    def _one_way_to_probe(self) -> Self:
        if self.probe is not None and self.probes is not None:
            raise ValueError("has both probe and probes; keep one of them")
        if self.probe is None and self.probes is None and self.process is None:
            raise ValueError("has neither probe nor probes nor process, so there is nothing to watch; give it one")
        return self

    @property
    def liveness(self) -> AnyProbe:
        """The probe that decides on repair; a process without a probe is probed as a process."""
        if self.probes is not None:
            return self.probes.liveness
        return self.probe or ProcessProbeSettings(kind="process")

    @property
    def readiness(self) -> AnyProbe | None:
        return self.probes.readiness if self.probes else None

    @property
    def startup(self) -> AnyProbe | None:
        return self.probes.startup if self.probes else None

    @property
    def ladder(self) -> tuple[AnyRung, ...]:
        """The rungs as they apply."""
        if self.repair is not None:
            return self.repair
        if self.process is None:
            return ()
        timeout_s = min(max(30.0, self.process.stop_timeout_s + 25), _LONGEST_S)  # it may have to wait for SIGKILL
        return (RestartRungSettings(kind="restart", attempts=3, timeout_s=timeout_s),)


# --- the module as a whole --------------------------------------------------------------------------


class StormSettings(Settings):
    """When many repairs begin at once the cause is elsewhere: stop and let things settle."""

    repairs: Annotated[int, Field(ge=1)] = 20
    """So many rung runs within ``window_s`` are a storm."""
    window_s: Seconds = 60
    """The window in which they are counted."""
    cooldown_s: Seconds = 120
    """For so long no further rung begins."""


class MaintenanceSettings(SpanSettings):
    """A time in which nothing is repaired and no SLO counts."""

    services: tuple[str, ...] = ()
    """Which services; all when empty."""

    def covers(self, service: str, now: float) -> bool:
        """Whether ``service`` is in maintenance at ``now`` (unix seconds)."""
        return (not self.services or service in self.services) and self.start.timestamp() <= now < self.end.timestamp()


class RecoverySettings(Settings):
    """V2: how the error budget steers repair."""

    repair_degraded_below: Annotated[float, Field(ge=0, le=100)] = 0
    """A DEGRADED service (alive, but not ready) is repaired too once less than so many percent of its budget is
    left; 0 never, but for the policy step ``tighten``. An UNHEALTHY service never waits for that."""
    skip_backoff_below: Annotated[float, Field(ge=0, le=100)] = 0
    """With less than so many percent of the budget left, the second attempt of an incident does not wait for its
    back-off; the later ones always do. 0: it always waits."""


class CapsSettings(Settings):
    """Safety over all services."""

    max_concurrent: Annotated[int, Field(ge=1)] = 3
    """So many rungs run at once."""
    max_unhealthy: Annotated[float, Field(gt=0, le=100)] = 50
    """At most so many percent of the services are under repair at once, rounded down, but never below one."""
    storm: StormSettings = StormSettings()
    """The storm brake."""

    def allowed_of(self, services: int) -> int:
        """How many of so many services may be under repair at once."""
        return max(1, math.floor(services * self.max_unhealthy / 100))


class SelfHealingSettings(Settings):
    """The ``selfhealing`` group."""

    version: Literal["none", "v1", "v2", "v3"] = "none"
    """none: services are watched, nothing is repaired; v1, v2, v3: see the versions."""
    caps: CapsSettings = CapsSettings()
    """Safety over all services."""
    dry_run: bool = False
    """Decide, record and report, but run no rung."""
    maintenance: tuple[MaintenanceSettings, ...] = ()
    """Times in which nothing is repaired."""
    recovery: RecoverySettings = RecoverySettings()
    """V2: how the error budget steers repair."""
