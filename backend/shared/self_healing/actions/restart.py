"""Restarts supervised processes: this one, all that depend on it, or its whole group (Erlang/OTP's strategies).

What was stopped is started again whatever happens, and a restart once begun goes on to its end: half of it would
leave services stopped that were well. Who is cancelled meanwhile can wait for the end with ``settle``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from backend.shared.self_healing.settings import RestartRungSettings
from modules.contracts.errors import ConfigurationError, ProcessError, RepairError
from modules.contracts.health import BuildContext, ProcessControl, RepairContext


class RestartAction:
    """Restarts ``names``, which stand in start order.

    ``restarts`` tells the monitor's owner whose startup grace begins anew.
    """

    kind = "restart"

    def __init__(self, names: Sequence[str], processes: ProcessControl) -> None:
        self.restarts = tuple(names)
        self._processes = processes
        self._work: asyncio.Task[str] | None = None

    @property
    def describe(self) -> str:
        return f"restart {', '.join(self.restarts)}"

    @property
    def busy(self) -> bool:
        """Whether a restart is under way, also one whose caller has left."""
        return self._work is not None and not self._work.done()

    async def run(self, context: RepairContext) -> str:
        """Restart, or join the restart under way; being cancelled does not end it."""
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._restart(), name=f"{self.describe} for {context.incident}")
        return await asyncio.shield(self._work)

    async def settle(self) -> str | None:
        """Wait for the end of the restart under way, and return or raise what ``run`` would have."""
        return None if self._work is None else await asyncio.shield(self._work)

    async def close(self) -> None:
        """Leave the restart under way to the owner of the processes; safe twice."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))

    async def _restart(self) -> str:
        faults: dict[str, ProcessError] = {}
        stopped: list[str] = []
        for name in reversed(self.restarts[1:]):  # what depends on others lets go of them first
            try:
                await self._processes.stop_process(name)
            except ProcessError as error:
                faults[name] = error
                break  # what it depends on must not be taken from under it
            stopped.append(name)
        names = [name for name in self.restarts if name in stopped] if faults else self.restarts
        for name in names:
            try:
                await self._processes.restart(name)
            except ProcessError as error:
                faults[name] = error
        if not faults:
            return f"restarted {', '.join(self.restarts)}"
        said = "; ".join(f"{name} could not be restarted: {error}" for name, error in faults.items())
        running = [name for name in stopped if name not in faults]
        if running:
            said += f"; started again: {', '.join(reversed(running))}"
        raise RepairError(said) from next(iter(faults.values()))


def build(settings: RestartRungSettings, context: BuildContext) -> RestartAction:
    """Raises ConfigurationError when the runtime does not supervise the service's process."""
    processes = context.processes
    if processes is None or context.service not in processes.names:
        raise ConfigurationError(
            f"services.{context.service}.repair: a restart rung needs a process that the runtime supervises; give the"
            f" service one (services.{context.service}.process), or restart it with an exec rung"
        )
    group = context.restart_group(context.service, settings.scope)
    return RestartAction([name for name in group if name in processes.names], processes)
