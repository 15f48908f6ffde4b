"""What is traced: probes, incidents and their rungs, admin requests; and where their context goes."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest
from aiohttp import web
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend.shared.monitoring.tracing import OtelTracer
from backend.shared.self_healing.actions.webhook import WebhookAction
from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.probes.http import HttpProbe
from backend.shared.self_healing.repair import AutoRepair
from backend.shared.self_healing.settings import HttpProbeSettings, WebhookRungSettings
from modules.contracts import tracing
from modules.contracts.clock import LoopClock, SystemClock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import RepairError, UnknownServiceError
from modules.contracts.events import EventBus
from modules.contracts.health import ProbeOutcome, ProbeResult, RepairOptions, Rung, ServiceOptions
from modules.local.state import MemoryStore
from runtime.parts import Parts
from runtime.settings import RootSettings
from runtime.simulation.loop import virtual_time
from runtime.web.app import create_app

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OPTIONS = ServiceOptions(interval_s=1, reprobe_s=0.25, fall=2)
EAGER = RepairOptions(backoff_base_s=0, healthy_delay_s=1, verify_timeout_s=3)


class Recorder:
    """A pipeline that exports each span as it ends, in the loop's own thread."""

    status = ComponentStatus(ComponentState.RUNNING)

    def __init__(self):
        self._memory = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def open(self):
        return self._provider.get_tracer("test")

    async def close(self):
        self._provider.shutdown()

    def describe(self):
        return {}

    def spans(self, name=None):
        return [span for span in self._memory.get_finished_spans() if name in (None, span.name)]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def trace(recorder):
    """Begin to record; call it inside the test, whose context it is."""

    async def start(clock):
        tracer = OtelTracer("selfright", clock=clock, pipeline=recorder)
        await tracer.start()
        return tracer

    return start


@pytest.fixture
async def echo():
    """A server that remembers the headers of what it is asked, and where it listens."""
    seen = []

    async def answer(request):
        seen.append(request.headers)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


def traceparent(span):
    context = span.context
    return (
        f"00-{otel.format_trace_id(context.trace_id)}-{otel.format_span_id(context.span_id)}-{context.trace_flags:02x}"
    )


@virtual_time
async def look_at_three(recorder, start):
    clock = LoopClock()
    await start(clock)
    monitor = HealthMonitor(clock=clock, events=EventBus(clock))

    async def well():
        await clock.sleep(0.125)
        return True

    async def ill():
        return ProbeResult(ProbeOutcome.FAIL, "answered 503, expected 200")

    monitor.register_service("api", well, readiness=ill, options=OPTIONS)
    await monitor.check_health("api")
    await monitor.stop()
    return recorder.spans("probe")


def test_each_look_is_a_span_of_its_own_with_service_kind_role_outcome_and_duration(recorder, trace):
    liveness, readiness = look_at_three(recorder, trace)
    assert dict(liveness.attributes) == {
        "peer.service": "api",
        "selfright.probe.role": "liveness",
        "selfright.probe.kind": "callable",
        "selfright.probe.outcome": "pass",
    }
    assert liveness.end_time - liveness.start_time == pytest.approx(125e6, abs=1e3)
    assert liveness.status.status_code is otel.StatusCode.UNSET
    assert (readiness.attributes["selfright.probe.role"], readiness.attributes["error.type"]) == ("readiness", "fail")
    assert (readiness.status.status_code, readiness.status.description) == (
        otel.StatusCode.ERROR,
        "answered 503, expected 200",
    )
    assert liveness.parent is readiness.parent is None


