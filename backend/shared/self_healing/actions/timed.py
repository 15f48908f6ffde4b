"""One run of a rung, bounded in time whatever its action does.

An action that does not end at its timeout is cancelled; one that ignores even that is left behind, and the rung
does not run again until it has ended.
"""

from __future__ import annotations

import asyncio

from modules.contracts.errors import SelfrightError
from modules.contracts.health import RepairContext, Rung, RungOutcome

_CANCEL_GRACE_S = 10.0


class TimedRung:
    """A rung that is run with its timeout."""

    def __init__(self, rung: Rung) -> None:
        self.rung = rung
        self.describe = rung.action.describe
        self._stray: asyncio.Task[str] | None = None

    @property
    def restarts(self) -> tuple[str, ...]:
        """The services that its action restarts, if that is what it does."""
        return tuple(getattr(self.rung.action, "restarts", ()))

    async def run(self, context: RepairContext) -> tuple[RungOutcome, str]:
        """Run once and return the outcome with a sentence. Never raises but for cancellation."""
        if self._stray is not None and not self._stray.done():
            return RungOutcome.FAILED, "the run before this one still goes on: it ignores its timeout"
        task = asyncio.create_task(self._run(context), name=f"{self.describe} for {context.incident}")
        try:
            done, _ = await asyncio.wait((task,), timeout=self.rung.timeout_s)
        except asyncio.CancelledError:
            await self._end(task)
            raise
        if done:
            return _read(task)
        await self._end(task)
        ignored = ", and goes on although it was cancelled" if self._stray else " and was cancelled"
        return RungOutcome.TIMED_OUT, f"it did not end within {self.rung.timeout_s:g} s{ignored}"

    async def close(self) -> None:
        """End what was left behind."""
        if self._stray is not None:
            await self._end(self._stray)

    async def _run(self, context: RepairContext) -> str:
        return await self.rung.action.run(context)

    async def _end(self, task: asyncio.Task[str]) -> None:
        task.cancel()
        await asyncio.wait((task,), timeout=_CANCEL_GRACE_S)
        self._stray = None if task.done() else task
        if task.done():
            _read(task)  # marks its exception as seen
        else:
            task.add_done_callback(_read)


def _read(task: asyncio.Task[str]) -> tuple[RungOutcome, str]:
    if task.cancelled():
        return RungOutcome.FAILED, "it was cancelled from within"
    error = task.exception()
    if isinstance(error, SelfrightError):
        return RungOutcome.FAILED, str(error)
    if error is not None:
        return RungOutcome.FAILED, f"its action raised {type(error).__name__}: {error}"
    said: object = task.result()
    return RungOutcome.DONE, said if isinstance(said, str) and said else "done"
