"""Spans, and the context that ties those of several programs into one trace.

The context travels in the headers of W3C Trace Context (https://www.w3.org/TR/trace-context/): ``traceparent`` names
trace, parent and flags, ``tracestate`` is passed on as it came. A header that is not valid is ignored, as if it were
not there. Which tracer records is known by context, as the current span is: ``activate`` says it once, and every task
that begins from there inherits it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self

from modules.contracts.component import Component

AttributeValue = str | bool | int | float

# Names of the semantic conventions (https://opentelemetry.io/docs/specs/semconv/), and our own where they have none.
PEER_SERVICE = "peer.service"
ERROR_TYPE = "error.type"
PROBE_KIND = "selfright.probe.kind"
PROBE_ROLE = "selfright.probe.role"
PROBE_OUTCOME = "selfright.probe.outcome"
INCIDENT_ID = "selfright.incident.id"
INCIDENT_REASON = "selfright.incident.reason"
INCIDENT_OUTCOME = "selfright.incident.outcome"
RUNG_NUMBER = "selfright.rung.number"
RUNG_KIND = "selfright.rung.kind"
RUNG_ACTION = "selfright.rung.action"
RUNG_ATTEMPT = "selfright.rung.attempt"
RUNG_OUTCOME = "selfright.rung.outcome"

SAMPLED = 0x01
"""The flag of a trace that is recorded."""
_KNOWN_FLAGS = 0x03  # sampled, and level 2's random-trace-id; others are sent as zero
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_MEMBERS = 32
_MAX_STATE_CHARS = 512


class SpanKind(StrEnum):
    """INTERNAL: work of this program; SERVER: it answers a request; CLIENT: it makes one."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class SpanStatus(StrEnum):
    """UNSET: nothing went wrong that is known of."""

    UNSET = "unset"
    OK = "ok"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SpanContext:
    """Where in which trace one is.

    Attributes:
        trace_id: 32 lower-case hexadecimal digits, not all zero.
        span_id: 16 of them, not all zero.
        flags: the byte of ``traceparent``.
        trace_state: the value of ``tracestate``, or an empty string.
        remote: whether it came with a request from elsewhere.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    trace_state: str = ""
    remote: bool = False

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header's value, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & _KNOWN_FLAGS:02x}"


class Span(Protocol):
    """A piece of work. As a context manager it is the current span inside, and ends with the block.

    An exception that leaves the block is recorded and goes on; a cancellation is no error.
    """

    @property
    def recording(self) -> bool:
        """Whether anybody will see what is set here."""
        ...

    @property
    def context(self) -> SpanContext | None: ...

    @property
    def status(self) -> SpanStatus: ...

    def set_attribute(self, key: str, value: AttributeValue) -> None: ...

    def set_status(self, status: SpanStatus, description: str = "") -> None:
        """Say how it went; ``description`` is kept for ERROR alone."""
        ...

    def record_error(self, error: BaseException) -> None:
        """Add the exception, and set the status to ERROR."""
        ...

    def rename(self, name: str) -> None:
        """Give it the name that was not known when it began."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Component, Protocol):
    """Makes spans and carries their context across programs.

    ``start`` activates it for what the caller begins from then on; after ``stop`` it records nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def current(self) -> SpanContext | None:
        """Where one is now, or None outside of any span."""
        ...

    def span(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """Begin a span under ``parent``, or under the current one. ``name`` is one of few: values are attributes."""
        ...

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Add the current context to the headers of a request, unless they have one."""
        ...

    def extract(self, headers: Mapping[str, str]) -> SpanContext | None:
        """Return the context that a request came with, or None without a valid one."""
        ...

    def export(self) -> Mapping[str, Any]:
        """Return its settings, and what became of its spans, as plain JSON types."""
        ...


class NoSpan:
    """A span that nobody records."""

    __slots__ = ()

    recording = False
    status = SpanStatus.UNSET

    @property
    def context(self) -> SpanContext | None:
        return None

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Nobody sees it."""

    def set_status(self, status: SpanStatus, description: str = "") -> None:
        """Nobody sees it."""

    def record_error(self, error: BaseException) -> None:
        """Nobody sees it."""

    def rename(self, name: str) -> None:
        """Nobody sees it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NO_SPAN = NoSpan()

# --- which tracer records -----------------------------------------------------------------------------

_active: ContextVar[Tracer | None] = ContextVar("selfright_tracer", default=None)


def activate(tracer: Tracer | None) -> None:
    """Let ``tracer`` record the spans of this context and of all tasks that begin from it; None: nobody."""
    _active.set(tracer)


def active_tracer() -> Tracer | None:
    """Return the tracer of this context, or None."""
    return _active.get()


def span(
    name: str,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    parent: SpanContext | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Span:
    """Begin a span with the active tracer; see ``Tracer.span``."""
    tracer = _active.get()
    return NO_SPAN if tracer is None else tracer.span(name, attributes=attributes, parent=parent, kind=kind)


def inject(headers: MutableMapping[str, str]) -> None:
    """Add the active tracer's context to the headers of a request; see ``Tracer.inject``."""
    tracer = _active.get()
    if tracer is not None:
        tracer.inject(headers)


# --- W3C Trace Context ----------------------------------------------------------------------------------


def read_context(headers: Mapping[str, str]) -> SpanContext | None:
    """Return the context in ``headers`` (names in any case), or None without exactly one valid ``traceparent``.

    A ``tracestate`` that is not valid is left out, and the rest still counts.
    """
    parents = _values(headers, "traceparent")
    found = _TRACEPARENT.fullmatch(parents[0].strip(" \t")) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, further = found.groups()
    if version == "ff" or (version == "00" and further is not None):
        return None
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    state = _read_state(_values(headers, "tracestate"))
    return SpanContext(trace_id, span_id, int(flags, 16), state, remote=True)


def write_context(headers: MutableMapping[str, str], context: SpanContext | None) -> None:
    """Add ``context`` to ``headers``, unless they hold a ``traceparent`` already or there is no context."""
    if context is None or _values(headers, "traceparent"):
        return
    headers["traceparent"] = context.traceparent
    if context.trace_state and not _values(headers, "tracestate"):
        headers["tracestate"] = context.trace_state


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    return [value for key, value in headers.items() if key.lower() == name]


def _read_state(values: list[str]) -> str:
    """Return the members of all ``tracestate`` headers as one value, or nothing if one of them is not valid."""
    joined = ",".join(values)
    members = [member for part in joined.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(joined) > _MAX_STATE_CHARS or len(members) > _MAX_MEMBERS or len(keys) < len(members):
        return ""
    return ",".join(members) if all(_MEMBER.fullmatch(member) for member in members) else ""
