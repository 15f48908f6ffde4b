"""One API whichever serves: the same cases over module, version and backend, and the guide's examples as written."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from modules.bridge import detect
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import (
    BackendUnavailableError,
    ConfigurationError,
    DependencyError,
    DuplicateServiceError,
    ReadOnlyModuleError,
    RepairError,
    UnknownServiceError,
)
from modules.contracts.events import EventBus
from modules.contracts.health import (
    AutoRepair,
    HealthMonitor,
    HealthStatus,
    ProbeOutcome,
    ProbeResult,
    RepairContext,
    RepairOptions,
    RepairPhase,
    ServiceOptions,
)
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus
from modules.contracts.tracing import SpanContext, SpanKind, SpanStatus, Tracer, active_tracer
from modules.settings import TracingSettings
from runtime.simulation.loop import virtual_time

QUICK = ServiceOptions(interval_s=1, reprobe_s=0.25, fall=2)
EAGER = RepairOptions(backoff_base_s=0, healthy_delay_s=1, verify_timeout_s=3)
SELF_HEALING = ("SelfHealing_V1", "SelfHealing_V2")
MONITORING = ("Monitoring_V1", "Monitoring_V2")
ALL_MODULES = (*SELF_HEALING, "SelfHealing_V3", *MONITORING, "Monitoring_V3")


def integration(module: str) -> ModuleType:
    return import_module(f"modules.{module}.src.backend_integration")


class Bench:
    """A module's monitor and repairer in virtual time, over services that can be broken."""

    def __init__(self, module: str, use_backend: bool | None) -> None:
        self.clock = LoopClock()
        self.events = EventBus(self.clock)
        ground: dict[str, Any] = {"clock": self.clock, "events": self.events, "rng": random.Random(7)}
        factories = integration(module)
        self.monitor: HealthMonitor = factories.get_health_monitor(use_backend=use_backend, **ground)
        self.repair: AutoRepair = factories.get_auto_repair(self.monitor, use_backend, **ground)
        self.well: dict[str, bool] = {}
        self.mended: list[str] = []

    def watch(self, name: str, *depends_on: str, ladder: bool = True) -> None:
        self.well[name] = True

        async def check() -> bool:
            return self.well[name]

        async def mend(context: RepairContext) -> str:
            self.mended.append(context.service)
            self.well.update(dict.fromkeys(self.well, True))
            return "mended"

        options = ServiceOptions(interval_s=1, reprobe_s=0.25, fall=2, depends_on=depends_on)
        self.monitor.register_service(name, check, options=options)
        if ladder:
            self.repair.register_service(name, [mend], options=EAGER)

    async def start(self) -> None:
        await self.repair.start()
        await self.monitor.start()

    async def stop(self) -> None:
        await self.monitor.stop()
        await self.repair.stop()

    def story(self, *kinds: str) -> list[str]:
        return [event.kind for event in self.events.recent() if event.kind.startswith(kinds)]


@pytest.fixture(params=SELF_HEALING)
def make_bench(request: pytest.FixtureRequest, use_backend: bool | None) -> Callable[[], Bench]:
    return lambda: Bench(request.param, use_backend)


# --- SelfHealing, whichever serves --------------------------------------------------------------------


