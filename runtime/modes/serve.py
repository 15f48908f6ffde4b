"""Serve a deployment until SIGINT or SIGTERM, then drain. A second signal ends at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from modules.contracts.events import ConfigurationApplied, RuntimeStateChanged
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
        if not starting.done():
            starting.cancel()  # the graph stops what it had started
            await asyncio.wait({starting})
        if not starting.cancelled():
            starting.result()
            parts.store.put("runtime", "generation", {"digest": composed.digest, "at": parts.clock.time()})
            parts.events.publish(ConfigurationApplied(digest=composed.digest, summary=_summary(deployment)))
            _enter(deployment, "running", f"admin API on {deployment.address}")
            await stopping
            _enter(deployment, "draining", f"at most {composed.settings.drain_s:g} s")
    finally:
        stopping.cancel()
        await _drain(deployment)
    return 0


async def _drain(deployment: Deployment) -> None:
    """Stop everything within ``drain_s``; what has not ended by then is ended."""
    drain_s = deployment.parts.settings.drain_s
    try:
        async with asyncio.timeout(drain_s):
            await deployment.graph.stop()
    except TimeoutError:
        # A stop that is cancelled kills the processes that it waited for; the rest of the graph still has to stop.
        _log.warning("not everything stopped within drain_s (%g s); the rest is ended", drain_s)
        async with asyncio.timeout(_LAST_WORD_S):
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
