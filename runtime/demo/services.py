"""The three services: a store, an api that needs the store, and a worker that sends heartbeats."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import quote, urlsplit

from runtime.demo.server import Answer, Service

CALL_TIMEOUT_S = 0.5
"""For a call of one service to another: shorter than a probe waits, so that the reason reaches the prober."""
WORKER_LATENCY_S = 10.0
"""A heartbeat must be late by far more than a probe waits for one, or nobody notices."""
MAX_ITEMS = 10_000
"""Items that a store keeps."""


class CallError(Exception):
    """Another service did not do its part; the message is the reason for people."""


def call(method: str, url: str) -> tuple[int, Any]:
    """Ask another service and return status and JSON. Raises CallError when no whole answer came."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=CALL_TIMEOUT_S)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target)
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None
    except TimeoutError:
        raise CallError(f"{method} {url}: no answer within {CALL_TIMEOUT_S:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise CallError(f"{method} {url}: {error or type(error).__name__}") from None
    except ValueError:
        raise CallError(f"{method} {url}: the answer is not JSON") from None
    finally:
        connection.close()


def require(method: str, url: str) -> None:
    """Ask another service; raises CallError unless it says 2xx."""
    status, _ = call(method, url)
    if not 200 <= status < 300:
        raise CallError(f"{method} {url}: answered {status}")


def healthy(_rest: str, _body: bytes) -> Answer:
    return 200, {"status": "ok"}


def store(port: int) -> Service:
    """Items in memory: GET and PUT /items/{key}; a value is any JSON."""
    items: dict[str, Any] = {}

    def read(key: str, _body: bytes) -> Answer:
        return (200, {"key": key, "value": items[key]}) if key in items else (404, {"error": f"no item {key!r}"})

    def write(key: str, body: bytes) -> Answer:
        if key not in items and len(items) >= MAX_ITEMS:
            return 507, {"error": f"the store is full: {MAX_ITEMS} items"}
        try:
            items[key] = json.loads(body)
        except ValueError as error:
            return 400, {"error": f"the body is not JSON: {error}"}
        return 200, {"key": key, "value": items[key]}

    routes = {("GET", "/healthz"): healthy, ("GET", "/items/"): read, ("PUT", "/items/"): write}
    return Service("store", port, routes)


def api(port: int, store_url: str) -> Service:
    """GET /items/{key} out of the store; healthy only while the store is."""

    def read(key: str, _body: bytes) -> Answer:
        try:
            return call("GET", f"{store_url}/items/{quote(key, safe='')}")
        except CallError as error:
            return 502, {"error": str(error)}

    def health(_rest: str, _body: bytes) -> Answer:
        try:
            require("GET", f"{store_url}/healthz")
        except CallError as error:
            return 503, {"status": "failing", "reason": f"the store does not work: {error}"}
        return 200, {"status": "ok"}

    return Service("api", port, {("GET", "/healthz"): health, ("GET", "/items/"): read})


class Worker:
    """Works every ``every`` seconds: makes sure of the store, then sends a heartbeat to ``report``.

    The fault switch stops or delays the work, and so its heartbeats, like any request; healthy while the last
    round succeeded.
    """

    def __init__(self, port: int, report: str, every: float, store_url: str | None = None) -> None:
        self._report = report
        self._every = every
        self._store = store_url
        self._problem: str | None = None
        self._stopped = threading.Event()
        self.service = Service("worker", port, {("GET", "/healthz"): self._health}, latency_s=WORKER_LATENCY_S)

    def run(self) -> None:
        """Work until ``stop``; a round that failed is tried again within half a second."""
        while not self._stopped.is_set():
            self.work()
            self._stopped.wait(min(self._every, 0.5) if self._problem else self._every)

    def stop(self) -> None:
        self._stopped.set()

    def work(self) -> None:
        """One round."""
        fault = self.service.suffer(self._stopped.is_set)
        if fault is not None and fault.kind == "hang":
            return  # the round was lost
        try:
            if fault is not None and fault.kind == "error":
                raise CallError("the fault switch says error")
            if self._store:
                require("GET", f"{self._store}/healthz")
            require("PUT", self._report)
            self._problem = None
        except CallError as error:
            self._problem = str(error)

    def _health(self, _rest: str, _body: bytes) -> Answer:
        if self._problem:
            return 503, {"status": "failing", "reason": self._problem}
        return 200, {"status": "ok"}
