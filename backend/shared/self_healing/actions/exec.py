"""Runs a command: exit code 0 is success. Its whole process group ends with it, at the timeout, and when cancelled."""

from __future__ import annotations

from backend.shared.self_healing.command import run_command
from backend.shared.self_healing.settings import ExecRungSettings
from modules.contracts.errors import RepairError
from modules.contracts.health import BuildContext, GroupGuard, RepairContext


class ExecAction:
    """Runs ``settings.command`` without a shell, with the incident in its environment."""

    kind = "exec"

    def __init__(self, settings: ExecRungSettings, guard: GroupGuard | None = None) -> None:
        self._settings = settings
        self._guard = guard

    @property
    def describe(self) -> str:
        return f"run {self._settings.command[0]}"  # arguments may hold secrets

    async def run(self, context: RepairContext) -> str:
        settings = self._settings
        program = settings.command[0]
        about = {
            "SELFRIGHT_SERVICE": context.service,
            "SELFRIGHT_INCIDENT": context.incident,
            "SELFRIGHT_ATTEMPT": str(context.attempt),
            "SELFRIGHT_REASON": context.reason.replace("\0", ""),  # the environment cannot hold it
        }
        try:
            env = settings.env | about
            result = await run_command(settings.command, env=env, cwd=settings.cwd, guard=self._guard)
        except FileNotFoundError as error:
            missing = f"the working directory {settings.cwd!r}" if error.filename == settings.cwd else repr(program)
            raise RepairError(f"{missing} does not exist; install it or give its full path") from error
        except (OSError, ValueError) as error:
            raise RepairError(f"{program!r} cannot be executed: {error}") from error
        if result.code != 0:
            said = f"; its output ended: {result.last_line}" if result.last_line else ""
            raise RepairError(f"{program!r} {result.how}, expected code 0{said}")
        return f"{program!r} ended with code 0"


def build(settings: ExecRungSettings, context: BuildContext) -> ExecAction:
    return ExecAction(settings, context.guard)
