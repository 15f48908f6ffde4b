"""Where recorded spans go: a queue of bounded length, a thread that exports it in batches, an end in bounded time.

The SDK's batch processor does the work. In front of it stands a count of what is queued or under way, so that a
collector that is dead or hangs costs dropped spans, which are counted, and never time. The provider is our own: the
global one belongs to the program that we run in. Specification: https://opentelemetry.io/docs/specs/otel/trace/sdk/
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN_ID, INVALID_TRACE_ID, Tracer

from modules.contracts.component import ComponentState, ComponentStatus

if TYPE_CHECKING:  # needs pydantic, which an exporter does without
    from backend.shared.monitoring.tracing_settings import TracingSettings

_log = logging.getLogger(__name__)

_PATH = "/v1/traces"
_MAX_ATTRIBUTE_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and how long is waited.

    Attributes:
        queue: spans that may wait or be under way; further ones are dropped.
        batch: spans in one export.
        delay_s: longest wait before an export.
        request_s: for one export, retries included.
        flush_s: for exporting what is left when it ends; after that only the export under way is waited for.
    """

    queue: int = 2048
    batch: int = 512
    delay_s: float = 2.0
    request_s: float = 3.0
    flush_s: float = 2.0


class _Ids(IdGenerator):
    """Identifiers from the generator that is handed in."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def generate_span_id(self) -> int:
        return self._rng.randrange(INVALID_SPAN_ID + 1, 1 << 64)

    def generate_trace_id(self) -> int:
        return self._rng.randrange(INVALID_TRACE_ID + 1, 1 << 128)

    def is_trace_id_random(self) -> bool:
        return True


class _CountingExporter(SpanExporter):
    """Counts what becomes of spans, and says once when exports begin to fail and once when they work again.

    ``admit`` is called from the loop's thread, ``export`` from the processor's.
    """

    def __init__(self, exporter: SpanExporter, capacity: int, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._capacity = capacity
        self._lock = threading.Lock()
        self._pending = 0
        self._thread: int | None = None
        self._said = ""
        self._full = False
        self._ended = False
        self.abandoned = False
        self.failing = False
        self.sent = 0
        self.failed = 0
        self.dropped = 0

    @property
    def pending(self) -> int:
        """Spans that wait or are under way."""
        return self._pending

    def admit(self) -> bool:
        """Whether one more span is taken, and counted as waiting; else it is counted as dropped."""
        with self._lock:
            room = self._pending < self._capacity and not self.abandoned
            if room:
                self._pending += 1
            else:
                self.dropped += 1
            news, self._full = not room and not self._full, not room
        if news and not self.abandoned:
            _log.warning("%d spans wait to be exported to %s; further ones are dropped", self._capacity, self._where)
        return room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        self._thread, self._said = threading.get_ident(), ""
        try:
            if not self.abandoned:
                result = self._exporter.export(spans)
        except Exception as error:  # whatever an exporter raises is a failed export, and the thread must go on
            self._said = f"{type(error).__name__}: {error}"
        finally:
            self._thread = None
            self._count(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def _count(self, spans: int, succeeded: bool) -> None:
        with self._lock:
            self._pending -= spans
            if succeeded:
                self.sent += spans
            elif self.abandoned:
                self.dropped += spans
            else:
                self.failed += spans
            news = self.failing is succeeded and not self.abandoned
            self.failing = not succeeded
        if news and succeeded:
            _log.info("spans are exported to %s again", self._where)
        elif news:
            _log.warning(
                "spans are lost until %s takes them again: %s", self._where, self._said or "it gives no reason"
            )

    def filter(self, record: logging.LogRecord) -> bool:
        """As a log filter: what the exporter says of each of our failures is kept for the one time we say it."""
        if record.thread != self._thread:
            return True
        self._said = self._said or record.getMessage()  # the first names the cause, the last that it gave up
        return False

    def shutdown(self) -> None:
        """Safe twice, from either thread."""
        with self._lock:
            first, self._ended = not self._ended, True
        if first:
            self._exporter.shutdown()


class _BoundedProcessor(BatchSpanProcessor):
    """Hands on only what there is room for, so that the SDK's own queue never overflows."""

    def __init__(self, exporter: _CountingExporter, limits: Limits) -> None:
        super().__init__(
            exporter,
            max_queue_size=limits.queue,
            max_export_batch_size=min(limits.batch, limits.queue),
            schedule_delay_millis=limits.delay_s * 1000,
        )
        self._counting = exporter

    def on_end(self, span: ReadableSpan) -> None:
        sampled = span.context is not None and span.context.trace_flags.sampled
        if sampled and self._counting.admit():
            super().on_end(span)


