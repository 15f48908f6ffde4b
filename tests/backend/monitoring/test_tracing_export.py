"""Exports over OTLP/HTTP to a real receiver: one that works, one that is dead, one that hangs, one that refuses."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backend.shared.monitoring.tracing import OtelTracer
from backend.shared.monitoring.tracing_export import Limits, SpanPipeline
from backend.shared.monitoring.tracing_settings import TracingSettings
from modules.contracts.clock import SystemClock
from modules.contracts.component import ComponentState

QUICK = Limits(queue=64, batch=16, delay_s=0.02, request_s=0.3, flush_s=0.2)


class Receiver:
    """An OTLP/HTTP receiver on a free port; ``gate`` holds its answers back while it is not set."""

    def __init__(self):
        self.requests, self.paths, self.headers, self.status = [], [], [], 200
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.headers.append(dict(self.headers))
                receiver.gate.wait(10)
                if receiver.status == 200:
                    receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                try:
                    self.send_response(receiver.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:  # the exporter did not wait for the answer
                    self.close_connection = True

            def log_message(self, *args):
                """Nothing is said."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self):
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def dead():
    """An address where nobody listens, and nobody else may begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def make(endpoint, *, limits=QUICK):
    settings = TracingSettings(enabled=True, endpoint=endpoint, service_name="shop")
    pipeline = SpanPipeline(settings, rng=random.Random(7), limits=limits)
    return OtelTracer("selfright", clock=SystemClock(), pipeline=pipeline)


def work(tracer, spans):
    for number in range(spans):
        with tracer.span("work", attributes={"number": number}):
            pass


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the exporter's thread sets no event
            await asyncio.sleep(0.01)


async def stop_within(tracer, seconds):
    began = time.monotonic()
    await tracer.stop()
    assert time.monotonic() - began < seconds


def exporting_threads():
    return [thread.name for thread in threading.enumerate() if "Otel" in thread.name or "flush" in thread.name]


async def test_spans_arrive_with_names_identifiers_attributes_and_resource(receiver):
    tracer = make(receiver.endpoint)
    with tracer.span("outer", attributes={"peer.service": "api", "n": 3, "share": 0.5, "well": True}) as outer:
        with tracer.span("inner") as inner:
            inner.record_error(ValueError("no"))
        trace_id, outer_id = outer.context.trace_id, outer.context.span_id
    await tracer.stop()
    spans = {span.name: span for span in receiver.spans}
    assert set(spans) == {"outer", "inner"}
    assert {span.trace_id.hex() for span in spans.values()} == {trace_id}
    assert (spans["inner"].parent_span_id.hex(), spans["outer"].parent_span_id) == (outer_id, b"")
    assert spans["inner"].status.code == 2
    attributes = {each.key: each.value for each in spans["outer"].attributes}
    assert attributes["peer.service"].string_value == "api"
    assert (attributes["n"].int_value, attributes["share"].double_value, attributes["well"].bool_value) == (
        3,
        0.5,
        True,
    )
    resource = {
        each.key: each.value.string_value for each in receiver.requests[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "shop"


@pytest.mark.parametrize("written", ["", "/", "/v1/traces", "/v1/traces/"])
async def test_the_path_of_the_protocol_is_added_when_it_is_missing(receiver, written):
    tracer = make(receiver.endpoint + written)
    work(tracer, 1)
    await tracer.stop()
    assert receiver.paths == ["/v1/traces"]


async def test_headers_come_from_the_environment_and_are_shown_nowhere(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hidden")
    tracer = make(receiver.endpoint)
    work(tracer, 1)
    await tracer.stop()
    assert {name.lower(): value for name, value in receiver.headers[0].items()}["x-key"] == "hidden"
    assert "hidden" not in str(tracer.export())


async def test_what_waits_at_stop_is_flushed_and_no_thread_is_left(receiver):
    tracer = make(receiver.endpoint, limits=Limits(queue=256, batch=50, delay_s=60, request_s=5, flush_s=5))
    work(tracer, 240)
    await tracer.stop()
    assert len(receiver.spans) == 240
    assert tracer.export()["spans"] == {"exported": 240, "failed": 0, "dropped": 0, "waiting": 0}
    assert exporting_threads() == []


async def test_spans_arrive_without_a_stop_too(receiver):
    tracer = make(receiver.endpoint)
    work(tracer, 1)
    await until(lambda: len(receiver.spans) == 1)
    await tracer.stop()


async def test_a_dead_collector_loses_spans_which_are_counted_and_said_once(dead, caplog):
    tracer = make(dead)
    with caplog.at_level(logging.INFO):
        await tracer.start()
        work(tracer, 20)
        await until(lambda: tracer.export()["spans"]["failed"] == 20)
        work(tracer, 20)
        await until(lambda: tracer.export()["spans"]["failed"] == 40)
    assert tracer.status.state is ComponentState.DEGRADED
    assert "40 lost" in tracer.status.detail
    said = [record for record in caplog.records if record.name.startswith(("opentelemetry", "backend"))]
    assert len(said) == 1
    assert "Failed to export" in said[0].getMessage()
    await stop_within(tracer, 2)
    assert exporting_threads() == []


async def test_a_collector_that_comes_back_is_used_again_and_that_is_said(receiver, caplog):
    receiver.status = 400
    tracer = make(receiver.endpoint)
    with caplog.at_level(logging.INFO):
        await tracer.start()
        work(tracer, 1)
        await until(lambda: tracer.export()["spans"]["failed"] == 1)
        receiver.status = 200
        work(tracer, 1)
        await until(lambda: tracer.export()["spans"]["exported"] == 1)
    assert tracer.status.state is ComponentState.RUNNING
    assert [record.levelname for record in caplog.records if record.name.startswith("backend")] == ["WARNING", "INFO"]
    await tracer.stop()


async def test_a_collector_that_hangs_neither_blocks_nor_slows_and_memory_is_bounded(receiver):
    receiver.gate.clear()
    tracer = make(receiver.endpoint, limits=Limits(queue=64, batch=16, delay_s=0.02, request_s=5, flush_s=0.1))
    work(tracer, 1)
    await until(lambda: receiver.paths)
    began = time.perf_counter()
    work(tracer, 5_000)
    assert (time.perf_counter() - began) / 5_000 < 1e-3
    counts = tracer.export()["spans"]
    assert (counts["waiting"], counts["dropped"]) == (64, 5_001 - 64)
    receiver.gate.set()
    await tracer.stop()


async def test_stop_does_not_wait_for_a_collector_that_hangs_beyond_its_bound(receiver):
    receiver.gate.clear()
    tracer = make(receiver.endpoint)
    work(tracer, 60)
    await until(lambda: receiver.paths)
    await stop_within(tracer, QUICK.flush_s + QUICK.request_s + 0.5)
    counts = tracer.export()["spans"]
    assert (counts["exported"], counts["failed"] + counts["dropped"], counts["waiting"]) == (0, 60, 0)
    await until(lambda: not exporting_threads())


async def test_a_stop_that_is_cancelled_passes_the_cancellation_on(receiver):
    receiver.gate.clear()
    tracer = make(receiver.endpoint)
    work(tracer, 1)
    await until(lambda: receiver.paths)
    stopping = asyncio.create_task(tracer.stop())
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    receiver.gate.set()
    await until(lambda: not exporting_threads())
