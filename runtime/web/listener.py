"""uvicorn inside a loop that is not its own: no signal handlers, a start that can be awaited, a bounded end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from runtime.parts import Parts
from runtime.web.app import create_app
from runtime.web.repairs import RepairRequests


class Listener(uvicorn.Server):
    """Serves ``app`` until :meth:`close`, which takes at most about ``grace_s`` seconds."""

    def __init__(self, app: ASGIApp, *, grace_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._grace_s = grace_s
        self.servers = []
        self._accepting = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the mode that runs the deployment."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._accepting.set()

    async def wait_started(self, serving: asyncio.Task[None]) -> None:
        """Return when connections are accepted; raises what ended ``serving`` before that."""
        accepting = asyncio.create_task(self._accepting.wait())
        try:
            await asyncio.wait({accepting, serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            accepting.cancel()
            await asyncio.wait({accepting})
        if serving.done():
            serving.result()

    async def close(self, serving: asyncio.Task[None]) -> None:
        """Accept nothing more, wait for requests within the bound, then cut off what is left."""
        self.should_exit = True
        # Two seconds above the grace: uvicorn itself polls in tenths, and a machine may be busy.
        _, late = await asyncio.wait({serving}, timeout=self._grace_s + 2)
        for task in late:
            task.cancel()
        for server in self.servers:  # still open when serving ended without its own shutdown
            server.close()
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        tasks = {serving, *self.server_state.tasks}
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop


def build_listener(parts: Parts, *, grace_s: int) -> tuple[RepairRequests, Listener]:
    """Return the background repairs and the server of the admin API over ``parts``."""
    requests = RepairRequests(parts)
    return requests, Listener(create_app(parts, requests), grace_s=grace_s)
