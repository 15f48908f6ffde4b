"""What prometheus-client adds: OpenMetrics, burn rates at scrape time, and the metrics of the process."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from backend.shared.monitoring.metrics import PrometheusCollector
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def collector() -> PrometheusCollector:
    return PrometheusCollector("shop", clock=SystemClock())


def test_openmetrics_is_given_to_those_who_ask_for_it(collector: PrometheusCollector) -> None:
    collector.record_metric("sent", 10, {"to": "a"}, kind="counter", unit="bytes", help="Sent.")
    collector.record_metric("wait", 0.2, unit="seconds")
    collector.define_slo("fast", 1.0, "wait", "<=")
    collector.record_metric("wait", 0.2, unit="seconds")
    body, content_type = collector.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["shop_sent_bytes"].unit == "bytes"
    assert {"shop_wait_seconds", "shop_slo_objective_ratio", "process_resident_memory_bytes"} <= set(families)
    plain, content_type = collector.render("text/plain")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"EOF" not in plain


def test_burn_rates_are_exposed_by_window(collector: PrometheusCollector) -> None:
    collector.define_slo("fast", 1.0, "wait", "<=", window_minutes=60, objective=90)
    for value in (0.5, 0.5, 0.5, 2.0):
        collector.record_metric("wait", value)
    families = {family.name: family for family in parse_text(collector.render()[0].decode())}
    rates = {sample.labels["window"]: sample.value for sample in families["shop_slo_burn_rate"].samples}
    assert rates == pytest.approx({"5m": 2.5, "30m": 2.5, "1h": 2.5})


def test_each_collector_has_a_registry_of_its_own() -> None:
    one, other = (PrometheusCollector("shop", clock=SystemClock(), process_metrics=False) for _ in range(2))
    one.record_metric("orders", 1, kind="counter")
    assert b"shop_orders_total 1.0" in one.render()[0]
    assert other.render()[0] == b""


def test_a_name_that_the_process_metrics_take_is_refused() -> None:
    collector = PrometheusCollector("process", clock=SystemClock())
    with pytest.raises(ConfigurationError, match=r"process_cpu_seconds.*taken by a metric of the collector itself"):
        collector.record_metric("cpu", 1, kind="counter", unit="seconds")
    assert collector.metric_names() == []
    collector.render()
