"""Time is handed in, so that the objects that serve also run under a virtual clock.

Durations and deadlines use :meth:`Clock.monotonic`; only what a person reads or what must outlive a
restart uses :meth:`Clock.time`, which may jump in either direction.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. All values are in seconds."""

    def monotonic(self) -> float:
        """Return a reading that never goes back; only differences mean anything."""
        ...

    def time(self) -> float:
        """Return the wall clock as seconds since 1970-01-01 UTC; it may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``; zero or less yields to the loop once."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class LoopClock:
    """The running event loop's clock, with a fixed start for the wall clock.

    Under a loop whose time is simulated, every timeout, sleep and deadline then agrees.
    """

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self._epoch = epoch

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        return self._epoch + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
