"""Say what a configuration would run, and start nothing. A configuration with problems never comes this far."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from modules.contracts.dependencies import DependencyGraph
from modules.settings import AnyProbe, AnyRung, ServiceSettings
from runtime.compose import Composed
from runtime.problems import scrub
from runtime.settings import RootSettings


def check(composed: Composed) -> int:
    """Print a summary and return the exit code 0."""
    sys.stdout.write("\n".join(_summary(composed)) + "\n")
    return 0


def _summary(composed: Composed) -> Iterator[str]:
    settings = composed.settings
    choices = ", ".join(f"{group}={option}" for group, option in sorted(composed.choices.items()))
    yield f"configuration {composed.digest} is valid; nothing was started"
    yield f"choices    {choices}"
    yield f"modules    {_modules(settings)}"
    yield (
        f"slo        {settings.slo.availability:g} % of checks within {settings.slo.latency_ms:g} ms"
        f" over {settings.slo.window_days:g} days"
    )
    yield f"admin API  http://{settings.server.host}:{settings.server.port}"
    yield f"state      {settings.state.path}"
    order = DependencyGraph({name: service.depends_on for name, service in settings.services.items()}).order
    width = max(map(len, order), default=0)
    label = "services"
    for name in order:
        yield f"{label:<10} {name:<{width}}  {_service(settings.services[name])}"
        label = ""
    if not order:
        yield f"{label:<10} none"


def _modules(settings: RootSettings) -> str:
    dry = ", dry run" if settings.selfhealing.dry_run else ""
    return (
        f"selfhealing {settings.selfhealing.version}{dry}; monitoring {settings.monitoring.version};"
        f" backend {settings.backend}"
    )


def _service(service: ServiceSettings) -> str:
    probes = [
        f"{role} {_probe(probe)}"
        for role, probe in (
            ("startup", service.startup),
            ("liveness", service.liveness),
            ("readiness", service.readiness),
        )
        if probe
    ]
    parts = [f"every {service.interval_s:g} s: {', '.join(probes)}"]
    parts.append("repair: " + (", then ".join(map(_rung, service.ladder)) or "none"))
    if service.depends_on:
        parts.append(f"needs {', '.join(service.depends_on)}")
    return "; ".join(parts)


def _probe(probe: AnyProbe) -> str:
    match probe.kind:
        case "http":
            return f"http {scrub(probe.url)}"
        case "tcp":
            return f"tcp {probe.host}:{probe.port}"
        case "exec":
            return f"exec {probe.command[0]}"
        case "heartbeat":
            return f"heartbeat within {probe.ttl_s:g} s"
        case "callable":
            return f"callable {probe.target}"
        case "process":
            return "process"


def _rung(rung: AnyRung) -> str:
    times = f" (up to {rung.attempts} times)" if rung.attempts > 1 else ""
    match rung.kind:
        case "exec":
            return f"exec {rung.command[0]}{times}"
        case "callable":
            return f"callable {rung.target}{times}"
        case kind:
            return f"{kind}{times}"
