"""Spans through the OpenTelemetry API, into the SDK's own exporter in memory."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend.shared.monitoring.tracing import OtelTracer
from backend.shared.monitoring.tracing_export import Limits, SpanPipeline
from backend.shared.monitoring.tracing_settings import TracingSettings
from modules.contracts import tracing
from modules.contracts.clock import SystemClock
from modules.contracts.component import ComponentState
from modules.contracts.tracing import SpanContext, SpanKind, SpanStatus
from modules.settings import Settings

REMOTE = SpanContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "congo=t61", remote=True)


class SteppedClock(SystemClock):
    """Stands until it is moved; its wall clock can jump."""

    def __init__(self):
        self.now, self.ahead = 100.0, 1_700_000_000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now + self.ahead


def make(exporter, *, clock=None, **settings):
    chosen = TracingSettings(enabled=True, **settings)
    pipeline = SpanPipeline(
        chosen, rng=random.Random(7), new_exporter=lambda: exporter, limits=Limits(delay_s=0.01, flush_s=5)
    )
    return OtelTracer("selfright", clock=clock or SystemClock(), pipeline=pipeline)


@pytest.fixture
def memory():
    return InMemorySpanExporter()


async def spans_of(tracer, memory):
    await tracer.stop()
    return {span.name: span for span in memory.get_finished_spans()}


async def test_spans_nest_by_context_also_across_tasks(memory):
    tracer = make(memory)

    async def inner():
        with tracer.span("inner"):
            await asyncio.sleep(0)

    with tracer.span("outer"):
        await asyncio.create_task(inner())
    with tracer.span("later"):
        pass
    spans = await spans_of(tracer, memory)
    assert spans["inner"].parent.span_id == spans["outer"].context.span_id
    assert spans["outer"].parent is spans["later"].parent is None
    assert spans["later"].context.trace_id != spans["outer"].context.trace_id


async def test_a_context_from_elsewhere_is_the_parent_and_goes_out_again_with_our_span(memory):
    tracer = make(memory)
    parent = tracer.extract({"Traceparent": REMOTE.traceparent, "tracestate": "congo=t61"})
    headers = {}
    with tracer.span("answer", parent=parent, kind=SpanKind.SERVER) as span:
        tracer.inject(headers)
        assert tracer.current == span.context
    span = (await spans_of(tracer, memory))["answer"]
    assert (otel.format_trace_id(span.context.trace_id), span.parent.span_id) == (
        REMOTE.trace_id,
        int(REMOTE.span_id, 16),
    )
    assert span.kind is otel.SpanKind.SERVER
    assert headers == {
        "traceparent": f"00-{REMOTE.trace_id}-{otel.format_span_id(span.context.span_id)}-01",
        "tracestate": "congo=t61",
    }
    assert tracer.current is None


async def test_times_are_the_clocks_and_a_jump_of_the_wall_clock_does_not_lengthen_a_span(memory):
    clock = SteppedClock()
    tracer = make(memory, clock=clock)
    with tracer.span("work"):
        clock.now += 2.5
        clock.ahead -= 3600
    span = (await spans_of(tracer, memory))["work"]
    assert span.start_time == pytest.approx(1_700_000_100e9, abs=1e3)
    assert span.end_time - span.start_time == 2_500_000_000


async def test_an_error_that_leaves_the_block_is_recorded_and_goes_on(memory):
    tracer = make(memory)
    with pytest.raises(ValueError, match="no"), tracer.span("work"):
        raise ValueError("no")
    span = (await spans_of(tracer, memory))["work"]
    assert (span.status.status_code, span.status.description) == (otel.StatusCode.ERROR, "no")
    assert span.attributes["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


async def test_a_cancellation_ends_the_span_and_is_no_error(memory):
    tracer = make(memory)

    async def work():
        with tracer.span("work"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = (await spans_of(tracer, memory))["work"]
    assert (span.status.status_code, span.events) == (otel.StatusCode.UNSET, ())
    assert span.attributes["error.type"] == "CancelledError"


async def test_attributes_status_and_a_later_name_are_kept(memory):
    tracer = make(memory)
    with tracer.span("work", attributes={"a": 1}) as span:
        span.set_attribute("b", "two")
        span.set_status(SpanStatus.ERROR, "it failed")
        span.rename("work done")
        assert (span.recording, span.status) == (True, SpanStatus.ERROR)
    done = (await spans_of(tracer, memory))["work done"]
    assert dict(done.attributes) == {"a": 1, "b": "two"}
    assert done.status.description == "it failed"


async def test_a_huge_attribute_is_cut(memory):
    tracer = make(memory)
    with tracer.span("work", attributes={"a": "x" * 100_000}):
        pass
    assert len((await spans_of(tracer, memory))["work"].attributes["a"]) == 1024


@pytest.mark.parametrize(("ratio", "least", "most"), [(0, 0, 0), (0.5, 60, 140), (1, 200, 200)])
async def test_so_many_new_traces_are_recorded_as_the_ratio_says(memory, ratio, least, most):
    tracer = make(memory, sample_ratio=ratio)
    for _ in range(200):
        with tracer.span("root"), tracer.span("child"):
            pass
    await tracer.stop()
    spans = memory.get_finished_spans()
    assert least <= sum(span.name == "root" for span in spans) <= most
    assert len(spans) == 2 * sum(span.name == "root" for span in spans)


@pytest.mark.parametrize(("flags", "recorded"), [(1, 1), (0, 0)])
async def test_of_a_trace_from_elsewhere_its_caller_decides(memory, flags, recorded):
    tracer = make(memory, sample_ratio=1 - flags)
    headers = {}
    with tracer.span("answer", parent=SpanContext(REMOTE.trace_id, REMOTE.span_id, flags, remote=True)):
        tracer.inject(headers)
    await tracer.stop()
    assert len(memory.get_finished_spans()) == recorded
    assert headers["traceparent"].endswith(f"-{flags:02x}")


async def test_the_resource_names_the_service_and_the_global_provider_stays_as_it_was(memory):
    before = otel.get_tracer_provider()
    tracer = make(memory, service_name="shop")
    with tracer.span("work"):
        pass
    span = (await spans_of(tracer, memory))["work"]
    assert span.resource.attributes["service.name"] == "shop"
    assert otel.get_tracer_provider() is before


async def test_without_settings_nothing_is_recorded_and_the_context_is_passed_on():
    tracer = OtelTracer("selfright", clock=SystemClock())
    headers, outside = {}, {}
    with tracer.span("answer", parent=REMOTE) as span, tracer.span("inner"):
        tracer.inject(headers)
        assert not span.recording
    tracer.inject(outside)
    assert headers == {"traceparent": REMOTE.traceparent, "tracestate": "congo=t61"}
    assert outside == {}
    assert tracer.export() == {"name": "selfright", "enabled": False}


async def test_with_exporter_none_the_context_travels_and_nothing_is_exported():
    tracer = OtelTracer(
        "selfright",
        clock=SystemClock(),
        pipeline=SpanPipeline(TracingSettings(enabled=True, exporter="none"), rng=random.Random(7)),
    )
    headers = {}
    with tracer.span("ask"):
        tracer.inject(headers)
    assert headers["traceparent"].endswith(("-01", "-03"))
    await tracer.stop()
    assert tracer.export()["spans"] == {"exported": 0, "failed": 0, "dropped": 0, "waiting": 0}


async def test_with_exporter_console_each_span_is_a_line_of_json_on_stderr(capfd):
    tracer = OtelTracer(
        "selfright",
        clock=SystemClock(),
        pipeline=SpanPipeline(TracingSettings(enabled=True, exporter="console"), rng=random.Random(7)),
    )
    for name in ("one", "two"):
        with tracer.span(name):
            pass
    await tracer.stop()
    said = capfd.readouterr()
    assert [f'"name": "{name}"' in line for name, line in zip(("one", "two"), said.err.splitlines(), strict=True)] == [
        True,
        True,
    ]
    assert said.out == ""


async def test_after_stop_nothing_is_recorded_any_more_and_a_span_that_ends_late_counts_as_lost(memory):
    tracer = make(memory)
    await tracer.start()
    assert tracer.status.state is ComponentState.RUNNING
    with tracer.span("late"):
        await tracer.stop()
    with tracer.span("after") as after:
        assert not after.recording
    await tracer.stop()
    assert memory.get_finished_spans() == ()
    assert tracer.export()["spans"]["dropped"] == 1
    assert tracer.status.state is ComponentState.STOPPED


async def test_a_started_tracer_records_what_begins_from_there():
    tracer = make(InMemorySpanExporter())
    with tracing.span("before") as before:
        assert not before.recording

    async def here_and_in_tasks():
        await tracer.start()
        with tracing.span("here") as here:
            assert here.recording

        async def task():
            with tracing.span("there") as there:
                assert there.recording

        await asyncio.create_task(task())
        await tracer.stop()

    await asyncio.create_task(here_and_in_tasks())
    assert tracing.active_tracer() is None


async def test_the_same_generator_gives_the_same_identifiers_and_the_global_one_is_left_alone(memory):
    state = random.getstate()
    first, second = make(memory), make(InMemorySpanExporter())
    with first.span("a") as a, second.span("a") as b:
        assert a.context.trace_id == b.context.trace_id
    assert random.getstate() == state
    await first.stop()
    await second.stop()


def test_a_span_that_nobody_asked_for_costs_next_to_nothing():
    """The goal is 1 us; the bound here only tells a no-op from a span that is made and thrown away."""

    def best_of(rounds, work):
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(2_000):
                work()
            times.append((time.perf_counter() - began) / 2_000)
        return min(times)

    def untraced():
        with tracing.span("probe", attributes={"a": "b", "c": "d", "e": "f"}) as span:
            assert span is tracing.NO_SPAN

    assert best_of(5, untraced) < 5e-6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"endpoint": "collector:4318"}, "http"),
        ({"endpoint": "http://"}, "host"),
        ({"endpoint": "http://me:secret@collector:4318"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"endpoint": "http://collector:4318/?key=secret"}, "path"),
        ({"endpoint": "http://collector:99999"}, "port"),
        ({"sample_ratio": 1.5}, "less than or equal to 1"),
        ({"sample_ratio": float("nan")}, "finite"),
        ({"exporter": "jaeger"}, "otlp"),
        ({"service_name": ""}, "at least 1"),
    ],
)
def test_wrong_settings_are_refused_and_say_what_is_allowed(wrong, said):
    with pytest.raises(ValueError, match=said) as refused:
        TracingSettings(**wrong)
    assert issubclass(TracingSettings, Settings)
    assert "secret" not in str(refused.value).split("input_value")[0]


def test_without_the_sdk_tracing_that_is_asked_for_says_what_to_install_and_else_nothing_is_missing():
    script = """
import sys
sys.modules["opentelemetry.sdk"] = None
from modules.contracts.errors import BackendUnavailableError
from modules.settings import TracingSettings
from modules.Monitoring_V2.src.backend_integration import get_tracer
print(type(get_tracer(use_backend=True)).__name__)
try:
    get_tracer(settings=TracingSettings(enabled=True))
except BackendUnavailableError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stderr == ""
    served, refused = ran.stdout.splitlines()
    assert served == "OtelTracer"
    assert all(word in refused for word in ("tracing.enabled", "opentelemetry.sdk", "selfright[otel]"))
