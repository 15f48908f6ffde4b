"""An event loop whose clock advances instead of waiting.

Whenever nothing is ready to run, the clock jumps to the next deadline. Sleeps and timeouts of real
components therefore take no time, and a run is repeatable. Only the loop's own clock may be used inside:
a task that waits for a socket, a thread or a process would wait for ever, so that is an error that says so.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

from modules.contracts.errors import SelfrightError

P = ParamSpec("P")
T = TypeVar("T")


class SimulationStalledError(SelfrightError):
    """Every task waits, and no deadline is left to advance to."""


class _AdvancingSelector(selectors.BaseSelector):
    """Polls the real selector without waiting, and advances the clock by what the loop would have waited."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._advance = advance

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready and (timeout is None or timeout > 0):
            self._advance(timeout)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time, beginning at ``start`` seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        super().__init__(_AdvancingSelector(self._advance))

    def time(self) -> float:
        return self._now

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            waiting = sorted(
                getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks(self) if not task.done()
            )
            raise SimulationStalledError(
                "nothing is left to wait for in virtual time, yet these tasks wait: "
                f"{', '.join(waiting) or 'none'}; a component that waits on real I/O cannot run here"
            )
        # A deadline that rounds to the same float would be polled for ever.
        self._now += max(timeout, self._now * 1e-15, 1e-9)


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]], *, start: float = 0.0) -> T:
    """Run ``main()`` to its end on a fresh virtual loop and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start)) as runner:
        return runner.run(main())


def virtual_time(test: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Decorate an ``async def`` so that calling it runs it in virtual time; for tests."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        async def main() -> T:
            return await test(*args, **kwargs)

        return run_in_virtual_time(main)

    return run
