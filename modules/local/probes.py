"""Probes from the standard library: whether a service answers at all, without the backend's finer questions.

What needs the backend (matching bodies, following redirects, certificate expiry, memory, functions of
extensions) is refused when the probe is built, never passed over.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from modules.contracts.clock import Clock
from modules.contracts.errors import ConfigurationError, ProcessError
from modules.contracts.health import (
    PASS,
    BuildContext,
    Check,
    GroupGuard,
    Probe,
    ProbeOutcome,
    ProbeResult,
    ProcessControl,
)
from modules.local.child import spawn, watch
from modules.local.connections import HttpProbe, TcpProbe, fail, judge
from modules.local.heartbeat import HeartbeatProbe


class ProbeSettings(Protocol):
    """What every kind of probe has. The models themselves belong to the backend, so only their shape is named."""

    @property
    def kind(self) -> str: ...

    @property
    def timeout_ms(self) -> float: ...


class FunctionProbe:
    """Awaits a user's check: True or None passes, False fails, an exception fails with its text."""

    kind = "callable"

    def __init__(self, check: Check) -> None:
        self._check = check

    async def probe(self) -> ProbeResult:
        try:
            answer: object = await self._check()
        except Exception as error:  # whatever a user's check raises is its verdict
            return fail(f"{type(error).__name__}: {error}")
        if isinstance(answer, ProbeResult):
            return answer
        if answer is True or answer is None:
            return PASS
        if answer is False:
            return fail("the check returned False")
        return fail(f"the check returned a {type(answer).__name__}; it must return a bool, None or a ProbeResult")

    async def close(self) -> None:
        """Nothing is held."""


class ExecProbe:
    """Runs a command in a process group of its own; exit code 0 passes. The group ends with the probe."""

    kind = "exec"

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = 1.0,
        clock: Clock,
        guard: GroupGuard | None = None,
    ) -> None:
        self._command = tuple(command)
        self._env = dict(env or {})
        self._cwd = cwd
        self._timeout_s = timeout_s
        self._clock = clock
        self._guard = guard

    async def probe(self) -> ProbeResult:
        try:
            process = spawn(self._command, env=os.environ | self._env, cwd=self._cwd, output="discard")
        except ProcessError as error:  # the command cannot be started: that says nothing about the service
            return ProbeResult(ProbeOutcome.ERROR, str(error))
        child = watch(process, tail=None, guard=self._guard)
        try:
            if not await child.gone_within(self._clock, self._timeout_s):
                return fail(f"{self._command[0]} did not end within {self._timeout_s * 1000:g} ms")
        finally:
            await child.end(self._clock, 0)
        code = child.exited.result()
        if code == 0:
            return PASS
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return fail(f"{self._command[0]} {how}, expected 0")

    async def close(self) -> None:
        """Nothing is held."""


class ProcessProbe:
    """Asks the supervisor whether the service's process runs."""

    kind = "process"

    def __init__(self, service: str, processes: ProcessControl) -> None:
        self._service = service
        self._processes = processes

    async def probe(self) -> ProbeResult:
        status = self._processes.get_status(self._service)
        return PASS if status.running else fail(f"its process {status.ending}")

    async def close(self) -> None:
        """Nothing is held."""


class SupervisedProbe:
    """Asks ``probe`` only while the service's process runs; once that has ended there is nothing to wait for."""

    def __init__(self, probe: Probe, service: str, processes: ProcessControl) -> None:
        self.kind = probe.kind
        self._probe = probe
        self._process = ProcessProbe(service, processes)

    async def probe(self) -> ProbeResult:
        process = await self._process.probe()
        return await self._probe.probe() if process.passed else process

    async def close(self) -> None:
        await self._probe.close()


