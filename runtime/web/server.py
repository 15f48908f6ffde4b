"""The admin server as a component: its port is taken first, then the application is imported and served.

Importing the framework takes a while, so it happens in a thread and only when a server starts; a port that
is in use is told before that.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import ComponentFailed
from runtime.parts import Parts

if TYPE_CHECKING:
    from runtime.web.listener import Listener
    from runtime.web.repairs import RepairRequests

_BACKLOG = 128


class AdminServer:
    """Serves the admin API of ``parts`` on ``host`` and ``port`` (0: a free one) in the running loop.

    ``stop`` ends the event streams, lets other requests finish for at most ``grace_s`` whole seconds and cuts
    the rest off.
    """

    def __init__(self, parts: Parts, *, host: str, port: int, grace_s: int = 2) -> None:
        self._parts = parts
        self._host = host
        self._port = port
        self._grace_s = grace_s
        self._state = ComponentState.CREATED
        self._detail = ""
        self._address = ""
        self._bound: socket.socket | None = None
        self._requests: RepairRequests | None = None
        self._listener: Listener | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def status(self) -> ComponentStatus:
        return ComponentStatus(self._state, self._detail)

    @property
    def address(self) -> str:
        """The URL with the real port, such as ``http://127.0.0.1:8420``; empty before the port is taken."""
        return self._address

    async def bind(self) -> None:
        """Take the port, so that a conflict is known before anything else starts; who connects waits for the start.

        Raises ConfigurationError when the address cannot be taken.
        """
        if self._bound is None:
            self._bound = await _bind(self._host, self._port)
            self._address = f"http://{_url_host(self._host)}:{self._bound.getsockname()[1]}"

    def release(self) -> None:
        """Give the port back when nothing came to serve on it."""
        if self._bound is not None:
            self._bound.close()
            self._bound, self._address = None, ""

    async def start(self) -> None:
        """Bind, unless that was done, and serve. Raises ConfigurationError when the address cannot be taken."""
        if self._state is ComponentState.RUNNING:
            return
        await self.bind()
        bound = self._bound
        assert bound is not None  # noqa: S101  bind returned
        try:
            self._requests, listener = await asyncio.to_thread(self._build)
            self._listener = listener
            self._serving = asyncio.create_task(listener.serve([bound]), name="admin server")
            await listener.wait_started(self._serving)
        except BaseException:
            await self._end()
            self.release()
            raise
        self._serving.add_done_callback(self._served)
        self._state, self._detail = ComponentState.RUNNING, self._address

    async def stop(self) -> None:
        """End streams and background repairs, let requests finish, and close every socket."""
        if self._state is ComponentState.RUNNING:
            self._state = ComponentState.STOPPED
            self._parts.events.close()
        await self._end()
        self.release()
        self._state, self._detail = ComponentState.STOPPED, ""

    def _build(self) -> tuple[RepairRequests, Listener]:
        from runtime.web.listener import build_listener  # noqa: PLC0415  heavy, so not before the port is taken

        return build_listener(self._parts, grace_s=self._grace_s)

    async def _end(self) -> None:
        if self._requests is not None:
            await self._requests.stop()
        if self._listener is not None and self._serving is not None:
            await self._listener.close(self._serving)
        self._requests = self._listener = self._serving = None

    def _served(self, serving: asyncio.Task[None]) -> None:
        """A server that ends while nobody stops it has failed: say so."""
        if self._state is not ComponentState.RUNNING:
            return
        error = None if serving.cancelled() else serving.exception()
        self._state, self._detail = ComponentState.FAILED, f"the server ended by itself: {error or 'no reason given'}"
        self._parts.events.publish(ComponentFailed(component="admin", detail=self._detail))


async def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError that names the key at fault."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"server.host: {host!r} is no address of this machine ({error.strerror}); use 127.0.0.1"
        ) from error
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise ConfigurationError(_cannot_bind(host, port, error)) from error
    return bound


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    where = f"{_url_host(host)}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"server.port: {where} is in use by another program (ss -ltnp 'sport = :{port}' names it);"
            " stop that one, choose another port, or take a free one with server.port=0"
        )
    if error.errno == errno.EACCES:
        return f"server.port: {where} needs privileges; choose 1024 or above, or take a free one with server.port=0"
    return f"server.host: {where} cannot be bound ({error.strerror}); use an address of this machine, such as 127.0.0.1"


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
