"""A lane of messages to one target: a bounded queue and what empties it, so that one that hangs delays no other.

Each target hears of an alert in order. A failed delivery is tried again after an exponential back-off with full
jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from backend.shared.monitoring.alert_notice import Notice
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alert_targets import DeliveryError, Target
from modules.contracts.clock import Clock

BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 60.0
RETRY_S = 60.0
"""After its last quick try a message is tried again so often, until it arrives or is no longer wanted."""
WAITING_MAX = 1000
"""Messages that wait for one target; more are not sent to it, and that is said."""


class Lane:
    """Delivers to ``target``. ``begin(notice, target)`` is asked before each try whether it is still wanted;
    ``failed(notice, target, why)`` is told when it does not arrive for now, ``end(notice, target, why it failed or
    None)`` how it went in the end; ``report`` takes what nobody expected."""

    def __init__(
        self,
        target: Target,
        settings: AlertSettings,
        *,
        clock: Clock,
        rng: random.Random,
        begin: Callable[[Notice, str], bool],
        failed: Callable[[Notice, str, str], None],
        end: Callable[[Notice, str, str | None], None],
        report: Callable[[Exception], None],
    ) -> None:
        self.name = target.name
        self.fault: str | None = None
        self._target = target
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._begin = begin
        self._failed = failed
        self._end = end
        self._report = report
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(WAITING_MAX)

    def push(self, notice: Notice) -> None:
        """Queue a message, or end it as failed when too many wait already."""
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self._end(notice, self.name, f"{WAITING_MAX} messages wait for it already")

    async def run(self) -> None:
        """Deliver, for ever."""
        while True:
            notice = await self._queue.get()
            try:
                await self._deliver(notice)
            except Exception as error:  # the lane must go on with the next message
                self._report(error)
            finally:
                self._queue.task_done()

    async def join(self) -> None:
        """Wait until nothing waits any more."""
        await self._queue.join()

    async def close(self) -> None:
        """Drop what waits, after ``run`` was cancelled; it is in the book, for the next start."""
        self._queue = asyncio.Queue(WAITING_MAX)
        await self._target.close()

    async def _deliver(self, notice: Notice) -> None:
        """Try until it arrives or is no longer wanted; after the last quick try that is said, once."""
        tries = self._settings.retries + 1
        failures = 0
        while self._begin(notice, self.name):
            self.fault = await self._attempt(notice)
            if self.fault is None:
                self._end(notice, self.name, None)
                return
            failures += 1
            if failures == tries:
                why = f"{self.fault}; tried {'once' if tries == 1 else f'{tries} times'}"
                if notice.reminder:  # the next one comes anyway, and must not keep news waiting
                    self._end(notice, self.name, why)
                    return
                self._failed(notice, self.name, why)
            longest = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** (failures - 1))
            await self._clock.sleep(RETRY_S if failures >= tries else self._rng.uniform(0, longest))

    async def _attempt(self, notice: Notice) -> str | None:
        """Try once and return why it failed, without any address."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._target.send(notice)
        except TimeoutError:
            return f"no answer within {self._settings.timeout_s:g} s"
        except DeliveryError as error:
            return str(error)
        except Exception as error:  # a fault of the target's code is a failed delivery; its text may hold a secret
            return f"failed ({type(error).__name__})"
        return None
