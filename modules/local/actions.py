"""Rungs of repair from the standard library: restart, a command, and functions of extensions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from modules.contracts.clock import Clock
from modules.contracts.errors import ConfigurationError, ProcessError, RepairError
from modules.contracts.health import (
    BuildContext,
    GroupGuard,
    ProcessControl,
    RepairAction,
    RepairContext,
    RepairFunction,
    Rung,
)
from modules.local.child import Tail, spawn, watch
from modules.local.probes import is_async

_OUTPUT_SHOWN = 500


class RungSettings(Protocol):
    """What every kind of rung has. The models themselves belong to the backend, so only their shape is named."""

    @property
    def kind(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    @property
    def attempts(self) -> int: ...


class RestartAction:
    """Restarts supervised processes: the last in start order stops first, then they start in order.

    ``restarts`` names the services whose startup grace begins anew.
    """

    kind = "restart"

    def __init__(self, names: Sequence[str], processes: ProcessControl) -> None:
        self.restarts = tuple(names)
        self._processes = processes

    @property
    def describe(self) -> str:
        return f"restart {', '.join(self.restarts)}"

    async def run(self, context: RepairContext) -> str:
        try:
            if len(self.restarts) == 1:
                await self._processes.restart(self.restarts[0])
            else:
                for name in reversed(self.restarts):
                    await self._processes.stop_process(name)
                for name in self.restarts:
                    await self._processes.start_process(name)
        except ProcessError as error:
            raise RepairError(f"{self.describe} failed: {error}") from error
        return f"restarted {', '.join(self.restarts)}"


class ExecAction:
    """Runs a command in a process group of its own; exit code 0 is success. The incident is in its environment."""

    kind = "exec"

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        clock: Clock,
        guard: GroupGuard | None = None,
    ) -> None:
        self._command = tuple(command)
        self._env = dict(env or {})
        self._cwd = cwd
        self._clock = clock
        self._guard = guard

    @property
    def describe(self) -> str:
        return f"run {self._command[0]}"  # arguments may hold secrets

    async def run(self, context: RepairContext) -> str:
        about = {
            "SELFRIGHT_SERVICE": context.service,
            "SELFRIGHT_INCIDENT": context.incident,
            "SELFRIGHT_ATTEMPT": str(context.attempt),
            "SELFRIGHT_REASON": context.reason.replace("\0", ""),
        }
        try:
            process = spawn(self._command, env=os.environ | self._env | about, cwd=self._cwd, output="pipe")
        except ProcessError as error:
            raise RepairError(str(error)) from error
        tail = Tail(_OUTPUT_SHOWN)
        child = watch(process, tail=tail, guard=self._guard)
        try:
            code = await asyncio.shield(child.exited)  # cancelling a bare future would end it for the child too
        finally:
            await child.end(self._clock, 0)
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            said = tail.text().strip()
            raise RepairError(f"{self._command[0]} {how}, expected 0{f'; it said: {said}' if said else ''}")
        return f"{self._command[0]} ended with exit code 0"


class FunctionAction:
    """Awaits a function with the RepairContext; what it returns is the sentence, an exception is its failure."""

    kind = "callable"

    def __init__(self, function: RepairFunction) -> None:
        self._function = function
        self._name = str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def describe(self) -> str:
        return f"call {self._name}"

    async def run(self, context: RepairContext) -> str:
        try:
            said: object = await self._function(context)
        except RepairError:
            raise
        except Exception as error:  # whatever a user's function raises is why it did not help
            raise RepairError(f"{self._name} failed: {type(error).__name__}: {error}") from error
        return said if isinstance(said, str) and said else f"called {self._name}"


def build_rung(settings: RungSettings, context: BuildContext) -> Rung:
    """Build the rung of ``settings.kind``. Raises ConfigurationError for what needs the backend."""
    build = _BUILDERS.get(settings.kind)
    if build is None:
        raise ConfigurationError(
            f"services.{context.service}: a rung of kind {settings.kind!r} needs the backend, and the local fallback"
            f" serves; it has {', '.join(sorted(SUPPORTED))}; set backend=auto or on, or change the ladder"
        )
    return Rung(build(settings, context), timeout_s=settings.timeout_s, attempts=settings.attempts)


def as_rung(step: Rung | RepairAction | RepairFunction, where: str) -> Rung:
    """Return a ladder's step as a rung. Raises ConfigurationError when it is none of the three."""
    if isinstance(step, Rung):
        if not (step.timeout_s > 0 and step.attempts >= 1):
            raise ConfigurationError(
                f"{where}: timeout_s must be above 0 and attempts at least 1,"
                f" found {step.timeout_s!r} and {step.attempts!r}"
            )
        return step
    if is_async(step):
        return Rung(FunctionAction(step))
    if is_async(getattr(step, "run", None)):
        return Rung(cast(RepairAction, step))
    raise ConfigurationError(f"{where}: {step!r} is no rung; give a Rung, a RepairAction or an async function")


def _restart(settings: Any, context: BuildContext) -> RepairAction:
    supervised = () if context.processes is None else context.processes.names
    if context.processes is None or context.service not in supervised:
        raise ConfigurationError(
            f"services.{context.service}: a restart rung needs a process that the runtime supervises;"
            " give the service one, or use an exec rung"
        )
    names = [name for name in context.restart_group(context.service, settings.scope) if name in supervised]
    return RestartAction(names, context.processes)


def _exec(settings: Any, context: BuildContext) -> RepairAction:
    return ExecAction(settings.command, env=settings.env, cwd=settings.cwd, clock=context.clock, guard=context.guard)


def _callable(settings: Any, context: BuildContext) -> RepairAction:
    function = context.load(settings.target)
    if not is_async(function):
        raise ConfigurationError(
            f"services.{context.service}: the rung {settings.target!r} is no async function; define it with 'async def'"
        )
    return FunctionAction(function)


_BUILDERS: Mapping[str, Callable[[Any, BuildContext], RepairAction]] = {
    "restart": _restart,
    "exec": _exec,
    "callable": _callable,
}
SUPPORTED = frozenset(_BUILDERS)
"""The kinds of rung that need no backend."""
