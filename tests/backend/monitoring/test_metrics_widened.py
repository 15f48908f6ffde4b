"""Exemplars, observers, gauges that are computed, content negotiation, and the bound on label values."""

from __future__ import annotations

import logging
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from backend.shared.monitoring.metrics import PrometheusCollector
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.gauges import objective_gauges
from modules.contracts.metrics import Gauge
from modules.contracts.slo import ObjectiveReport, SLOStatus
from modules.local.metrics import LocalCollector

OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class At(SystemClock):
    def time(self):
        return 1_700_000_000.5


@pytest.fixture
def collector():
    return PrometheusCollector("shop", clock=At(), process_metrics=False)


@pytest.fixture(params=[PrometheusCollector, LocalCollector], ids=["backend", "local"])
def either(request):
    return request.param("shop", clock=At())


def samples(collector, accept=""):
    parse = parse_openmetrics if accept else parse_text
    return [sample for family in parse(collector.render(accept)[0].decode()) for sample in family.samples]


# --- exemplars --------------------------------------------------------------------------------------


def test_the_newest_exemplar_of_a_bucket_is_shown_beside_it_with_its_value_and_time(collector):
    for value, trace in ((0.3, "a"), (0.4, "b"), (9999.0, "c"), (0.2, "")):
        exemplar = {"trace_id": trace} if trace else None
        collector.record_metric("wait", value, {"item": "tea"}, unit="seconds", exemplar=exemplar)
    collector.record_metric("wait", 0.3, {"item": "milk"}, unit="seconds")
    found = {
        (sample.labels["item"], sample.labels["le"]): sample.exemplar
        for sample in samples(collector, OPENMETRICS)
        if sample.exemplar
    }
    assert set(found) == {("tea", "0.5"), ("tea", "+Inf")}
    assert found["tea", "0.5"].labels == {"trace_id": "b"}
    assert found["tea", "0.5"].value == 0.4
    assert float(found["tea", "0.5"].timestamp) == 1_700_000_000.5
    assert found["tea", "+Inf"].labels == {"trace_id": "c"}


@pytest.mark.parametrize("value", [0.005, 0.0050001, 1000.0, 1000.1])
def test_an_exemplar_is_beside_the_bucket_that_its_value_is_in(collector, value):
    collector.record_metric("wait", value, exemplar={"trace_id": "a"})
    beside = [sample for sample in samples(collector, OPENMETRICS) if sample.exemplar]
    first = next(
        sample for sample in samples(collector, OPENMETRICS) if sample.name == "shop_wait_bucket" and sample.value
    )
    assert [sample.labels for sample in beside] == [first.labels]


def test_a_counter_has_an_exemplar_on_its_total(collector):
    collector.record_metric("sent", 3, {"to": "a"}, kind="counter", unit="bytes", exemplar={"trace_id": "a\\b\n# {}"})
    shown = [(sample.name, sample.exemplar.labels) for sample in samples(collector, OPENMETRICS) if sample.exemplar]
    assert shown == [("shop_sent_bytes_total", {"trace_id": "a\\b\n# {}"})]


def test_a_quote_in_an_exemplar_is_escaped(collector):
    collector.record_metric("sent", 3, kind="counter", exemplar={"trace_id": 'a"b'})
    # prometheus-client's own parser does not read it, so the bytes are looked at
    assert b'shop_sent_total 3.0 # {trace_id="a\\"b"} 3.0 1700000000.5\n' in collector.render(OPENMETRICS)[0]


