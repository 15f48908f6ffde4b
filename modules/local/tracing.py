"""A tracer from the standard library: it records nothing, and passes on the trace context that a request came with.

So a trace that leads through this program stays whole, as W3C Trace Context asks of who does not take part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.tracing import (
    NO_SPAN,
    AttributeValue,
    NoSpan,
    SpanContext,
    SpanKind,
    activate,
    read_context,
    write_context,
)

_current: ContextVar[SpanContext | None] = ContextVar("selfright_span_context", default=None)


class _PassedOn(NoSpan):
    """A block inside which the caller's context is the current one."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: SpanContext) -> None:
        self._context = context
        self._token: Token[SpanContext | None] | None = None

    @property
    def context(self) -> SpanContext | None:
        return self._context

    def __enter__(self) -> Self:
        self._token = _current.set(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None


class LocalTracer:
    """A ``modules.contracts.tracing.Tracer`` without spans of its own."""

    def __init__(self, name: str = "selfright") -> None:
        self._name = name
        self._state = ComponentState.CREATED

    @property
    def name(self) -> str:
        return self._name

    @property
    def current(self) -> SpanContext | None:
        return _current.get()

    def span(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> NoSpan:
        return NO_SPAN if parent is None else _PassedOn(parent)

    def inject(self, headers: MutableMapping[str, str]) -> None:
        write_context(headers, _current.get())

    def extract(self, headers: Mapping[str, str]) -> SpanContext | None:
        return read_context(headers)

    def export(self) -> Mapping[str, Any]:
        return {"name": self._name, "enabled": False}

    @property
    def status(self) -> ComponentStatus:
        return ComponentStatus(self._state, "passes the context of traces on, and records none")

    async def start(self) -> None:
        self._state = ComponentState.RUNNING
        activate(self)

    async def stop(self) -> None:
        self._state = ComponentState.STOPPED