@virtual_time
async def test_a_check_answers_with_everything_that_was_found(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("api")
    result = await bench.monitor.check_health("api")
    assert (result.service, result.healthy, result.outcome) == ("api", True, ProbeOutcome.PASS)
    assert (result.status, result.checked_at) == (HealthStatus.HEALTHY, bench.clock.time())
    assert await bench.monitor.check_all() == {"api": bench.monitor.get_status("api").last}


@virtual_time
async def test_health_changes_at_the_threshold_and_is_told_to_bus_and_listeners(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    seen: list[HealthStatus] = []
    bench.monitor.add_listener(lambda result: seen.append(result.status))
    bench.watch("api", ladder=False)
    await bench.monitor.check_health("api")
    bench.well["api"] = False
    await bench.monitor.check_health("api")
    await bench.monitor.check_health("api")
    assert seen == [HealthStatus.HEALTHY, HealthStatus.HEALTHY, HealthStatus.UNHEALTHY]
    assert bench.story("health_changed") == ["health_changed", "health_changed"]
    assert bench.monitor.get_status("api").consecutive_failures == 2


@virtual_time
async def test_scheduled_checks_find_a_fault_within_an_interval_and_a_reprobe(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    bench.watch("api", ladder=False)
    await bench.start()
    await asyncio.sleep(5)
    bench.well["api"] = False
    await asyncio.sleep(1.3)
    assert bench.monitor.get_status("api").status is HealthStatus.UNHEALTHY
    await bench.stop()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_the_probers_own_error_is_no_verdict(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()

    async def check() -> ProbeResult:
        return ProbeResult(ProbeOutcome.ERROR, "no descriptor left")

    bench.monitor.register_service("api", check, options=QUICK)
    for _ in range(5):
        result = await bench.monitor.check_health("api")
    assert (result.status, result.healthy) == (HealthStatus.UNKNOWN, False)
    assert bench.story("probe_erred") == ["probe_erred"]


@virtual_time
async def test_the_root_of_a_fault_is_repaired_and_its_dependents_are_not(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("db")
    bench.watch("api", "db")
    bench.watch("web", ladder=False)
    await bench.start()
    await asyncio.sleep(3)
    bench.well.update(db=False, api=False)
    await asyncio.sleep(20)
    assert bench.mended == ["db"]
    assert bench.monitor.get_status("api").status is HealthStatus.HEALTHY
    await bench.stop()


@virtual_time
async def test_a_repair_tells_the_same_story(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("api")
    await bench.start()
    await asyncio.sleep(3)
    bench.well["api"] = False
    await asyncio.sleep(15)
    assert bench.story("incident", "repair") == [
        "incident_opened",
        "repair_started",
        "repair_ended",
        "incident_closed",
    ]
    assert bench.repair.get_status("api").phase is RepairPhase.IDLE
    await bench.stop()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_ladder_that_does_not_help_gives_up_and_closes_when_the_fault_goes(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    bench.watch("api", ladder=False)

    async def useless(context: RepairContext) -> None:
        raise RepairError("nothing to be done")

    bench.repair.register_service("api", [useless, useless], options=EAGER)
    await bench.start()
    bench.well["api"] = False
    await asyncio.sleep(60)
    assert bench.repair.get_status("api").phase is RepairPhase.GAVE_UP
    bench.well["api"] = True
    await asyncio.sleep(20)
    assert bench.story("incident", "repair") == [
        "incident_opened",
        "repair_started",
        "repair_ended",
        "repair_started",
        "repair_ended",
        "repair_gave_up",
        "incident_closed",
    ]
    await bench.stop()


@virtual_time
async def test_a_repair_on_demand_goes_past_a_pause_and_reports_what_was_done(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    bench.watch("api")
    await bench.start()
    bench.repair.pause()
    report = await bench.repair.repair("api", "a new certificate")
    assert (report.service, report.repaired, len(report.actions)) == ("api", True, 1)
    assert bench.repair.get_status("api").paused
    await bench.stop()


@virtual_time
async def test_wrong_calls_are_refused_alike(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("api")
    not_async: Any = print
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (UnknownServiceError, lambda: bench.monitor.get_status("apo")),
        (UnknownServiceError, lambda: bench.monitor.unregister_service("apo")),
        (UnknownServiceError, lambda: bench.repair.get_status("apo")),
        (DuplicateServiceError, lambda: bench.watch("api")),
        (DuplicateServiceError, lambda: bench.repair.register_service("api", [])),
        (ConfigurationError, lambda: bench.monitor.register_service("web", not_async)),
        (ConfigurationError, lambda: bench.repair.register_service("web", [not_async])),
    ]
    for refused, call in calls:
        with pytest.raises(refused):
            call()
    assert bench.monitor.services == bench.repair.services == ("api",)
    bench.watch("web", "nowhere", ladder=False)
    with pytest.raises(DependencyError, match="nowhere"):
        await bench.monitor.start()


@virtual_time
async def test_options_and_ladder_are_told_as_registered(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("api")
    assert bench.monitor.get_options("api") == QUICK
    assert bench.repair.get_options("api") == EAGER
    assert [rung.action.kind for rung in bench.repair.get_ladder("api")] == ["callable"]
    for ask in (bench.monitor.get_options, bench.repair.get_options, bench.repair.get_ladder):
        with pytest.raises(UnknownServiceError, match="did you mean 'api'"):
            ask("apo")


@virtual_time
async def test_pause_ends_scheduled_checks_until_resume(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.watch("api", ladder=False)
    await bench.start()
    await asyncio.sleep(3)
    bench.monitor.pause("api")
    bench.well["api"] = False
    await asyncio.sleep(60)
    assert bench.monitor.get_status("api").status is HealthStatus.HEALTHY
    bench.monitor.resume("api")
    await asyncio.sleep(2)
    assert bench.monitor.get_status("api").status is HealthStatus.UNHEALTHY
    await bench.stop()


@virtual_time
async def test_the_quarantined_view_reads_what_the_live_module_knows_and_refuses_the_rest(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    bench.watch("api")
    await bench.monitor.check_health("api")
    quarantine = integration("SelfHealing_V3")
    monitor, repair = quarantine.get_health_monitor(bench.monitor), quarantine.get_auto_repair(bench.repair)
    assert monitor.services == repair.services == ("api",)
    assert monitor.get_status("api") == bench.monitor.get_status("api")
    assert await monitor.check_health("api") == bench.monitor.get_status("api").last
    assert repair.get_status("api") == bench.repair.get_status("api")
    for view in (monitor, repair):
        with pytest.raises(ReadOnlyModuleError, match="V2"):
            view.pause("api")


@virtual_time
async def test_the_quarantined_view_exports_services_options_statuses_and_ladders_as_json(
    make_bench: Callable[[], Bench],
) -> None:
    bench = make_bench()
    bench.watch("api")
    await bench.monitor.check_health("api")
    quarantine = integration("SelfHealing_V3")
    watched = quarantine.get_health_monitor(bench.monitor).export()
    repaired = quarantine.get_auto_repair(bench.repair).export()
    for exported in (watched, repaired):
        assert json.loads(json.dumps(exported)) == exported
    service = watched["services"]["api"]
    assert ServiceOptions(**{**service["options"], "depends_on": ()}) == QUICK
    assert (service["status"]["status"], service["status"]["last"]["healthy"]) == ("healthy", True)
    ladder = repaired["services"]["api"]
    assert RepairOptions(**ladder["options"]) == EAGER
    assert [(rung["kind"], rung["attempts"]) for rung in ladder["ladder"]] == [("callable", 1)]
    assert ladder["status"]["phase"] == "idle"


# --- Monitoring, whichever serves ---------------------------------------------------------------------


@pytest.fixture(params=MONITORING)
def collector(request: pytest.FixtureRequest, use_backend: bool | None) -> MetricsCollector:
    made: MetricsCollector = integration(request.param).get_metrics_collector("shop", use_backend)
    return made


def test_an_objective_on_a_metric_is_judged(collector: MetricsCollector) -> None:
    collector.define_slo("latency", 99.0, "request_duration", "<=", window_minutes=60, objective=50.0)
    assert collector.get_slo_status()["latency"].status is SLOStatus.NO_DATA
    collector.record_metric("request_duration", 10.0)
    assert collector.get_slo_status()["latency"].status is SLOStatus.MET
    collector.record_metric("request_duration", 150.0)
    report = collector.get_slo_status()["latency"]
    assert (report.status, report.value, report.good, report.total) == (SLOStatus.VIOLATED, 150.0, 1, 2)


def test_recorded_values_are_exposed_under_the_prefix(collector: MetricsCollector) -> None:
    collector.record_metric("queue_length", 3.0, kind="gauge")
    collector.record_metric("queue_length", 5.0, kind="gauge")
    assert collector.value("queue_length") == 5.0
    body, content_type = collector.render()
    assert b"\nshop_queue_length 5.0\n" in body
    assert content_type.startswith("text/plain")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(collector: MetricsCollector, value: float) -> None:
    with pytest.raises(ConfigurationError):
        collector.record_metric("queue_length", value)


def test_the_quarantined_collector_reads_and_refuses(collector: MetricsCollector) -> None:
    collector.record_metric("queue_length", 3.0, kind="gauge")
    view = integration("Monitoring_V3").get_metrics_collector(source=collector)
    assert view.value("queue_length") == 3.0
    assert b"\nshop_queue_length 3.0\n" in view.render()[0]
    with pytest.raises(ReadOnlyModuleError, match=r"Monitoring_V2.*record_metric"):
        view.record_metric("queue_length", 4.0)
    assert collector.value("queue_length") == 3.0


# --- tracing, whichever serves ------------------------------------------------------------------------

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=MONITORING)
def tracer(
    request: pytest.FixtureRequest, use_backend: bool | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tracer]:
    if use_backend is None:  # here too, None stands for a backend that is missing
        hide_tracing(monkeypatch)
    yield integration(request.param).get_tracer("shop", use_backend)
    detect.cache_clear()


def hide_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "backend.shared.monitoring.tracing", raising=False)
    detect.cache_clear()


@pytest.mark.parametrize("state", ["", "congo=t61,rojo=00f0"])
def test_the_context_of_a_request_is_passed_on_inside_its_span_and_nowhere_else(tracer: Tracer, state: str) -> None:
    headers, inside, outside = {"Traceparent": REMOTE, "tracestate": state}, dict[str, str](), dict[str, str]()
    context = tracer.extract(headers)
    assert context is not None
    assert (context.sampled, context.remote, context.trace_state) == (True, True, state)
    with tracer.span("answer", attributes={"a": 1}, parent=context) as span, tracer.span("within"):
        assert tracer.current == span.context == context
        assert not span.recording
        tracer.inject(inside)
    tracer.inject(outside)
    assert inside == {"traceparent": REMOTE} | ({"tracestate": state} if state else {})
    assert outside == {}
    assert tracer.current is None


@pytest.mark.parametrize("header", ["", "00-1-2-3", REMOTE.upper(), REMOTE + "-more", "ff" + REMOTE[2:]])
def test_a_header_that_is_no_context_is_ignored(tracer: Tracer, header: str) -> None:
    assert tracer.extract({"traceparent": header}) is None
    assert tracer.extract({}) is None


def test_a_span_takes_every_call_and_lets_an_error_through(tracer: Tracer) -> None:
    context = tracer.extract({"traceparent": REMOTE})

    def work(parent: SpanContext | None) -> None:
        with tracer.span("work", parent=parent, kind=SpanKind.CLIENT) as span:
            span.set_attribute("a", 1)
            span.rename("other work")
            span.record_error(KeyError("a"))
            span.set_status(SpanStatus.ERROR, "it failed")
            raise ValueError("no")

    for parent in (None, context):
        with pytest.raises(ValueError, match="no"):
            work(parent)
    assert tracer.current is None


async def test_a_tracer_starts_and_stops_safely_in_any_order(tracer: Tracer) -> None:
    await tracer.stop()
    await tracer.start()
    await tracer.start()
    assert tracer.status.state is ComponentState.RUNNING
    assert active_tracer() is tracer
    await tracer.stop()
    await tracer.stop()
    stopped = tracer.status  # a name of its own: the type of the property is known to have been RUNNING
    assert stopped.state is ComponentState.STOPPED
    assert tracer.export() == {"name": "shop", "enabled": False}


def test_spans_that_are_asked_for_are_never_quietly_left_out(
    use_backend: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TracingSettings(enabled=True, exporter="none")
    if use_backend is None:
        hide_tracing(monkeypatch)
    for module in (*MONITORING, "Monitoring_V3"):
        make = integration(module).get_tracer
        if use_backend:
            assert make("shop", use_backend, settings=settings).export()["enabled"] is True
            continue
        with pytest.raises(BackendUnavailableError, match=r"tracing\.enabled.*selfright\[otel\]"):
            make("shop", use_backend, settings=settings)
    detect.cache_clear()


def test_a_tracer_falls_back_with_one_warning_and_without_a_wish_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_tracing(monkeypatch)
    for module in (*MONITORING, "Monitoring_V3"):
        make = integration(module).get_tracer
        with pytest.warns(RuntimeWarning, match="the tracer serves locally.*opentelemetry") as caught:
            make(use_backend=True)
        assert len(caught) == 1
        for silent in (None, False):
            make(use_backend=silent)  # a warning would be an error
    detect.cache_clear()


async def test_the_quarantined_tracer_reads_and_passes_on_and_begins_no_span(tracer: Tracer) -> None:
    view = integration("Monitoring_V3").get_tracer(source=tracer)
    context = view.extract({"traceparent": REMOTE})
    headers: dict[str, str] = {}
    with tracer.span("answer", parent=context):
        assert view.current == context
        view.inject(headers)
    assert headers == {"traceparent": REMOTE}
    assert (view.name, view.export()) == ("shop", tracer.export())
    for refused in (lambda: view.span("work"), view.start, view.stop):
        with pytest.raises(ReadOnlyModuleError, match=r"Monitoring_V2.*get_tracer\(\)\."):
            refused()


# --- a backend that is missing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "factory"),
    [
        ("SelfHealing_V1", "get_health_monitor"),
        ("SelfHealing_V1", "get_auto_repair"),
        ("SelfHealing_V2", "get_health_monitor"),
        ("SelfHealing_V2", "get_auto_repair"),
        ("SelfHealing_V2", "get_recovery_manager"),
        ("SelfHealing_V3", "get_health_monitor"),
        ("SelfHealing_V3", "get_auto_repair"),
        ("Monitoring_V1", "get_metrics_collector"),
        ("Monitoring_V2", "get_metrics_collector"),
        ("Monitoring_V3", "get_metrics_collector"),
    ],
)
@virtual_time
async def test_true_falls_back_with_exactly_one_warning_and_nothing_else_warns(
    module: str, factory: str, use_backend: bool | None
) -> None:
    """The fixture's None stands for a backend that is missing: there None itself is silent, and True warns."""
    make = getattr(integration(module), factory)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(use_backend=use_backend)
    assert caught == []
    if use_backend is None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make(use_backend=True)
        assert ["unavailable" in str(warning.message) for warning in caught] == [True]


@pytest.mark.parametrize("module", ALL_MODULES)
def test_every_integration_says_that_the_backend_is_available(module: str) -> None:
    assert (integration(module).BACKEND_AVAILABLE, integration(module).BACKEND_ERROR) == (True, None)


def test_with_the_standard_library_alone_every_module_serves_and_says_what_is_missing() -> None:
    script = f"""
import sys
absent = ("pydantic", "aiohttp", "prometheus_client", "fastapi", "hydra", "omegaconf", "apprise", "rich")
for missing in (*absent, "opentelemetry"):
    sys.modules[missing] = None
from importlib import import_module
for name in {ALL_MODULES!r}:
    module = import_module(f"modules.{{name}}.src.backend_integration")
    assert module.BACKEND_AVAILABLE is False
    print(name, module.BACKEND_ERROR)
    healing = ("get_health_monitor", "get_auto_repair", "get_recovery_manager")
    for factory in (*healing, "get_metrics_collector", "get_tracer"):
        if hasattr(module, factory):
            getattr(module, factory)()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert len(said) == len(ALL_MODULES)
    assert all("pydantic" in line for line in said if line.startswith("SelfHealing"))
    assert all("prometheus_client" in line for line in said if line.startswith("Monitoring"))


# --- the guide, word for word -------------------------------------------------------------------------

V1_EXAMPLE = """\
from modules.SelfHealing_V1.src.backend_integration import (
    get_health_monitor,
    get_auto_repair,
    BACKEND_AVAILABLE,
)

# Use backend if available, otherwise local implementation
monitor = get_health_monitor(use_backend=True)
"""
V2_EXAMPLE = """\
from modules.SelfHealing_V2.src.backend_integration import (
    get_health_monitor,
    get_recovery_manager,
    SLOStatus,
)

# Production features with SLO tracking
monitor = get_health_monitor(
    slo_latency_ms=1000,
    slo_availability=99.9,
)
"""
V2_EXAMPLE_CHECK = """\
result = await monitor.check_health("api-service")
print(f"SLO Status: {result.slo_status}")
print(f"Error Budget: {result.error_budget_remaining}%")
"""
HEALTH_EXAMPLE = """\
from modules.SelfHealing_V2.src.backend_integration import get_health_monitor

monitor = get_health_monitor(slo_latency_ms=1000)

# Register service
async def check_api():
    # Your health check logic
    return True

monitor._local.register_service("api", check_api)

# Check health
result = await monitor.check_health("api")

if result.slo_status == SLOStatus.VIOLATED:
    # Trigger recovery
    pass
"""
MIGRATION_EXAMPLE = """\
# V1
from modules.SelfHealing_V1.src.backend_integration import get_health_monitor
monitor = get_health_monitor()

# V2 (adds SLO)
from modules.SelfHealing_V2.src.backend_integration import get_health_monitor
monitor = get_health_monitor(slo_latency_ms=1000, slo_availability=99.9)
"""
METRICS_EXAMPLE = """\
from modules.Monitoring_V2.src.backend_integration import get_metrics_collector

collector = get_metrics_collector(prefix="myapp")

# Define SLO
collector.define_slo("latency_p99", 99.0, "request_duration", "<=", window_minutes=60)

# Record metrics
collector.record_metric("request_duration", 150.0)

# Check SLO
status = collector.get_slo_status()
"""


async def follow(example: str, names: dict[str, Any]) -> None:
    """Run an example of the guide as one would type it, ``await`` included, into ``names``."""
    code = compile(example, "module-integration-guide.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    left = eval(code, names)
    if inspect.iscoroutine(left):
        await left


async def test_guide_v1_integration() -> None:
    names: dict[str, Any] = {}
    await follow(V1_EXAMPLE, names)
    assert names["BACKEND_AVAILABLE"] is True
    assert names["monitor"].services == ()


async def test_guide_v2_integration(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    await follow(V2_EXAMPLE, names)
    await follow(V2_EXAMPLE_CHECK, names)
    assert capsys.readouterr().out == "SLO Status: no_data\nError Budget: None%\n"

    async def check() -> bool:
        return True

    names["monitor"].register_service("api-service", check)
    await follow(V2_EXAMPLE_CHECK, names)
    assert capsys.readouterr().out == "SLO Status: met\nError Budget: 100.0%\n"


async def test_guide_health_monitoring_with_slo() -> None:
    names: dict[str, Any] = {}
    await follow(V2_EXAMPLE, names)  # a reader has SLOStatus from there
    await follow(HEALTH_EXAMPLE, names)
    assert names["result"].slo_status is SLOStatus.MET
    assert names["monitor"].get_slo_status()["api"].total == 1


async def test_guide_v1_to_v2() -> None:
    names: dict[str, Any] = {}
    await follow(MIGRATION_EXAMPLE, names)
    assert names["monitor"].get_slo_status() == {}


async def test_guide_metrics_with_slo_tracking() -> None:
    names: dict[str, Any] = {}
    await follow(METRICS_EXAMPLE, names)
    report = names["status"]["latency_p99"]
    assert (report.value, report.good, report.total) == (150.0, 0, 1)
    assert report.status is SLOStatus.VIOLATED
