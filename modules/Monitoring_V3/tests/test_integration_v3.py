"""Monitoring V3 looks and exports; it changes nothing."""

from __future__ import annotations

import pytest

from modules.contracts.errors import ReadOnlyModuleError
from modules.contracts.metrics import MetricsCollector
from modules.Monitoring_V2.src.backend_integration import get_metrics_collector as get_live_collector
from modules.Monitoring_V3.src.backend_integration import BACKEND_AVAILABLE, BACKEND_ERROR, get_metrics_collector


@pytest.fixture(params=[True, False], ids=["backend", "local"])
def source(request: pytest.FixtureRequest) -> MetricsCollector:
    collector = get_live_collector("shop", use_backend=request.param)
    collector.define_slo("fast", 1.0, "wait", "<=")
    collector.record_metric("wait", 0.5)
    return collector


def test_the_backend_is_there_and_gives_no_reason() -> None:
    assert (BACKEND_AVAILABLE, BACKEND_ERROR) == (True, None)


def test_the_view_shows_what_its_source_holds(source: MetricsCollector) -> None:
    view = get_metrics_collector(source=source)
    source.record_metric("wait", 2.0)
    assert view.prefix == "shop"
    assert view.value("wait") == 2.0
    assert view.metric_names() == ["shop_wait"]
    assert view.get_slo_status()["fast"] == source.get_slo_status()["fast"]
    assert b"shop_wait_count 2.0" in view.render()[0]
    assert view.export() == source.export()


def test_every_change_is_refused_and_names_the_call_of_v2(source: MetricsCollector) -> None:
    view = get_metrics_collector(source=source)
    before = source.export()
    with pytest.raises(ReadOnlyModuleError, match=r"Monitoring_V2.*get_metrics_collector\(\)\.record_metric\(\)"):
        view.record_metric("wait", 1.0)
    with pytest.raises(ReadOnlyModuleError, match=r"Monitoring_V2.*get_metrics_collector\(\)\.define_slo\(\)"):
        view.define_slo("fast", 1.0, "wait", "<=")
    with pytest.raises(ReadOnlyModuleError):
        setattr(view, "prefix", "mine")  # noqa: B010  what a type checker refuses already
    assert source.export() == before


@pytest.mark.parametrize("use_backend", [None, True, False])
def test_without_a_source_there_is_nothing_to_see(use_backend: bool | None) -> None:
    view = get_metrics_collector("shop", use_backend)
    assert (view.prefix, view.metric_names(), view.get_slo_status()) == ("shop", [], {})
