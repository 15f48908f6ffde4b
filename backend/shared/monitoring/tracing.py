"""Traces through the OpenTelemetry API: one trace from the request that came in to the requests that go out.

The API's own context holds the current span, so spans of other instrumented code nest with ours. Without a
``SpanPipeline`` nothing is recorded and the context is only passed on. Times are those of the clock that is handed in.
Specification: https://opentelemetry.io/docs/specs/otel/trace/api/
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextvars import Token
from types import TracebackType
from typing import Any, Protocol, Self

from opentelemetry import context as otel_context
from opentelemetry import trace as otel

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.tracing import (
    ERROR_TYPE,
    NO_SPAN,
    AttributeValue,
    Span,
    SpanContext,
    SpanKind,
    SpanStatus,
    activate,
    read_context,
    write_context,
)

_KINDS = {
    SpanKind.INTERNAL: otel.SpanKind.INTERNAL,
    SpanKind.SERVER: otel.SpanKind.SERVER,
    SpanKind.CLIENT: otel.SpanKind.CLIENT,
}
_STATUSES = {
    SpanStatus.UNSET: otel.StatusCode.UNSET,
    SpanStatus.OK: otel.StatusCode.OK,
    SpanStatus.ERROR: otel.StatusCode.ERROR,
}


class Pipeline(Protocol):
    """What records spans and takes them away."""

    def open(self) -> otel.Tracer:
        """Return what makes recorded spans; begins to export."""
        ...

    async def close(self) -> None:
        """Export what is left, within a bound, and end."""
        ...

    @property
    def status(self) -> ComponentStatus: ...

    def describe(self) -> Mapping[str, Any]:
        """Return settings and counts as plain JSON types."""
        ...


class OtelSpan:
    """A span of the API. It begins when it is made; ``clock`` says when it ends."""

    __slots__ = ("_began", "_clock", "_span", "_status", "_token", "_wall_ns")

    def __init__(self, span: otel.Span, clock: Clock, wall_ns: int) -> None:
        self._span = span
        self._clock = clock
        self._wall_ns = wall_ns
        self._began = clock.monotonic()
        self._status = SpanStatus.UNSET
        self._token: Token[otel_context.Context] | None = None

    @property
    def recording(self) -> bool:
        return self._span.is_recording()

    @property
    def context(self) -> SpanContext | None:
        return _from_otel(self._span.get_span_context())

    @property
    def status(self) -> SpanStatus:
        return self._status

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def set_status(self, status: SpanStatus, description: str = "") -> None:
        self._status = status
        self._span.set_status(_STATUSES[status], description if status is SpanStatus.ERROR else None)

    def record_error(self, error: BaseException) -> None:
        self._span.record_exception(error, timestamp=self._now_ns())
        self._span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        self.set_status(SpanStatus.ERROR, str(error))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def __enter__(self) -> Self:
        self._token = otel_context.attach(otel.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
            self._token = None
        if isinstance(error, Exception):
            self.record_error(error)
        elif error is not None:  # a cancellation is nobody's fault, but explains why it is short
            self._span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        self._span.end(self._now_ns())

    def _now_ns(self) -> int:
        """The wall clock may jump while the span lasts, so only its beginning is read from it."""
        return self._wall_ns + round((self._clock.monotonic() - self._began) * 1e9)


class OtelTracer:
    """A ``modules.contracts.tracing.Tracer``. Its pipeline opens with ``start`` or the first span."""

    def __init__(self, name: str, *, clock: Clock, pipeline: Pipeline | None = None) -> None:
        self._name = name
        self._clock = clock
        self._pipeline = pipeline
        self._otel: otel.Tracer | None = None
        self._state = ComponentState.CREATED

    @property
    def name(self) -> str:
        return self._name

    @property
    def current(self) -> SpanContext | None:
        return _from_otel(otel.get_current_span().get_span_context())

    def span(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        maker = self._otel
        if maker is None:
            if self._pipeline is None or self._state is ComponentState.STOPPED:
                return NO_SPAN if parent is None else OtelSpan(_to_otel(parent), self._clock, 0)
            maker = self._otel = self._pipeline.open()
        under = None if parent is None else otel.set_span_in_context(_to_otel(parent))
        wall_ns = round(self._clock.time() * 1e9)
        began = maker.start_span(name, context=under, kind=_KINDS[kind], attributes=attributes, start_time=wall_ns)
        return OtelSpan(began, self._clock, wall_ns)

    def inject(self, headers: MutableMapping[str, str]) -> None:
        write_context(headers, self.current)

    def extract(self, headers: Mapping[str, str]) -> SpanContext | None:
        return read_context(headers)

    def export(self) -> Mapping[str, Any]:
        if self._pipeline is None:
            return {"name": self._name, "enabled": False}
        return {"name": self._name, "enabled": True, **self._pipeline.describe()}

    @property
    def status(self) -> ComponentStatus:
        if self._pipeline is None:
            return ComponentStatus(self._state, "passes the context of traces on, and records none")
        below = self._pipeline.status
        return below if self._state is ComponentState.RUNNING else ComponentStatus(self._state, below.detail)

    async def start(self) -> None:
        self._state = ComponentState.RUNNING
        if self._pipeline is not None and self._otel is None:
            self._otel = self._pipeline.open()
        activate(self)

    async def stop(self) -> None:
        """Export what is left, within the pipeline's bound. Spans that end later are lost."""
        self._state = ComponentState.STOPPED
        maker, self._otel = self._otel, None
        if maker is not None and self._pipeline is not None:
            await self._pipeline.close()


def _to_otel(context: SpanContext) -> otel.Span:
    return otel.NonRecordingSpan(
        otel.SpanContext(
            trace_id=int(context.trace_id, 16),
            span_id=int(context.span_id, 16),
            is_remote=context.remote,
            trace_flags=otel.TraceFlags(context.flags),
            trace_state=otel.TraceState.from_header([context.trace_state]) if context.trace_state else None,
        )
    )


def _from_otel(context: otel.SpanContext) -> SpanContext | None:
    if not context.is_valid:
        return None
    return SpanContext(
        otel.format_trace_id(context.trace_id),
        otel.format_span_id(context.span_id),
        int(context.trace_flags),
        context.trace_state.to_header(),
        remote=context.is_remote,
    )
