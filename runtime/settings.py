"""The root model: every key that a configuration may hold, validated strictly, all problems at once."""

from __future__ import annotations

import ipaddress
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from modules.settings import (
    AlertingSettings,
    AlertSettings,
    BudgetStepSettings,
    ObjectiveSettings,
    SelfHealingSettings,
    ServiceSettings,
    Settings,
    TracingSettings,
)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


ServiceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
"""Services and objectives share their names in the admin API and in every label."""


class SLOSettings(Settings):
    """The ``slo`` group: what every service promises unless it says otherwise, and further objectives."""

    latency_ms: Annotated[float, Field(gt=0)] = 500
    """A check slower than so many milliseconds is not good."""
    availability: Annotated[float, Field(gt=0, lt=100)] = 99.9
    """Percent of checks that must be good, above 0 and below 100."""
    window_days: Annotated[float, Field(gt=0, le=366)] = 30
    """Length of the window in days."""
    objectives: dict[ServiceName, ObjectiveSettings] = {}
    """Objectives beyond those of the services, by name."""
    import_: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(alias="import")] = ()
    """OpenSLO v1 files whose objectives join these, relative to the working directory."""
    alerting: AlertingSettings = AlertingSettings()
    """When a budget burns too fast, for every service and every objective that does not say otherwise."""
    policy: tuple[BudgetStepSettings, ...] = ()
    """The error budget policy: what follows as budgets run out, the highest ``below`` first."""

    @field_validator("policy")
    @classmethod
    def _one_after_the_other(cls, policy: tuple[BudgetStepSettings, ...]) -> tuple[BudgetStepSettings, ...]:
        for before, after in pairwise(policy):
            if after.below >= before.below:
                raise ValueError(
                    f"{after.step} below {after.below:g} stands after {before.step} below {before.below:g};"
                    " each further step needs a lower threshold"
                )
        steps = [step.step for step in policy]
        if twice := sorted({step for step in steps if steps.count(step) > 1}):
            raise ValueError(f"the step {twice[0]} stands here twice; keep the one that comes into force first")
        return policy


class MonitoringSettings(Settings):
    """The ``monitoring`` group."""

    version: Literal["none", "v1", "v2", "v3"] = "v2"
    """none: no metrics; v1: plain collector; v2: with objectives; v3: read only."""
    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "selfright"
    """Prefix of every metric name."""


class ServerSettings(Settings):
    """Admin API, dashboard and /metrics."""

    host: str = "127.0.0.1"
    """Address to bind. Anything but loopback is refused without authentication."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8420
    """Port; 0 takes a free one."""

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        if not _is_loopback(host):
            raise ValueError(
                f"found {host!r}: without authentication only a loopback address is allowed;"
                " use 127.0.0.1, or put a reverse proxy with authentication in front"
            )
        return host


class StateSettings(Settings):
    """What outlives a restart."""

    path: Annotated[str, Field(min_length=1)] = "var/selfright.db"
    """The state file (SQLite). Its folder is made when missing."""


class LogSettings(Settings):
    """What the program says without a terminal."""

    format: Literal["text", "json"] = "text"
    """One line an event, for people or as JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
    view: Literal["auto", "live", "lines"] = "auto"
    """live: the terminal view; lines: one line an event; auto: live in a terminal."""


class ExportSettings(Settings):
    """What ``mode=export`` writes, and where."""

    what: Literal["prometheus-rules", "grafana", "openslo", "schema"] | None = None
    """prometheus-rules: recording and alert rules; grafana: a dashboard; openslo: OpenSLO v1 documents; schema: the
    JSON schema of a configuration, for editors. To be given with mode=export."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """The file to write; standard output when not given."""
    force: bool = False
    """Whether a file that is there already is replaced."""


class RootSettings(Settings):
    """A whole configuration."""

    mode: Literal["serve", "check", "export"] = "serve"
    """serve runs the deployment; check validates it without starting anything; export writes what other programs
    need of it."""
    backend: Literal["auto", "on", "off"] = "auto"
    """auto uses the backend where it can be imported; on requires it; off uses the local fallbacks."""
    selfhealing: SelfHealingSettings = SelfHealingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    slo: SLOSettings = SLOSettings()
    services: dict[ServiceName, ServiceSettings] = {}
    """The services by name."""
    alerts: AlertSettings = AlertSettings()
    tracing: TracingSettings = TracingSettings()
    server: ServerSettings = ServerSettings()
    state: StateSettings = StateSettings()
    log: LogSettings = LogSettings()
    export: ExportSettings = ExportSettings()
    extensions: tuple[str, ...] = ()
    """The only packages from which a dotted name may be loaded."""
    drain_s: Annotated[float, Field(gt=0, le=3600)] = 10
    """How long an orderly stop may take before everything is ended."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of every random choice (phases, jitter); none takes one from the system."""
    vars: dict[str, Any] = {}
    """Your own values, for ``${vars.name}`` elsewhere. Nothing reads them otherwise."""

    @field_validator("backend", mode="before")
    @classmethod
    def _yaml_boolean(cls, value: object) -> object:
        """YAML reads a bare ``on`` or ``off`` as a boolean."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