class PidfileProbe:
    """Whether the process whose id stands in a file exists."""

    kind = "process"

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def probe(self) -> ProbeResult:
        try:
            pid = int(self._path.read_text(encoding="ascii").strip())
            if pid <= 0:
                raise ValueError("a process group, not a process")
            os.kill(pid, 0)
        except FileNotFoundError:
            return fail(f"the pid file {self._path} does not exist")
        except (ValueError, OverflowError):
            return fail(f"the pid file {self._path} holds no process id")
        except ProcessLookupError:
            return fail(f"process {pid} of {self._path} does not run")
        except OSError as error:
            # Who may not send it a signal has still seen that it exists.
            return (
                PASS if isinstance(error, PermissionError) and error.filename is None else judge(error, str(self._path))
            )
        return PASS

    async def close(self) -> None:
        """Nothing is held."""


def is_async(function: object) -> TypeGuard[Callable[..., Awaitable[Any]]]:
    """Whether calling ``function`` gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__"))  # noqa: B004, B009  the method is looked at, not whether there is one


def build_probe(settings: ProbeSettings, context: BuildContext) -> Probe:
    """Build the probe of ``settings.kind``. Raises ConfigurationError for what needs the backend."""
    build = _BUILDERS.get(settings.kind)
    if build is None:
        raise _needs_backend(context, f"a probe of kind {settings.kind!r}")
    probe, processes = build(settings, context), _supervision(context)
    return probe if processes is None else SupervisedProbe(probe, context.service, processes)


def _http(settings: Any, context: BuildContext) -> Probe:
    for key, off in (
        ("expect_body", None),
        ("max_latency_ms", None),
        ("max_redirects", 0),
        ("min_certificate_days", None),
    ):
        if getattr(settings, key) != off:
            raise _needs_backend(context, f"{key} of an http probe")
    return HttpProbe(
        settings.url,
        method=settings.method,
        headers=settings.headers,
        expect_status=settings.expect_status,
        verify_tls=settings.verify_tls,
        timeout_s=settings.timeout_ms / 1000,
    )


def _tcp(settings: Any, context: BuildContext) -> Probe:
    return TcpProbe(settings.host, settings.port, timeout_s=settings.timeout_ms / 1000)


def _exec(settings: Any, context: BuildContext) -> Probe:
    if settings.expect_output is not None:
        raise _needs_backend(context, "expect_output of an exec probe")
    return ExecProbe(
        settings.command,
        env=settings.env,
        cwd=settings.cwd,
        timeout_s=settings.timeout_ms / 1000,
        clock=context.clock,
        guard=context.guard,
    )


def _process(settings: Any, context: BuildContext) -> Probe:
    if settings.max_rss_mb is not None:
        raise _needs_backend(context, "max_rss_mb of a process probe")
    if settings.pidfile is not None:
        return PidfileProbe(settings.pidfile)
    processes = _supervision(context)
    if processes is None:
        raise ConfigurationError(
            f"services.{context.service}: a process probe needs a process that the runtime supervises;"
            " give the service one, or the probe a pidfile"
        )
    return ProcessProbe(context.service, processes)


def _callable(settings: Any, context: BuildContext) -> Probe:
    function = context.load(settings.target)
    if not is_async(function):
        raise ConfigurationError(
            f"services.{context.service}: the probe {settings.target!r} is no async function;"
            " define it with 'async def'"
        )
    return FunctionProbe(functools.partial(function, **settings.arguments))


def _heartbeat(settings: Any, context: BuildContext) -> Probe:
    return HeartbeatProbe(
        context.service,
        settings.ttl_s,
        heartbeats=context.heartbeats,
        clock=context.clock,
        processes=_supervision(context),
    )


def _supervision(context: BuildContext) -> ProcessControl | None:
    """Who supervises the service's process, when it has one."""
    supervised = context.processes is not None and context.service in context.processes.names
    return context.processes if supervised else None


_BUILDERS: Mapping[str, Callable[[Any, BuildContext], Probe]] = {
    "http": _http,
    "tcp": _tcp,
    "exec": _exec,
    "process": _process,
    "heartbeat": _heartbeat,
    "callable": _callable,
}
SUPPORTED = frozenset(_BUILDERS)
"""The kinds of probe that need no backend."""


def _needs_backend(context: BuildContext, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"services.{context.service}: {what} needs the backend, and the local fallback serves;"
        f" probes without it: {', '.join(sorted(SUPPORTED))}, plain; set backend=auto or on, or change the probe"
    )