class SpanPipeline:
    """A ``backend.shared.monitoring.tracing.Pipeline`` by ``settings``. ``rng`` draws the identifiers.

    They must differ from those of every other program, so it is seeded by the system but in tests.
    """

    def __init__(
        self,
        settings: TracingSettings,
        *,
        rng: random.Random,
        new_exporter: Callable[[], SpanExporter | None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._limits = limits or Limits()
        self._new_exporter = new_exporter or self._exporter
        self._counting: _CountingExporter | None = None
        self._provider: TracerProvider | None = None

    def open(self) -> Tracer:
        """Begin to export, in a thread of its own."""
        settings, exporter = self._settings, self._new_exporter()
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource.create({SERVICE_NAME: settings.service_name}),
            shutdown_on_exit=False,
            id_generator=_Ids(self._rng),
            span_limits=SpanLimits(max_span_attribute_length=_MAX_ATTRIBUTE_CHARS),
        )
        if exporter is not None:
            where = settings.endpoint if settings.exporter == "otlp" else "the console"
            self._counting = _CountingExporter(exporter, self._limits.queue, where)
            _exporter_log().addFilter(self._counting)
            self._provider.add_span_processor(_BoundedProcessor(self._counting, self._limits))
        return self._provider.get_tracer("selfright")

    async def close(self) -> None:
        """Export what is left for ``flush_s``; then wait for the export under way, ``request_s`` at most.

        A collector that does not even then answer leaves its thread behind, which ends with the program.
        """
        provider, self._provider = self._provider, None
        if provider is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            if self._counting is not None:
                _exporter_log().removeFilter(self._counting)
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        # The loop's own executor would be waited for without a bound when the loop closes.
        flush = threading.Thread(target=shut_down, name="span flush", daemon=True)
        flush.start()
        try:
            await _wait(ended, self._limits.flush_s)
            self._abandon()
            if await _wait(ended, self._limits.request_s):
                flush.join()  # it has nothing left to do
            else:
                _log.warning("a thread that exports spans does not end, and is left behind")
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Export no further batch, and try none again; only an answer that is waited for now still is."""
        if self._counting is not None:
            self._counting.abandoned = True
            self._counting.shutdown()

    @property
    def status(self) -> ComponentStatus:
        counting = self._counting
        if counting is None:
            return ComponentStatus(ComponentState.RUNNING, "spans are not exported")
        state = ComponentState.DEGRADED if counting.failing else ComponentState.RUNNING
        lost = counting.failed + counting.dropped
        return ComponentStatus(state, f"{counting.sent} spans exported, {lost} lost, {counting.pending} waiting")

    def describe(self) -> Mapping[str, Any]:
        counts = self._counting
        return {
            "settings": self._settings.model_dump(mode="json"),
            "spans": {
                "exported": counts.sent if counts else 0,
                "failed": counts.failed if counts else 0,
                "dropped": counts.dropped if counts else 0,
                "waiting": counts.pending if counts else 0,
            },
        }

    def _exporter(self) -> SpanExporter | None:
        match self._settings.exporter:
            case "otlp":
                base = self._settings.endpoint.removesuffix("/").removesuffix(_PATH)
                return OTLPSpanExporter(endpoint=base + _PATH, timeout=self._limits.request_s)
            case "console":
                return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
            case "none":
                return None


def _exporter_log() -> logging.Logger:
    return logging.getLogger(OTLPSpanExporter.__module__)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
