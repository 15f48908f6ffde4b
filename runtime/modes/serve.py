"""Serve a deployment until SIGINT or SIGTERM, then drain. A second signal ends at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from modules.contracts.errors import StateError
from modules.contracts.events import ComponentFailed, ConfigurationApplied, RuntimeStateChanged
from runtime.assembly import Deployment, assemble
from runtime.compose import Composed
from runtime.output import attach_output

_log = logging.getLogger(__name__)

_LAST_WORD_S = 2.0
"""What a drain that ran out of time gets to close its files."""


def serve(composed: Composed) -> int:
    """Run to the end and return the exit code. Raises SelfrightError when the start fails."""
    return asyncio.run(_serve(composed))


async def _serve(composed: Composed) -> int:
    deployment = assemble(composed.settings, deployment=composed.deployment)
    parts = deployment.parts
    attach_output(deployment)
    for note in parts.notes:
        _log.warning(note)
    asked_to_stop = _listen_to_signals()

    starting = asyncio.create_task(deployment.graph.start(), name="start")
    stopping = asyncio.create_task(asked_to_stop.wait(), name="stop")
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _remember(deployment, composed)
            _enter(deployment, "running", f"admin API on {deployment.address}")
            await stopping
        _enter(deployment, "draining", f"at most {composed.settings.drain_s:g} s")
    finally:
        stopping.cancel()
        await _drain(deployment, starting)
    return 0


def _remember(deployment: Deployment, composed: Composed) -> None:
    """Keep which configuration applies. A full disk is told, and no reason not to serve."""
    parts = deployment.parts
    try:
        parts.store.put("runtime", "generation", {"digest": composed.digest, "at": parts.clock.time()})
    except StateError as error:
        parts.events.publish(ComponentFailed(component="state", detail=str(error)))
    parts.events.publish(ConfigurationApplied(digest=composed.digest, summary=_summary(deployment)))


async def _drain(deployment: Deployment, starting: asyncio.Task[None]) -> None:
    """Stop everything within ``drain_s``, also a start that is under way; what has not ended by then is ended."""
    drain_s = deployment.parts.settings.drain_s
    if not starting.done():
        starting.cancel()  # the graph stops what it had started
    stopping = asyncio.create_task(_stop(deployment, starting), name="drain")
    for seconds in (drain_s, _LAST_WORD_S):
        await asyncio.wait({stopping}, timeout=seconds)
        if stopping.done():
            break
        # A stop that is cancelled kills the processes that it waited for; the rest of the graph still has to stop.
        _log.warning("not everything stopped within %g s; the rest is ended", seconds)
        starting.cancel()
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=_LAST_WORD_S)
        stopping = asyncio.create_task(_stop(deployment, starting), name="last word")


async def _stop(deployment: Deployment, starting: asyncio.Task[None]) -> None:
    if not starting.done():
        await asyncio.wait({starting})
    await deployment.graph.stop()


def _listen_to_signals() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; the second ends the program where it stands."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if asked.is_set():
            os.write(sys.stderr.fileno(), b"\nended at once\n")
            os._exit(128 + number)  # the guardian ends the children
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    return asked


def _enter(deployment: Deployment, state: str, detail: str) -> None:
    parts = deployment.parts
    parts.state, parts.state_since = state, parts.clock.time()
    parts.events.publish(RuntimeStateChanged(current=state, detail=detail))


def _summary(deployment: Deployment) -> str:
    settings = deployment.parts.settings
    return (
        f"selfhealing {settings.selfhealing.version}, monitoring {settings.monitoring.version},"
        f" backend {settings.backend}, {len(settings.services)} services"
    )
