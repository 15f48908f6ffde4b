"""One look at a service, bounded in time whatever the probe does.

A probe that does not end at its timeout is cancelled; one that ignores even that is left behind and reported
with each further look until it ends, so that it can neither hold up the schedule nor run twice at once.
"""

from __future__ import annotations

import asyncio

from modules.contracts.health import Probe, ProbeOutcome, ProbeResult

_CANCEL_GRACE_S = 1.0


class TimedProbe:
    """A probe with its timeout in seconds."""

    def __init__(self, probe: Probe, timeout_s: float) -> None:
        self._probe = probe
        self._timeout_s = timeout_s
        self._stray: asyncio.Task[ProbeResult] | None = None

    @property
    def kind(self) -> str:
        """The probe's kind, or its class where a user's own probe names none."""
        return str(getattr(self._probe, "kind", type(self._probe).__name__))

    async def look(self) -> ProbeResult:
        """Probe once. Never raises but for cancellation; takes at most the timeout and a second to clean up."""
        if self._stray is not None:
            if not self._stray.done():
                return _fail("the check before this one still runs: it ignores its timeout and its cancellation")
            self._stray = None
        task = asyncio.ensure_future(self._probe.probe())
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timeout_s)
            if done:
                return _read(task)
            await self._end(task)
        except asyncio.CancelledError:
            await self._end(task)
            raise
        return _fail(f"no verdict within {self._timeout_s * 1000:g} ms")

    async def close(self) -> None:
        """End what was left behind and give back the probe's connections."""
        if self._stray is not None:
            await self._end(self._stray)
        await self._probe.close()

    async def _end(self, task: asyncio.Task[ProbeResult]) -> None:
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=_CANCEL_GRACE_S)
        if done:
            _read(task)
        else:
            self._stray = task
            task.add_done_callback(_read)


def _read(task: asyncio.Task[ProbeResult]) -> ProbeResult:
    """Return what a finished probe says; also marks its exception as seen."""
    if task.cancelled():
        return _fail("the check was cancelled from within")
    error = task.exception()
    if error is not None:
        return _fail(f"the probe itself failed: {type(error).__name__}: {error}")
    answer: object = task.result()
    if not isinstance(answer, ProbeResult):
        return _fail(f"the probe returned an object of type {type(answer).__name__}; it must return a ProbeResult")
    return answer


def _fail(detail: str) -> ProbeResult:
    return ProbeResult(ProbeOutcome.FAIL, detail)