@virtual_time
async def repair(recorder, start, *, helps=True, mend_s=0.5, stop_after=30.0):
    """An outage of ``api``, whose first rung fails and whose second helps, or not."""
    clock = LoopClock()
    await start(clock)
    events = EventBus(clock)
    monitor = HealthMonitor(clock=clock, events=events)
    repairer = AutoRepair(monitor, clock=clock, events=events, rng=random.Random(7))
    well = {"api": False}

    async def check():
        return well["api"]

    async def useless(context):
        raise RepairError("nothing to be done")

    async def mend(context):
        await clock.sleep(mend_s)
        well["api"] = helps

    monitor.register_service("api", check, options=OPTIONS)
    repairer.register_service("api", [useless, mend], options=EAGER)
    await repairer.start()
    await monitor.start()
    await clock.sleep(stop_after)
    await monitor.stop()
    await repairer.stop()
    return [event for event in events.recent() if event.kind == "incident_opened"]


def test_an_incident_is_a_trace_of_its_own_with_its_rungs_and_verifying_looks_inside(recorder, trace):
    (opened,) = repair(recorder, trace)
    (incident,) = recorder.spans("repair incident")
    first, second = recorder.spans("repair rung")
    assert incident.parent is None
    assert {rung.parent.span_id for rung in (first, second)} == {incident.context.span_id}
    assert incident.attributes["selfright.incident.id"] == opened.incident
    assert incident.attributes["selfright.incident.outcome"] == "closed"
    assert incident.status.status_code is otel.StatusCode.UNSET
    assert [rung.attributes["selfright.rung.outcome"] for rung in (first, second)] == ["failed", "done"]
    assert [rung.attributes["selfright.rung.number"] for rung in (first, second)] == [0, 1]
    assert (first.status.status_code, first.status.description) == (otel.StatusCode.ERROR, "nothing to be done")
    assert second.end_time - second.start_time == pytest.approx(500e6, abs=1e3)
    verifying = [look for look in recorder.spans("probe") if look.context.trace_id == incident.context.trace_id]
    assert [look.attributes["selfright.probe.outcome"] for look in verifying][-1] == "pass"
    assert all(look.parent.span_id == incident.context.span_id for look in verifying)


def test_an_incident_that_is_given_up_is_an_error(recorder, trace):
    repair(recorder, trace, helps=False, stop_after=60)
    incident = recorder.spans("repair incident")[0]
    assert incident.attributes["selfright.incident.outcome"] == "gave_up"
    assert incident.status.status_code is otel.StatusCode.ERROR


def test_what_is_stopped_half_way_is_interrupted(recorder, trace):
    repair(recorder, trace, mend_s=25, stop_after=20)
    rung = recorder.spans("repair rung")[-1]
    (incident,) = recorder.spans("repair incident")
    assert rung.attributes["selfright.rung.outcome"] == "interrupted"
    assert incident.attributes["selfright.incident.outcome"] == "interrupted"


async def test_an_http_probe_carries_the_context_of_its_look(recorder, trace, echo):
    address, seen = echo
    clock = SystemClock()
    await trace(clock)
    monitor = HealthMonitor(clock=clock, events=EventBus(clock))
    probe = HttpProbe(HttpProbeSettings(kind="http", url=address, headers={"X-Own": "1"}), clock)
    monitor.register_service("api", probe, options=OPTIONS)
    assert (await monitor.check_health("api")).healthy
    await monitor.stop()
    (look,) = recorder.spans("probe")
    assert (seen[0]["traceparent"], seen[0]["X-Own"]) == (traceparent(look), "1")
    assert look.attributes["selfright.probe.kind"] == "http"


async def test_a_traceparent_that_a_user_configured_is_sent_as_it_is(recorder, trace, echo):
    address, seen = echo
    tracer = await trace(SystemClock())
    probe = HttpProbe(HttpProbeSettings(kind="http", url=address, headers={"Traceparent": REMOTE}), SystemClock())
    with tracer.span("look"):
        await probe.probe()
    await probe.close()
    assert seen[0].getall("traceparent") == [REMOTE]


