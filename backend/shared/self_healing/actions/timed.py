"""One run of a rung, bounded in time whatever its action does.

An action that does not end at its timeout is cancelled. One that finishes its work even so (a restart must not stop
half way) is waited for a while longer, and one that ignores its cancellation is left behind; the rung does not run
again beside it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TypeVar

from modules.contracts.errors import SelfrightError
from modules.contracts.health import RepairContext, Rung, RungOutcome

T = TypeVar("T")

_CANCEL_GRACE_S = 10.0
_SETTLE_S = 60.0
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""What the machine or this program runs out of, whatever the service that is repaired."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, with a sentence. ``own_fault``: the repairer lacked descriptors, memory or processes."""

    outcome: RungOutcome
    detail: str
    own_fault: bool = False


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

    @property
    def busy(self) -> bool:
        """Whether its action is still at work, also after the run has timed out."""
        stray = self._stray is not None and not self._stray.done()
        return stray or bool(getattr(self.rung.action, "busy", False))

    async def run(self, context: RepairContext) -> Ended:
        """Run once and return how it ended. Never raises but for cancellation."""
        if self._stray is not None and not self._stray.done():
            return Ended(RungOutcome.FAILED, "the run before this one still goes on: it ignores its timeout")
        task = asyncio.create_task(self._run(context), name=f"{self.describe} for {context.incident}")
        try:
            done, _ = await asyncio.wait((task,), timeout=self.rung.timeout_s)
        except asyncio.CancelledError:
            await self._end(task)
            raise
        if done:
            return _read(task)
        await self._end(task)
        if self._stray is None and (settled := await self._settle()) is not None:
            return settled
        how = "goes on although it was cancelled" if self.busy else "was cancelled"
        return Ended(RungOutcome.TIMED_OUT, f"it did not end within {self.rung.timeout_s:g} s and {how}")

    async def close(self) -> None:
        """End what was left behind."""
        if self._stray is not None:
            await self._end(self._stray)
        if (close := getattr(self.rung.action, "close", None)) is not None:
            await close()

    async def _run(self, context: RepairContext) -> str:
        return await self.rung.action.run(context)

    async def _settle(self) -> Ended | None:
        """Wait for what the action finishes although its run was cancelled; None when that is nothing, or for ever."""
        if (settle := getattr(self.rung.action, "settle", None)) is None:
            return None
        task = asyncio.create_task(_await(settle()), name=f"the end of {self.describe}")
        try:
            await asyncio.wait((task,), timeout=_SETTLE_S)
        finally:
            task.cancel()
            await asyncio.wait((task,))
        if task.cancelled():
            return None
        ended = _read(task)
        return replace(ended, detail=f"{ended.detail} (later than its timeout of {self.rung.timeout_s:g} s)")

    async def _end(self, task: asyncio.Task[str]) -> None:
        task.cancel()
        await asyncio.wait((task,), timeout=_CANCEL_GRACE_S)
        self._stray = None if task.done() else task
        if task.done():
            _read(task)  # marks its exception as seen
        else:
            task.add_done_callback(_read)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _read(task: asyncio.Task[str]) -> Ended:
    if task.cancelled():
        return Ended(RungOutcome.FAILED, "it was cancelled from within")
    error = task.exception()
    if error is not None:
        text = str(error) if isinstance(error, SelfrightError) else f"its action raised {type(error).__name__}: {error}"
        return Ended(RungOutcome.FAILED, text, own_fault=_is_own_fault(error))
    said: object = task.result()
    return Ended(RungOutcome.DONE, said if isinstance(said, str) and said else "done")


def _is_own_fault(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _SCARCE:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
