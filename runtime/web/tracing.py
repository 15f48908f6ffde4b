"""One span a request of the admin API, under the trace that its caller's ``traceparent`` names.

Names and attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (server). Only what the guard let
through is traced, and neither query nor bodies are written down.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.contracts.tracing import ERROR_TYPE, AttributeValue, Span, SpanKind, SpanStatus, Tracer


class TracedRequests:
    """An ASGI middleware around ``app``."""

    def __init__(self, app: ASGIApp, *, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        with self._tracer.span(
            method,
            attributes=_attributes(scope),
            parent=self._tracer.extract(Headers(scope=scope)),
            kind=SpanKind.SERVER,
        ) as span:

            async def send_and_look(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _answered(span, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, send_and_look)
            finally:
                route = getattr(scope.get("route"), "path", None)  # known only after the routing
                if route is not None:
                    span.rename(f"{method} {route}")
                    span.set_attribute("http.route", route)


def _attributes(scope: Scope) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "http.request.method": scope["method"],
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "network.protocol.version": scope["http_version"],
    }
    for role in ("client", "server"):
        if scope.get(role):
            attributes[f"{role}.address"], port = scope[role]
            if port is not None:
                attributes[f"{role}.port"] = port
    return attributes


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:  # what the caller did wrong is no error of the server
        span.set_attribute(ERROR_TYPE, str(status))
        span.set_status(SpanStatus.ERROR)
