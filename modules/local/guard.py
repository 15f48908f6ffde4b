"""This program's end of the guardian process, which ends what is left when the program has died.

Begun with the first group, and anew when somebody kills it: at once when it had lived, else after a wait that
doubles from one second to thirty, or with the next supervised process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from modules.contracts.clock import Clock
from modules.contracts.errors import ProcessError
from modules.contracts.events import ComponentFailed, EventBus
from modules.local.child import Child, spawn
from modules.local.guardian import MARK

_GUARDIAN = Path(__file__).with_name("guardian.py")
_RETRY_S = 1.0
_RETRY_MAX_S = 30.0


class Guard:
    """A ``modules.contracts.health.GroupGuard``. ``run`` begins the marks of what this program supervises."""

    def __init__(self, clock: Clock, events: EventBus, run: str) -> None:
        self._clock = clock
        self._events = events
        self._run = run
        self._child: Child | None = None
        self._began = 0.0
        self._groups: set[int] = set()
        self._retry: asyncio.Task[None] | None = None
        self._retry_s = _RETRY_S
        self.lost = False
        self._closed = False

    def open(self) -> None:
        """Let it be begun again after a stop."""
        self._closed = False

    def ensure(self) -> None:
        """Start it unless it runs; without it the children still run, and still die with their parent."""
        if self._child is not None or self._closed:
            return
        self._forget_retry()
        try:
            process = spawn(
                [sys.executable, "-I", "-S", str(_GUARDIAN), self._run],
                env={name: value for name, value in os.environ.items() if name != MARK},  # it outlives who marked it
                cwd="/",
                output="discard",
                stdin="pipe",
                tied=False,
            )
        except ProcessError as error:
            self._lose(str(error))
            return
        self._child = Child(process, tail=None, on_exit=self._exited)
        os.set_blocking(self._child.stdin, False)
        self._began = self._clock.monotonic()
        self.lost = False
        for group in self._groups:
            self._tell(f"add {group}\n")

    def add(self, group: int) -> None:
        self._groups.add(group)
        if self._child is None and self._retry is None:
            self.ensure()  # which tells it every group
        else:
            self._tell(f"add {group}\n")

    def drop(self, group: int) -> None:
        self._groups.discard(group)
        self._tell(f"drop {group}\n")

    async def stop(self) -> None:
        """End it; it kills what was not dropped. Until ``open`` it is not begun again. Safe twice."""
        self._closed = True
        if (retry := self._forget_retry()) is not None:
            await asyncio.gather(retry, return_exceptions=True)
        if self._child is not None:
            child, self._child = self._child, None
            child.ending = True
            child.close_stdin()
            if not await child.gone_within(self._clock, 2.0):
                await child.end(self._clock, 0)

    def _tell(self, line: str) -> None:
        if self._child is None:
            return
        try:
            os.write(self._child.stdin, line.encode())  # shorter than PIPE_BUF: whole or not at all
        except BlockingIOError:  # it does not read: replace it
            self._child.signal_group(signal.SIGKILL)
        except OSError:
            pass  # it has died, and its exit is about to be noticed

    def _exited(self, child: Child, code: int) -> None:
        if child.ending:
            return
        self._child = None
        lived_s = self._clock.monotonic() - self._began
        if lived_s >= _RETRY_MAX_S:
            self._retry_s = _RETRY_S
        self._lose(f"process {child.pid} ended with code {code}", at_once=lived_s >= _RETRY_S)

    def _lose(self, why: str, *, at_once: bool = False) -> None:
        """Begin it anew: at once when it had lived, else after a wait that doubles."""
        self.lost = True
        self._events.publish(ComponentFailed(component="process guardian", detail=why))
        if at_once:
            self.ensure()
        elif not self._closed:
            self._retry = asyncio.create_task(self._again(self._retry_s), name="process guardian")
            self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S)

    def _forget_retry(self) -> asyncio.Task[None] | None:
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        return retry

    async def _again(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        self._retry = None
        self.ensure()
