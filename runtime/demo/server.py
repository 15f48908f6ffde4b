"""A small threaded HTTP server with a fault switch; what the demo services have in common.

Every request but those to ``/_fault`` passes the fault first, so a service fails as a whole: its health
check, its work and its heartbeats alike.
"""

from __future__ import annotations

import json
import os
import select
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

from runtime.demo.faults import Fault, FaultError, parse

MAX_BODY = 1_048_576
"""Bytes of a request's body that are accepted."""
LINGER_S = 0.5
"""For how long the rest of a refused request is waited for."""

Answer = tuple[int, Any]
"""Status code and a body that becomes JSON."""
Route = Callable[[str, bytes], Answer]
"""``(rest of the path, body) -> answer``."""


class Service(socketserver.ThreadingMixIn, HTTPServer):
    """One service on 127.0.0.1. ``routes`` maps a method and a path, or a path's beginning up to a slash.

    ``latency_s`` is what the fault latency takes when nobody says how much.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, name: str, port: int, routes: Mapping[tuple[str, str], Route], *, latency_s: float = 2.0
    ) -> None:
        self.name = name
        self.latency_s = latency_s
        self.routes = routes
        self._fault: Fault | None = None
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own would ask the name server for a host name
        self.server_port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report; anything else goes to standard error as usual."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def fault(self) -> Fault | None:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def suffer(self, gone: Callable[[], bool] = lambda: False) -> Fault | None:
        """Wait as the fault demands, for ``hang`` until it is switched off or ``gone()``, and return it."""
        fault = self._fault
        if fault is not None and fault.kind in ("latency", "hang"):
            with self._changed:
                if fault.kind == "latency":
                    self._changed.wait_for(lambda: self._fault is not fault, timeout=fault.seconds)
                else:
                    while not (self._changed.wait_for(lambda: self._fault is not fault, timeout=0.25) or gone()):
                        pass
        return fault


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    server_version = "selfright-demo"
    timeout = 60
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a probe every second would bury what matters."""

    def handle_request(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        if body is None:
            return
        if path == "/_fault":
            self._switch(query, body)
            return
        fault = self.server.suffer(self._client_is_gone)
        if fault is not None and fault.kind == "hang":
            self.close_connection = True  # never answered
        elif fault is not None and fault.kind == "error":
            self._send(fault.status, {"status": "error", "reason": "the fault switch says error"})
        else:
            self._send(*self._route(path, body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815  http.server looks for these names

    def _body(self) -> bytes | None:
        """Return the body, or None once a wrong one has been refused."""
        if "Transfer-Encoding" in self.headers:
            self._refuse(411, "send a Content-Length instead of chunks")
            return None
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self._refuse(413, f"Content-Length must be a number from 0 to {MAX_BODY}, found {length!r}")
            return None
        return self.rfile.read(int(length))

    def _refuse(self, status: int, error: str) -> None:
        """Answer without the body. Closed over unread bytes, the connection would be reset and the answer lost."""
        self.close_connection = True
        self._send(status, {"error": error})
        self.wfile.flush()
        self.connection.settimeout(LINGER_S)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            left = MAX_BODY
            while left > 0 and (data := self.connection.recv(min(left, 65_536))):
                left -= len(data)

    def _switch(self, query: str, body: bytes) -> None:
        if self.command == "POST":
            try:
                fault = parse(_parameters(query, body), self.server.latency_s)
            except FaultError as error:
                self._send(400, {"error": str(error)})
                return
            self._send(200, {"service": self.server.name, "fault": fault.as_dict()})
            if fault.kind == "crash":
                self.wfile.flush()
                os._exit(1)
            self.server.fault = fault
        elif self.command == "DELETE":
            self.server.fault = None
            self._send(200, {"service": self.server.name, "fault": None})
        elif self.command == "GET":
            now = self.server.fault
            self._send(200, {"service": self.server.name, "fault": now.as_dict() if now else None})
        else:
            self._send(405, {"error": "allowed: POST switches a fault on, DELETE off, GET shows it"})

    def _route(self, path: str, body: bytes) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        allowed = []
        for (verb, prefix), route in self.server.routes.items():
            if path == prefix or (prefix.endswith("/") and path.startswith(prefix) and path != prefix):
                if verb == method:
                    return route(unquote(path[len(prefix) :]), body)
                allowed.append(verb)
        if allowed:
            return 405, {"error": f"{method} is not allowed here; allowed: {', '.join(allowed)}"}
        known = sorted({prefix for _, prefix in self.server.routes} | {"/_fault"})
        return 404, {"error": f"there is nothing at {path}; {self.server.name} has {', '.join(known)}"}

    def _send(self, status: int, answer: Any) -> None:
        data = (json.dumps(answer) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _client_is_gone(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True


def _parameters(query: str, body: bytes) -> dict[str, Any]:
    """A fault's parameters from the query and a JSON object in the body; the body wins."""
    found: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if body.strip():
        try:
            document = json.loads(body)
        except ValueError as error:
            raise FaultError(f'the body is not JSON ({error}); send {{"kind": "hang"}} or use ?kind=hang') from None
        if not isinstance(document, dict):
            raise FaultError(f'the body must be a JSON object such as {{"kind": "hang"}}, found {document!r}')
        found.update(document)
    return found
