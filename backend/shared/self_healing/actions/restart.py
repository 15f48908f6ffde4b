"""Restarts supervised processes: this one, all that depend on it, or its whole group (Erlang/OTP's strategies)."""

from __future__ import annotations

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

    @property
    def describe(self) -> str:
        return f"restart {', '.join(self.restarts)}"

    async def run(self, context: RepairContext) -> str:
        name = self.restarts[0]
        try:
            for name in reversed(self.restarts[1:]):  # what depends on others lets go of them first
                await self._processes.stop_process(name)
            for name in self.restarts:
                await self._processes.restart(name)
        except ProcessError as error:
            raise RepairError(f"{name} could not be restarted: {error}") from error
        return f"restarted {', '.join(self.restarts)}"


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
