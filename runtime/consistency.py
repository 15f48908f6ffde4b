"""What no single field can see: whether the parts of a configuration fit each other, and this machine.

Each rule looks at settings that are valid one by one and yields a problem for every place that breaks it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from modules.contracts.clock import SystemClock
from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import BackendUnavailableError, ConfigurationError, DependencyError, did_you_mean
from modules.contracts.events import EventBus
from modules.contracts.health import BuildContext, Heartbeats
from modules.local import actions, probes
from modules.settings import AnyProbe, AnyRung, ServiceSettings
from runtime.extensions import Extensions
from runtime.objectives import unfit_objectives
from runtime.problems import Path, Problem
from runtime.settings import RootSettings

_ABSENT_MODULES = {"clear_cache": "caching", "open_breaker": "orchestration"}


def inconsistencies(
    settings: RootSettings, names: tuple[str, ...], objectives: tuple[str, ...] | None = ()
) -> Iterator[Problem]:
    """Yield what does not fit.

    ``names`` are all services and ``objectives`` all objectives, also those whose own settings are wrong; None when
    the names of some objectives are not known.
    """
    yield from _dependencies(settings.services, names)
    yield from _maintenance(settings, names)
    yield from _backend(settings)
    yield from _alerts(settings)
    yield from _tracing(settings)
    yield from unfit_objectives(settings, names, objectives)
    if settings.backend != "off":  # the local store is in memory
        yield from _state(FilePath(settings.state.path))
    yield from _short_restarts(settings.services)
    extensions = Extensions(settings.extensions)
    for name, service in settings.services.items():
        yield from _parts_without_process(name, service)
        yield from _rungs_without_module(name, service)
        yield from _callables(name, service, extensions)
        yield from _commands(name, service)


def probes_of(service: ServiceSettings) -> Iterator[tuple[Path, AnyProbe]]:
    """Yield every probe that is written down, with its key inside the service."""
    if service.probe is not None:
        yield ("probe",), service.probe
    if service.probes is not None:
        for role in ("startup", "liveness", "readiness"):
            if (probe := getattr(service.probes, role)) is not None:
                yield ("probes", role), probe


def _dependencies(services: Mapping[str, ServiceSettings], names: tuple[str, ...]) -> Iterator[Problem]:
    for name, service in services.items():
        for need in service.depends_on:
            if need not in names:
                found = f"{need!r} is no service{did_you_mean(need, names)}"
                yield Problem(("services", name, "depends_on"), found, ", ".join(n for n in names if n != name))
    known = {name: services[name].depends_on if name in services else () for name in names}
    try:
        DependencyGraph({name: [need for need in needs if need in known] for name, needs in known.items()})
    except DependencyError as error:
        yield Problem(("services", error.members[0], "depends_on"), str(error))


def _maintenance(settings: RootSettings, names: tuple[str, ...]) -> Iterator[Problem]:
    for index, window in enumerate(settings.selfhealing.maintenance):
        for name in window.services:
            if name not in names:
                path = ("selfhealing", "maintenance", str(index), "services")
                yield Problem(path, f"{name!r} is no service{did_you_mean(name, names)}", ", ".join(names))


def _backend(settings: RootSettings) -> Iterator[Problem]:
    beyond = [
        (("services", name, *path, "kind"), part.kind, supported)
        for name, service in settings.services.items()
        for written, supported in ((probes_of(service), probes.SUPPORTED), (_rungs_of(service), actions.SUPPORTED))
        for path, part in written
        if part.kind not in supported and part.kind not in _ABSENT_MODULES
    ]
    if settings.backend == "off":
        for path, kind, supported in beyond:
            hint = "set backend=auto, or choose another kind"
            yield Problem(path, f"{kind!r} needs the backend, and backend is off", ", ".join(sorted(supported)), hint)
        yield from _beyond_local_probes(settings)
    elif settings.backend == "on" or beyond:
        from modules.bridge import detect_self_healing  # noqa: PLC0415  it imports the backend

        backend = detect_self_healing()
        if backend.available:
            return
        if settings.backend == "on":
            hint = "install what is missing, or set backend=auto"
            yield Problem(("backend",), f"is on, but the backend cannot be used: {backend.error}", hint=hint)
        for path, kind, supported in beyond:
            found = f"{kind!r} needs the backend, which cannot be used: {backend.error}"
            yield Problem(path, found, ", ".join(sorted(supported)))


def _beyond_local_probes(settings: RootSettings) -> Iterator[Problem]:
    """Ask the local probes themselves what they cannot do; building one touches nothing."""
    clock = SystemClock()
    for name, service in settings.services.items():
        context = BuildContext(name, clock, Heartbeats(clock), Extensions(settings.extensions).load)
        for path, probe in probes_of(service):
            if probe.kind in probes.SUPPORTED and (probe.kind != "process" or probe.pidfile is not None):
                try:
                    probes.build_probe(probe, context)
                except ConfigurationError as error:
                    yield Problem(("services", name, *path), str(error), hint="set backend=auto")


def _tracing(settings: RootSettings) -> Iterator[Problem]:
    if not settings.tracing.enabled:
        return
    path = ("tracing", "enabled")
    version = settings.monitoring.version
    if version not in ("v1", "v2"):
        found = f"spans are recorded by the monitoring module, and monitoring={version} begins none"
        yield Problem(path, found, hint="choose monitoring=v2, or set tracing.enabled=false")
    if settings.backend == "off":
        found = "spans are recorded by the backend, and backend is off"
        yield Problem(path, found, hint="set backend=auto, or tracing.enabled=false")
        return
    from modules.bridge import detect  # noqa: PLC0415  it imports the backend

    backend = detect("backend.shared.monitoring.tracing_export")
    if not backend.available:
        found = f"spans are recorded by the backend, which cannot be used: {backend.error}"
        yield Problem(path, found, hint="install selfright[otel], or set tracing.enabled=false")


def _alerts(settings: RootSettings) -> Iterator[Problem]:
    if not settings.alerts.targets:
        return
    path = ("alerts", "targets")
    if settings.monitoring.version != "v2":
        found = f"alerts are sent by monitoring=v2, and it is {settings.monitoring.version}"
        yield Problem(path, found, hint="set monitoring=v2, or leave the targets out")
    if settings.backend == "off":
        yield Problem(path, "alerts need the backend, and backend is off", hint="set backend=auto")
        return
    from modules.Monitoring_V2.src.backend_integration import get_alert_manager  # noqa: PLC0415  only who alerts

    try:
        get_alert_manager(settings.alerts, clock=SystemClock(), events=EventBus())
    except (ConfigurationError, BackendUnavailableError) as error:
        yield Problem(path, str(error))


def _rungs_of(service: ServiceSettings) -> Iterator[tuple[Path, AnyRung]]:
    for index, rung in enumerate(service.repair or ()):
        yield ("repair", str(index)), rung


def _parts_without_process(name: str, service: ServiceSettings) -> Iterator[Problem]:
    if service.process is not None:
        return
    hint = f"give services.{name} a process with a command"
    for path, probe in probes_of(service):
        if probe.kind == "process" and probe.pidfile is None:
            found = "a process probe, but the service has no process"
            yield Problem(("services", name, *path), found, hint=f"{hint}, or the probe a pidfile")
    for path, rung in _rungs_of(service):
        if rung.kind == "restart":
            found = "a restart rung, but the service has no process to restart"
            yield Problem(("services", name, *path), found, hint=f"{hint}, or use an exec rung")


def _short_restarts(services: Mapping[str, ServiceSettings]) -> Iterator[Problem]:
    """A restart that may have to wait for every SIGKILL needs more time than that takes."""
    stops = {name: service.process.stop_timeout_s for name, service in services.items() if service.process}
    try:
        graph = DependencyGraph(
            {name: [need for need in service.depends_on if need in services] for name, service in services.items()}
        )
    except DependencyError:  # told already
        return
    for name, service in services.items():
        for path, rung in _rungs_of(service):  # the default ladder takes the time that it needs
            if rung.kind != "restart" or name not in stops:
                continue
            group = [member for member in graph.restart_group(name, rung.scope) if member in stops]
            needed = sum(stops[member] for member in group)
            if rung.timeout_s <= needed:
                keys = " + ".join(f"services.{member}.process.stop_timeout_s ({stops[member]:g})" for member in group)
                found = f"restarting {', '.join(group)} has {rung.timeout_s:g} s, and stopping may take {keys}"
                hint = "give the rung more time, or the processes less"
                yield Problem(("services", name, *path, "timeout_s"), found, f"above {needed:g}", hint)


def _rungs_without_module(name: str, service: ServiceSettings) -> Iterator[Problem]:
    for path, rung in _rungs_of(service):
        if rung.kind in _ABSENT_MODULES:
            found = f"{rung.kind} needs the {_ABSENT_MODULES[rung.kind]} module, and the configuration has none"
            yield Problem(("services", name, *path), found, "restart, exec, webhook, callable")


def _callables(name: str, service: ServiceSettings, extensions: Extensions) -> Iterator[Problem]:
    targets = [
        (path, part.target) for path, part in (*probes_of(service), *_rungs_of(service)) if part.kind == "callable"
    ]
    for path, target in targets:
        try:
            extensions.load(target)
        except ConfigurationError as error:
            yield Problem(("services", name, *path, "target"), str(error))


def _commands(name: str, service: ServiceSettings) -> Iterator[Problem]:
    runs: list[tuple[Path, tuple[str, ...], Mapping[str, str], str | None]] = []
    if process := service.process:
        runs.append((("process",), process.command, process.env, process.cwd))
    for path, part in (*probes_of(service), *_rungs_of(service)):
        if part.kind == "exec":
            runs.append((path, part.command, part.env, part.cwd))
    for path, command, env, cwd in runs:
        folder = FilePath(cwd or ".")
        if not folder.is_dir():
            yield Problem(("services", name, *path, "cwd"), f"{cwd!r} is not a folder", "a folder that exists")
        program = command[0].replace("{python}", sys.executable)
        place = str(folder / program) if "/" in program else program
        if shutil.which(place, path=env.get("PATH", os.environ.get("PATH"))) is None:
            found = f"program {command[0]!r} " + ("cannot be run" if FilePath(place).exists() else "was not found")
            allowed = "a program on PATH, a path to one, or {python} for this interpreter"
            yield Problem(("services", name, *path, "command"), found, allowed)


def _state(path: FilePath) -> Iterator[Problem]:
    key = ("state", "path")
    if path.is_dir():
        yield Problem(key, f"{str(path)!r} is a folder", "the path of a file")
        return
    if path.exists():
        if not os.access(path, os.R_OK | os.W_OK):
            yield Problem(key, f"{str(path)!r} cannot be written", hint="change its permissions, or set another path")
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written to" if folder.is_dir() else "is not a folder"
        yield Problem(key, f"{str(path)!r} cannot be made: {str(folder)!r} {what}", hint="set another state.path")
