"""Runs a command: exit code 0 passes. Its whole process group ends at the timeout."""

from __future__ import annotations

import asyncio
import re

from backend.shared.self_healing.command import OUTPUT_BYTES, run_command
from backend.shared.self_healing.probes.faults import erred, fail, judge_own
from backend.shared.self_healing.settings import ExecProbeSettings
from modules.contracts.health import PASS, BuildContext, GroupGuard, ProbeResult


class ExecProbe:
    """Runs ``settings.command`` and judges its exit code and output."""

    kind = "exec"

    def __init__(self, settings: ExecProbeSettings, guard: GroupGuard | None = None) -> None:
        self._settings = settings
        self._guard = guard
        self._pattern = re.compile(settings.expect_output) if settings.expect_output is not None else None

    async def probe(self) -> ProbeResult:
        settings = self._settings
        program = settings.command[0]
        try:
            async with asyncio.timeout(settings.timeout_ms / 1000):
                result = await run_command(settings.command, env=settings.env, cwd=settings.cwd, guard=self._guard)
        except TimeoutError:
            return fail(f"{program!r} did not end within {settings.timeout_ms:g} ms and was killed")
        except (OSError, ValueError) as error:
            return self._judge_start(error)
        if result.code != 0:
            said = f", and said: {result.last_line}" if result.last_line else ""
            return fail(f"{program!r} {result.how}, expected code 0{said}")
        if self._pattern is not None and not self._pattern.search(result.output.decode("utf-8", "replace")):
            more = f" in the first {OUTPUT_BYTES} bytes" if len(result.output) == OUTPUT_BYTES else ""
            return fail(f"the output of {program!r} does not match {self._pattern.pattern!r}{more}")
        return PASS

    def _judge_start(self, error: OSError | ValueError) -> ProbeResult:
        program, cwd = self._settings.command[0], self._settings.cwd
        match error:
            case FileNotFoundError() if cwd is not None and error.filename == cwd:
                return erred(f"the working directory {cwd!r} of the command {program!r} does not exist")
            case FileNotFoundError():
                return erred(f"the command {program!r} does not exist; install it or give its full path")
            case PermissionError():
                return erred(f"the command {program!r} may not be executed; give it the permission (chmod +x)")
            case OSError() if own := judge_own(error):
                return own
            case _:
                return erred(f"the command {program!r} cannot be executed: {error}")

    async def close(self) -> None:
        """Nothing is held."""


def build(settings: ExecProbeSettings, context: BuildContext) -> ExecProbe:
    return ExecProbe(settings, context.guard)
