"""Every error in one shape: ``{"error": {"kind", "message", "allowed", "problems"}}``, and never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.contracts.errors import (
    ReadOnlyModuleError,
    SelfrightError,
    StateError,
    UnknownServiceError,
    did_you_mean,
)
from modules.contracts.events import ComponentFailed, EventBus
from runtime.web.models import ErrorAnswer, ErrorDetail, Problem

_log = logging.getLogger(__name__)

_KINDS: tuple[tuple[type[SelfrightError], int, str], ...] = (
    (UnknownServiceError, 404, "unknown_service"),
    (ReadOnlyModuleError, 409, "read_only"),
    (StateError, 503, "state"),
    (SelfrightError, 409, "refused"),
)

_HTTP_KINDS = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class RefusedError(SelfrightError):
    """A request that is understood and not carried out. ``kind`` is a stable word, ``allowed`` the alternatives."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        allowed: Iterable[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.allowed = None if allowed is None else tuple(allowed)
        self.headers = headers


def error_response(refusal: RefusedError, problems: tuple[Problem, ...] | None = None) -> JSONResponse:
    """Return the answer for a refusal, also for use outside of a route."""
    detail = ErrorDetail(kind=refusal.kind, message=str(refusal), allowed=refusal.allowed, problems=problems)
    return JSONResponse(
        ErrorAnswer(error=detail).model_dump(mode="json", exclude_none=True),
        status_code=refusal.status,
        headers=refusal.headers,
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may answer with these error statuses."""
    says = {
        404: "There is no such thing; the message names the nearest.",
        409: "It cannot be done in this configuration; the message says what would allow it.",
        422: "The request does not validate; each problem is listed.",
        503: "Not now; the message says why.",
    }
    return {status: {"model": ErrorAnswer, "description": says[status]} for status in statuses}


def install(app: FastAPI, events: EventBus) -> None:
    """Answer every error of ``app`` in the one shape. What nobody expected is also published."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RefusedError):
            return error_response(error)
        if isinstance(error, SelfrightError):
            status, kind = next((status, kind) for known, status, kind in _KINDS if isinstance(error, known))
            return error_response(RefusedError(status, kind, str(error)))
        if isinstance(error, RequestValidationError):
            return _invalid(request, error)
        if isinstance(error, HTTPException):
            return _http(app, request, error)
        raise error

    for kind in (SelfrightError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_middleware(_Unexpected, events=events)


class _Unexpected:
    """Answers what nobody expected; the framework's own way would pass by the outer middleware's headers."""

    def __init__(self, app: ASGIApp, *, events: EventBus) -> None:
        self._app = app
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            where = f"{scope.get('method', scope['type'])} {scope.get('path', '')}"
            _log.exception("%s failed", where)
            self._events.publish(ComponentFailed(component="admin", detail=f"{where}: {type(error).__name__}: {error}"))
            if started:
                raise  # too late for an answer: the server must cut the connection
            refusal = RefusedError(500, "internal", f"{where} failed unexpectedly; the log says more")
            await error_response(refusal)(scope, receive, send)


def _invalid(request: Request, error: RequestValidationError) -> Response:
    problems = tuple(
        Problem(where=".".join(str(step) for step in problem["loc"]), message=problem["msg"])
        for problem in error.errors()
    )
    summary = "; ".join(f"{problem.where}: {problem.message}" for problem in problems)
    sent_as = request.headers.get("content-type", "no content type")
    if any(problem.where == "body" for problem in problems) and "json" not in sent_as:
        summary += f"; it was sent as {sent_as}, send it with Content-Type: application/json"
    return error_response(RefusedError(422, "invalid_request", summary), problems)


def _http(app: FastAPI, request: Request, error: HTTPException) -> Response:
    """Answer what the framework itself refuses: no such path, no such method, an unreadable body."""
    message, headers = str(error.detail), error.headers
    allowed: list[str] | None = None
    path = request.url.path
    if error.status_code in (404, 405):
        # The description is the one list of routes that does not depend on how the framework nests them.
        described: Mapping[str, Mapping[str, Any]] = app.openapi()["paths"]
        if error.status_code == 404:
            allowed = sorted(described)
            message = f"there is no {path}{did_you_mean(path, allowed)}; see /docs"
        else:
            said = (headers or {}).get("Allow", "").split(", ")
            matching = [described[template] for template in described if compile_path(template)[0].match(path)]
            allowed = sorted({*filter(None, said), *(method.upper() for methods in matching for method in methods)})
            headers = {**(headers or {}), "Allow": ", ".join(allowed)}
            message = f"{request.method} is not allowed on {path}; allowed: {', '.join(allowed)}"
    kind = _HTTP_KINDS.get(error.status_code, "refused")
    return error_response(RefusedError(error.status_code, kind, message, allowed=allowed, headers=headers))