def test_plain_text_has_no_place_for_exemplars(either):
    either.record_metric("wait", 0.3, exemplar={"trace_id": "a"})
    body, content_type = either.render()
    assert content_type == TEXT
    assert b"trace_id" not in body


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"exemplar": {"trace_id": "x" * 121}}, r"129 characters.*allows 128"),
        ({"exemplar": {"trace_id": 7}}, "label trace_id has the value 7"),
        ({"exemplar": {"trace-id": "a"}}, "exemplar label 'trace-id'"),
        ({"exemplar": "abc"}, "found exemplar 'abc'"),
        ({"exemplar": {"trace_id": "a"}, "kind": "gauge"}, "only counters and histograms have exemplars"),
    ],
)
def test_an_exemplar_that_cannot_be_exposed_is_refused_and_nothing_is_recorded(either, arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        either.record_metric("wait", 1, **arguments)
    assert either.metric_names() == []


def test_an_exemplar_may_have_128_characters_in_all_whatever_their_bytes(collector):
    collector.record_metric("wait", 1, exemplar={"trace_id": "ü" * 120})
    collector.record_metric("raw", 1, exemplar={"id": "\udcff"})
    shown = {sample.name: sample.exemplar.labels for sample in samples(collector, OPENMETRICS) if sample.exemplar}
    assert shown == {"shop_wait_bucket": {"trace_id": "ü" * 120}, "shop_raw_bucket": {"id": "\\udcff"}}


# --- observers --------------------------------------------------------------------------------------


def test_an_observer_hears_of_each_sample_that_was_recorded_and_of_no_other(either):
    heard = []
    end = either.add_observer(lambda *sample: heard.append(sample))
    either.record_metric("sold", 2, {"item": "tea"}, kind="counter")
    either.record_metric("sold", 3, {"item": "tea"}, kind="counter")
    either.record_metric("stock", 0.0, kind="gauge")
    for wrong in (math.nan, math.inf, -1):
        with pytest.raises(ConfigurationError):
            either.record_metric("sold", wrong, {"item": "tea"}, kind="counter")
    assert heard == [("sold", 2, {"item": "tea"}), ("sold", 3, {"item": "tea"}), ("stock", 0.0, {})]
    end()
    end()
    either.record_metric("stock", 1, kind="gauge")
    assert len(heard) == 3


def test_an_observer_that_fails_costs_neither_sample_nor_the_other_observers_and_one_line_of_log(either, caplog):
    heard = []
    either.add_observer(lambda *sample: 1 / 0)
    either.add_observer(lambda *sample: heard.append(sample))
    for _ in range(3):
        either.record_metric("sold", 1, kind="counter")
    assert len(heard) == either.value("sold") == 3
    assert [record.message for record in caplog.records] == [
        "an observer failed on the metric sold: ZeroDivisionError: division by zero"
    ]


# --- gauges that are computed -----------------------------------------------------------------------


def gauge(name, *values, **labels):
    return Gauge(name, "Help.", tuple((labels, value) for value in values))


def test_a_source_is_asked_at_each_exposition(either):
    depth = iter((1.0, 2.0))
    either.add_gauges(lambda: [gauge("shop_depth", next(depth), queue="in")])
    for expected in (1.0, 2.0):
        found = [(s.labels, s.value) for s in samples(either) if s.name == "shop_depth"]
        assert found == [({"queue": "in"}, expected)]


def test_two_sources_of_one_gauge_make_one_metric(either):
    for queue in ("in", "out"):
        either.add_gauges(lambda queue=queue: [gauge("shop_depth", 1.0, queue=queue)])
    assert either.render()[0].count(b"# TYPE shop_depth gauge") == 1
    assert [s.labels["queue"] for s in samples(either) if s.name == "shop_depth"] == ["in", "out"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (gauge("shop_sold_total", 1.0), "a recorded metric has that name"),
        (gauge("shop wait", 1.0), "no metric can have that name"),
        (Gauge("shop_depth", "", (({"a": "1"}, 1.0), ({"b": "1"}, 1.0))), "differ in their label names"),
    ],
)
def test_a_gauge_that_would_spoil_the_exposition_is_left_out_and_logged_once(either, caplog, bad, said):
    either.record_metric("sold", 1, kind="counter")
    either.add_gauges(lambda: [bad, gauge("shop_good", 1.0)])
    for _ in range(2):
        shown = [s.name for s in samples(either)]
        assert shown.count("shop_sold_total") == 1
        assert "shop_good" in shown
        assert "shop_depth" not in shown
    assert [said in record.message for record in caplog.records] == [True]


def test_a_source_that_fails_leaves_the_rest_of_the_exposition(either, caplog):
    either.add_gauges(lambda: 1 / 0)
    either.add_gauges(lambda: [gauge("shop_good", math.nan), gauge("shop_low", -math.inf), gauge("shop_none")])
    for _ in range(2):
        found = {s.name: s.value for s in samples(either)}
    assert math.isnan(found["shop_good"])
    assert found["shop_low"] == -math.inf
    assert "shop_none" not in found
    assert len(caplog.records) == 1


