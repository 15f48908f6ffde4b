"""A collector names, counts and exposes alike, whichever implementation serves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modules.contracts.errors import ConfigurationError
from modules.contracts.metrics import Comparison, MetricKind, MetricsCollector

Sample = tuple[str, frozenset[tuple[str, str]], float]


def exposed(collector: MetricsCollector) -> set[Sample]:
    text = collector.render()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(collector.prefix)
    }


@pytest.mark.parametrize(
    ("name", "kind", "unit", "expected"),
    [
        ("checks", "counter", "", "shop_checks_total"),
        ("checks_total", "counter", "", "shop_checks_total"),
        ("sent", "counter", "bytes", "shop_sent_bytes_total"),
        ("sent_bytes_total", "counter", "bytes", "shop_sent_bytes_total"),
        ("wait", "histogram", "seconds", "shop_wait_seconds"),
        ("wait_seconds", "gauge", "seconds", "shop_wait_seconds"),
        ("queue", "gauge", "", "shop_queue"),
    ],
)
def test_names_follow_the_prometheus_conventions(
    collector: MetricsCollector, name: str, kind: MetricKind, unit: str, expected: str
) -> None:
    collector.record_metric(name, 1, kind=kind, unit=unit)
    assert collector.metric_names() == [expected]
    assert expected in {sample[0].removesuffix("_count") for sample in exposed(collector)}


def test_counters_add_gauges_are_set_histograms_observe(collector: MetricsCollector) -> None:
    for value in (1, 2.5):
        collector.record_metric("sold", value, {"item": "tea"}, kind="counter")
        collector.record_metric("stock", value, {"item": "tea"}, kind="gauge")
        collector.record_metric("wait", value, {"item": "tea"})
    tea = frozenset({("item", "tea")})
    samples = exposed(collector)
    assert ("shop_sold_total", tea, 3.5) in samples
    assert ("shop_stock", tea, 2.5) in samples
    assert ("shop_wait_count", tea, 2) in samples
    assert ("shop_wait_sum", tea, 3.5) in samples
    buckets = {dict(labels)["le"]: value for name, labels, value in samples if name == "shop_wait_bucket"}
    assert (buckets["0.5"], buckets["1.0"], buckets["2.5"], buckets["+Inf"]) == (0, 1, 2, 2)
    assert [collector.value(name, {"item": "tea"}) for name in ("sold", "stock", "wait")] == [3.5, 2.5, 2.5]


def test_what_was_never_recorded_has_no_value(collector: MetricsCollector) -> None:
    collector.record_metric("sold", 1, {"item": "tea"}, kind="counter")
    assert collector.value("sold", {"item": "milk"}) is None
    assert collector.value("sold") is None
    assert collector.value("sold", {"shelf": "tea"}) is None
    assert collector.value("stock") is None


def test_label_text_and_help_survive_the_exposition(collector: MetricsCollector) -> None:
    text = 'a "quoted" \\ back\nslash, {x="y"} ü'
    collector.record_metric("odd", 1, {"text": text}, kind="gauge", help='back\\slash\nand "line"')
    collector.record_metric("raw", 1, {"text": "\udcff"}, kind="gauge")
    assert ("shop_odd", frozenset({("text", text)}), 1.0) in exposed(collector)
    assert ("shop_raw", frozenset({("text", "\\udcff")}), 1.0) in exposed(collector)
    assert collector.value("raw", {"text": "\udcff"}) == 1


def test_the_order_of_labels_does_not_matter(collector: MetricsCollector) -> None:
    collector.record_metric("sold", 1, {"item": "tea", "shelf": "1"}, kind="counter")
    collector.record_metric("sold", 1, {"shelf": "1", "item": "tea"}, kind="counter")
    assert collector.value("sold", {"shelf": "1", "item": "tea"}) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "3", None, 10**400])
def test_what_is_no_finite_number_is_refused_and_changes_nothing(collector: MetricsCollector, value: float) -> None:
    collector.define_slo("fast", 1, "wait", "<=")
    with pytest.raises(ConfigurationError, match=r"metric wait: .* a finite number"):
        collector.record_metric("wait", value)
    assert collector.metric_names() == []
    assert collector.get_slo_status()["fast"].total == 0


def test_a_counter_does_not_shrink(collector: MetricsCollector) -> None:
    with pytest.raises(ConfigurationError, match="at least 0"):
        collector.record_metric("sold", -1, kind="counter")


@pytest.mark.parametrize(
    "again",
    [
        {"kind": "gauge", "labels": {"item": "tea"}},
        {"kind": "counter", "labels": {"item": "tea"}, "unit": "bytes"},
        {"kind": "counter", "labels": {"shelf": "1"}},
        {"kind": "counter", "labels": {"item": "tea", "shelf": "1"}},
        {"kind": "counter"},
        {"kind": "counter", "labels": {"item": 3}},
        {"kind": "counter", "labels": {"item": ["tea"]}},
    ],
)
def test_a_metric_recorded_in_another_way_is_refused(collector: MetricsCollector, again: dict[str, Any]) -> None:
    collector.record_metric("sold", 1, {"item": "tea"}, kind="counter")
    with pytest.raises(ConfigurationError, match="metric sold"):
        collector.record_metric("sold", 1, **again)
    assert collector.value("sold", {"item": "tea"}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "Request-Duration"}, "did you mean 'request_duration'"),
        ({"name": ""}, "lower-case letters"),
        ({"name": "2fast"}, "letter first"),
        ({"name": None}, "lower-case letters"),
        ({"name": "sold_total", "kind": "gauge"}, "only counters end in _total"),
        ({"name": "wait", "unit": "ms"}, "seconds"),
        ({"name": "wait", "unit": "milli seconds"}, "lower-case word"),
        ({"name": "wait", "kind": "summary"}, "gauge, counter, histogram"),
        ({"name": "wait", "labels": {"le": "1"}}, "not le"),
        ({"name": "wait", "labels": {"__name__": "1"}}, "label name '__name__'"),
        ({"name": "wait", "labels": {"a-b": "1"}}, "label name 'a-b'"),
        ({"name": "wait", "labels": {"item": 3}}, "use str"),
        ({"name": "slo_burn_rate", "kind": "gauge"}, "taken by a metric of the collector itself"),
    ],
)
def test_a_metric_that_cannot_be_exposed_is_refused_and_leaves_nothing(
    collector: MetricsCollector, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        collector.record_metric(value=1, **arguments)
    assert collector.metric_names() == []
    assert exposed(collector) == set()


@pytest.mark.parametrize("name", ["wait_count", "wait_sum", "wait_bucket", "wait_created"])
def test_a_name_that_a_histogram_exposes_is_taken(collector: MetricsCollector, name: str) -> None:
    collector.record_metric("wait", 1)
    with pytest.raises(ConfigurationError, match="taken by the histogram wait"):
        collector.record_metric(name, 1, kind="gauge")


def test_two_ways_to_one_exposed_name_are_refused(collector: MetricsCollector) -> None:
    collector.record_metric("delay", 1, kind="counter", unit="seconds")
    with pytest.raises(ConfigurationError, match="taken by the counter delay"):
        collector.record_metric("delay_seconds", 1, kind="gauge")


@pytest.mark.parametrize("prefix", ["", "2x", "a-b", "a b", None])
def test_a_prefix_that_cannot_begin_a_name_is_refused(
    make_collector: Callable[[str], MetricsCollector], prefix: str
) -> None:
    with pytest.raises(ConfigurationError, match="prefix of metrics"):
        make_collector(prefix)


def test_label_values_beyond_the_cap_share_one_series_and_one_warning(
    collector: MetricsCollector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(1500):
            collector.record_metric("seen", 1, {"user": str(number)}, kind="counter")
    collector.record_metric("seen", 1, {"user": "7"}, kind="counter")
    collector.record_metric("plain", 1, kind="counter")
    series = [sample for sample in exposed(collector) if sample[0] == "shop_seen_total"]
    assert len(series) == 1001
    assert ("shop_seen_total", frozenset({("user", "other")}), 500.0) in series
    assert collector.value("seen", {"user": "7"}) == 2
    assert len(caplog.records) == 1
    assert "metric seen has 1000 series" in caplog.text


@pytest.mark.parametrize(
    ("comparison", "good"), [("<=", 2), ("<", 1), (">=", 2), (">", 1)], ids=["le", "lt", "ge", "gt"]
)
def test_an_objective_counts_the_samples_that_satisfy_it(
    collector: MetricsCollector, comparison: Comparison, good: int
) -> None:
    collector.define_slo("promise", 10, "wait", comparison, objective=50)
    for value, item in ((5, "tea"), (10, "milk"), (15, "tea")):
        collector.record_metric("wait", value, {"item": item})
    collector.record_metric("other", 1)
    report = collector.get_slo_status()["promise"]
    assert (report.good, report.total, report.value) == (good, 3, 15)
    assert report.objective == 50


def test_the_same_definition_again_changes_nothing_and_another_one_is_refused(collector: MetricsCollector) -> None:
    for _ in range(2):
        collector.define_slo("fast", 1, "wait", "<=", window_minutes=5)
        collector.record_metric("wait", 0.5)
    assert collector.get_slo_status()["fast"].total == 2
    with pytest.raises(ConfigurationError, match="'fast' is defined already"):
        collector.define_slo("fast", 2, "wait", "<=", window_minutes=5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"comparison": "=="}, "allowed: <=, <, >=, >"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"window_minutes": 0}, "window of fast"),
        ({"window_minutes": "60"}, "window_minutes must be a finite number"),
        ({"objective": 100}, "objective of fast"),
        ({"name": ""}, "name of an objective"),
    ],
)
def test_an_objective_that_cannot_be_kept_is_refused(
    collector: MetricsCollector, wrong: dict[str, Any], said: str
) -> None:
    definition: dict[str, Any] = {"name": "fast", "threshold": 1, "metric": "wait", "comparison": "<=", **wrong}
    with pytest.raises(ConfigurationError, match=said):
        collector.define_slo(**definition)
    assert collector.get_slo_status() == {}


def test_objectives_are_exposed_as_ratios_and_say_nothing_of_themselves_without_data(
    collector: MetricsCollector,
) -> None:
    collector.define_slo("fast", 1.0, "wait", "<=", objective=90)
    assert exposed(collector) == {("shop_slo_objective_ratio", frozenset({("slo", "fast")}), 0.9)}
    for value in [0.5] * 19 + [2.0]:
        collector.record_metric("wait", value)
    found = {name: value for name, labels, value in exposed(collector) if ("slo", "fast") in labels}
    assert found["shop_slo_sli_ratio"] == pytest.approx(0.95)
    assert found["shop_slo_error_budget_remaining_ratio"] == pytest.approx(0.5)


def test_an_export_holds_definitions_and_values_as_json(collector: MetricsCollector) -> None:
    collector.define_slo("fast", 1.0, "wait", "<=")
    collector.record_metric("wait", 0.5, {"item": "tea"}, unit="seconds", help="Waiting.")
    export = json.loads(json.dumps(collector.export()))
    assert export["prefix"] == "shop"
    assert export["slos"]["fast"]["threshold"] == 1.0
    assert export["slo_status"]["fast"]["status"] == "met"
    assert export["metrics"]["shop_wait_seconds"] == {
        "kind": "histogram",
        "unit": "seconds",
        "help": "Waiting.",
        "series": [{"labels": {"item": "tea"}, "value": 0.5}],
    }
