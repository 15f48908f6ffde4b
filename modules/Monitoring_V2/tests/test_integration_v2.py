"""Monitoring V2 as the guide shows it."""

from __future__ import annotations

import warnings

import pytest

from modules.bridge import Backend
from modules.contracts.clock import LoopClock
from modules.contracts.errors import BackendUnavailableError
from modules.contracts.events import EventBus
from modules.contracts.slo import SLOStatus
from modules.local.metrics import LocalCollector
from modules.Monitoring_V2.src import backend_integration
from modules.Monitoring_V2.src.backend_integration import (
    BACKEND_AVAILABLE,
    BACKEND_ERROR,
    get_alert_manager,
    get_metrics_collector,
)
from modules.settings import AlertSettings


@pytest.mark.parametrize("use_backend", [None, True, False])
def test_the_example_of_the_guide_works_as_written(use_backend: bool | None) -> None:
    collector = get_metrics_collector(prefix="myapp")
    if use_backend is not None:
        collector = get_metrics_collector(prefix="myapp", use_backend=use_backend)

    # Define SLO
    collector.define_slo("latency_p99", 99.0, "request_duration", "<=", window_minutes=60)

    # Record metrics
    collector.record_metric("request_duration", 150.0)

    # Check SLO
    status = collector.get_slo_status()

    assert set(status) == {"latency_p99"}
    report = status["latency_p99"]
    assert (report.value, report.status, report.objective, report.window_s) == (150.0, SLOStatus.VIOLATED, 99.0, 3600)
    assert report.error_budget_remaining == -9900.0
    assert collector.metric_names() == ["myapp_request_duration"]


def test_the_backend_is_there_and_gives_no_reason() -> None:
    assert (BACKEND_AVAILABLE, BACKEND_ERROR) == (True, None)


async def test_alerts_come_from_the_backend_alone() -> None:
    clock = LoopClock()
    events = EventBus(clock)
    manager = get_alert_manager(AlertSettings(), clock=clock, events=events)
    await manager.start()
    assert manager.status.state.value == "running"
    await manager.stop()
    with pytest.raises(BackendUnavailableError, match="use_backend=False was asked for"):
        get_alert_manager(AlertSettings(), clock=clock, events=events, use_backend=False)


@pytest.mark.parametrize("use_backend", [None, True])
def test_without_its_backend_the_collector_is_local_and_says_so_when_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, use_backend: bool | None
) -> None:
    missing = Backend(False, "no module named prometheus_client")
    monkeypatch.setattr(backend_integration, "detect_monitoring", lambda: missing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        collector = get_metrics_collector(use_backend=use_backend)
    assert isinstance(collector, LocalCollector)
    assert ["no module named prometheus_client" in str(warning.message) for warning in caught] == [True] * bool(
        use_backend
    )