async def test_a_webhook_carries_the_context_of_its_rung(recorder, trace, echo):
    address, seen = echo
    clock = SystemClock()
    await trace(clock)
    events = EventBus(clock)
    monitor = HealthMonitor(clock=clock, events=events)
    repairer = AutoRepair(monitor, clock=clock, events=events)

    async def check():
        return True

    monitor.register_service("api", check, options=OPTIONS)
    webhook = Rung(WebhookAction(WebhookRungSettings(kind="webhook", url=address)))
    options = RepairOptions(healthy_delay_s=0, verify_timeout_s=1)
    repairer.register_service("api", [webhook], options=options)
    await monitor.start()
    await repairer.start()
    async with asyncio.timeout(10):
        await repairer.repair("api")
    await repairer.stop()
    await monitor.stop()
    (rung,) = recorder.spans("repair rung")
    assert seen[0]["traceparent"] == traceparent(rung)


async def test_without_a_tracer_nothing_is_sent_along(echo):
    address, seen = echo
    probe = HttpProbe(HttpProbeSettings(kind="http", url=address), SystemClock())
    assert (await probe.probe()).passed
    await probe.close()
    assert "traceparent" not in seen[0]


# --- admin requests -----------------------------------------------------------------------------------


class Nothing:
    """A monitor without services, and a supervisor without processes."""

    services = names = ()

    def get_status(self, name):
        raise UnknownServiceError(name, ())


async def ask(method, path, **headers):
    clock = SystemClock()
    parts = Parts(
        settings=RootSettings.model_validate_json(json.dumps({})),
        clock=clock,
        events=EventBus(clock),
        store=MemoryStore(),
        monitor=Nothing(),
        processes=Nothing(),
        heartbeats=None,
    )
    transport = httpx.ASGITransport(app=create_app(parts), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8420") as client:
        return await client.request(method, path, headers=headers)


async def test_an_admin_request_is_a_span_under_its_callers(recorder, trace):
    await trace(SystemClock())
    assert (await ask("GET", "/healthz?token=hidden", traceparent=REMOTE)).status_code == 200
    (request,) = recorder.spans()
    assert (request.name, request.kind) == ("GET /healthz", otel.SpanKind.SERVER)
    assert f"00-{otel.format_trace_id(request.context.trace_id)}-{otel.format_span_id(request.parent.span_id)}-01" == (
        REMOTE
    )
    attributes = dict(request.attributes)
    assert attributes["http.request.method"] == "GET"
    assert (attributes["http.route"], attributes["http.response.status_code"]) == ("/healthz", 200)
    assert (attributes["url.path"], attributes["url.scheme"]) == ("/healthz", "http")
    assert "hidden" not in str(attributes)


async def test_the_name_has_the_route_and_not_the_values_in_it(recorder, trace):
    await trace(SystemClock())
    await ask("GET", "/api/v1/services/nobody")
    (request,) = recorder.spans()
    assert request.name == "GET /api/v1/services/{name}"
    assert request.attributes["http.response.status_code"] == 404
    assert request.status.status_code is otel.StatusCode.UNSET


async def test_a_request_that_no_route_takes_is_named_by_its_method_alone(recorder, trace):
    await trace(SystemClock())
    await ask("GET", "/nowhere/at/all")
    (request,) = recorder.spans()
    assert (request.name, "http.route" in request.attributes) == ("GET", False)


async def test_an_answer_of_500_is_an_error(recorder, trace, monkeypatch):
    await trace(SystemClock())
    monkeypatch.setattr(Nothing, "services", property(lambda self: 1 / 0), raising=True)
    assert (await ask("GET", "/api/v1/status")).status_code == 500
    (request,) = recorder.spans()
    assert request.status.status_code is otel.StatusCode.ERROR
    assert request.attributes["error.type"] == "500"


async def test_what_the_guard_refuses_is_not_traced(recorder, trace):
    await trace(SystemClock())
    assert (await ask("GET", "/healthz", host="evil.example")).status_code == 421
    assert recorder.spans() == []


async def test_without_a_tracer_the_admin_api_answers_as_ever():
    assert tracing.active_tracer() is None
    assert (await ask("GET", "/healthz", traceparent=REMOTE)).status_code == 200