def test_objectives_of_the_engine_are_exposed_and_nothing_is_claimed_without_data(either):
    good = ObjectiveReport(
        "checkout", "", "api", 99.0, "occurrences", SLOStatus.AT_RISK, 99.5, 50.0, {"1h": 14.4}, None, ()
    )
    silent = ObjectiveReport("quiet", "", None, 90.0, "occurrences", SLOStatus.NO_DATA, None, None, {}, None, ())
    either.add_gauges(lambda: objective_gauges("shop", [good, silent]))
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples(either) if s.name.startswith("shop_obj")}
    checkout, quiet = {"objective": "checkout", "service": "api"}, {"objective": "quiet", "service": ""}
    status = {
        ("shop_objective_status", frozenset({("objective", name), ("status", value.value)})): float(value is now)
        for name, now in (("checkout", SLOStatus.AT_RISK), ("quiet", SLOStatus.NO_DATA))
        for value in SLOStatus
    }
    assert found == {
        ("shop_objective_ratio", frozenset(checkout.items())): 0.99,
        ("shop_objective_ratio", frozenset(quiet.items())): 0.9,
        ("shop_objective_sli_ratio", frozenset(checkout.items())): 0.995,
        ("shop_objective_error_budget_remaining_ratio", frozenset(checkout.items())): 0.5,
        ("shop_objective_burn_rate", frozenset({("objective", "checkout"), ("window", "1h")})): 14.4,
        **status,
    }
    with pytest.raises(ConfigurationError, match="taken by a metric of the collector itself"):
        either.record_metric("objective_burn_rate", 1, kind="gauge")


# --- content negotiation ----------------------------------------------------------------------------

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),
        (OPENMETRICS, True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        (f"{OPENMETRICS};version=0.0.1", True),
        (f"text/plain, {OPENMETRICS}", True),
        (f"text/plain;q=1, {OPENMETRICS};q=0.2", False),
        (f"{OPENMETRICS};q=0", False),
        (f"{OPENMETRICS};q=much", False),
        (f"{OPENMETRICS};version=2.0.0", False),
        (f"{OPENMETRICS};version=abc", False),
        ("text/plain", False),
        ("*/*", False),
        ("text/html;q=0.9", False),
        ("", False),
    ],
)
def test_openmetrics_is_given_where_it_is_preferred_in_a_version_that_is_spoken(collector, accept, openmetrics):
    body, content_type = collector.render(accept)
    expected = f"{OPENMETRICS}; version=1.0.0; charset=utf-8" if openmetrics else TEXT
    assert content_type == expected
    assert body.endswith(b"# EOF\n") is openmetrics


@given(st.text(max_size=60))
def test_no_accept_header_breaks_the_exposition(accept):
    assert PrometheusCollector("shop", clock=At(), process_metrics=False).render(accept)[1]


# --- bounds -----------------------------------------------------------------------------------------


def test_a_million_label_values_stay_bounded(caplog):
    collector = PrometheusCollector("shop", clock=At(), process_metrics=False, max_series=100)
    record = collector.record_metric
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            record("seen", 1, {"user": str(number)}, kind="counter", exemplar={"trace_id": str(number)})
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000, 31_000):  # traced memory makes each record slow
            record("seen", 1, {"user": str(number)}, kind="counter", exemplar={"trace_id": str(number)})
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for number in range(31_000, 1_000_000):
            record("seen", 1, {"user": str(number)}, kind="counter")
    assert grown < 500_000, "30,000 more series would take some 15 MB"
    assert len(collector.render()[0]) < 20_000
    found = {s.labels["user"]: s.value for s in samples(collector) if s.name == "shop_seen_total"}
    assert len(found) == 101
    assert found["other"] == 999_900
    assert len(caplog.records) == 1


def test_a_gauge_of_several_workers_is_declared_alike_everywhere(either):
    either.record_metric("depth", 1, kind="gauge", gauge_mode="sum")
    with pytest.raises(ConfigurationError, match="gauge_mode 'sum'"):
        either.record_metric("depth", 1, kind="gauge")
    for wrong in ({"kind": "counter", "gauge_mode": "sum"}, {"kind": "gauge", "gauge_mode": "avg"}):
        with pytest.raises(ConfigurationError, match="found gauge_mode"):
            either.record_metric("other", 1, **wrong)
    assert either.metric_names() == ["shop_depth"]
