"""OpenSLO documents: each setting in the specification's words, and what has no word is said."""

from __future__ import annotations

import pytest
import yaml

from backend.shared.monitoring.exports.objective import Counters, declared_objective, service_objective
from backend.shared.monitoring.exports.openslo import openslo
from backend.shared.monitoring.openslo.reader import read_openslo
from backend.shared.monitoring.settings import (
    AlertingSettings,
    BurnAlertSettings,
    CalendarWindowSettings,
    CompositeIndicatorSettings,
    ObjectiveSettings,
    RatioIndicatorSettings,
    RatioTimeslicesSettings,
    RawRatioIndicatorSettings,
    RollingWindowSettings,
    ThresholdIndicatorSettings,
    TimeslicesSettings,
)

NO_ALERTS = AlertingSettings(burn_alerts=())
LATENCY = ThresholdIndicatorSettings(kind="threshold", metric="request_duration", threshold=0.3)
BAD_RATIO = RatioIndicatorSettings(kind="ratio", total="requests", bad="failures")
GOOD_RATIO = RatioIndicatorSettings(kind="ratio", total="requests", good="answers")
RAW = RawRatioIndicatorSettings(kind="raw_ratio", metric="loss", of="failure")


def rolling(days):
    return RollingWindowSettings(kind="rolling", days=days)


def said(**settings):
    return ObjectiveSettings(**{"indicator": LATENCY, "objective": 99.5, "service": "web"} | settings)


def declared(name, settings, alerting=NO_ALERTS):
    counters = Counters("my_objective_events_total", "my_objective_good_events_total", ("objective", name))
    return declared_objective(name, settings, alerting=alerting, counters=counters, prefix="my")


def documents(*objectives):
    return list(yaml.safe_load_all(openslo(objectives).text))


def slo(settings, **other):
    return next(each["spec"] for each in documents(declared("x", settings, **other)) if each["kind"] == "SLO")


def test_every_document_is_openslo_v1_with_kind_and_name():
    written = documents(declared("x", said(), AlertingSettings()))
    assert {document["apiVersion"] for document in written} == {"openslo/v1"}
    assert [document["kind"] for document in written] == ["Service", "SLO", *["AlertPolicy"] * 4]
    assert all(document["metadata"]["name"] for document in written)


@pytest.mark.parametrize(("comparison", "op"), [("<=", "lte"), ("<", "lt"), (">=", "gte"), (">", "gt")])
def test_a_threshold_is_compared_as_it_is_here(comparison, op):
    indicator = ThresholdIndicatorSettings(kind="threshold", metric="m", comparison=comparison, threshold=7.5)
    assert slo(said(indicator=indicator))["objectives"] == [{"targetPercent": 99.5, "op": op, "value": 7.5}]


@pytest.mark.parametrize(
    ("unit", "duration"), [("day", "1d"), ("week", "1w"), ("month", "1M"), ("quarter", "1Q"), ("year", "1Y")]
)
def test_a_calendar_window_keeps_unit_and_time_zone(unit, duration):
    window = CalendarWindowSettings(kind="calendar", unit=unit, time_zone="Europe/Berlin")
    calendar = {"startTime": "2024-01-01 00:00:00", "timeZone": "Europe/Berlin"}
    assert slo(said(windows=(window,)))["timeWindow"] == [
        {"duration": duration, "isRolling": False, "calendar": calendar}
    ]


@pytest.mark.parametrize(("days", "duration"), [(30, "30d"), (0.25, "6h"), (1.5, "36h"), (1 / 48, "30m")])
def test_a_rolling_window_is_written_in_the_largest_unit_that_fits(days, duration):
    assert slo(said(windows=(rolling(days),)))["timeWindow"] == [{"duration": duration, "isRolling": True}]


def test_a_service_is_given_as_the_counters_that_are_scraped():
    counters = Counters("my_slo_events_total", "my_slo_good_events_total", ("service", "api"))
    api = service_objective(
        "api", latency_ms=300, availability=99.9, window_days=30, alerting=NO_ALERTS, counters=counters, prefix="my"
    )
    (spec,) = (each["spec"] for each in documents(api) if each["kind"] == "SLO")
    ratio = spec["indicator"]["spec"]["ratioMetric"]
    assert ratio["good"]["metricSource"]["spec"]["query"] == 'my_slo_good_events_total{service="api"}'
    assert ratio["total"]["metricSource"]["spec"]["query"] == 'my_slo_events_total{service="api"}'


def test_each_further_window_is_an_slo_of_its_own():
    written = documents(declared("x", said(windows=(rolling(30), rolling(7)))))
    assert [each["metadata"]["name"] for each in written if each["kind"] == "SLO"] == ["x", "x-7d"]


LEFT_OUT = {
    "composite": said(indicator=CompositeIndicatorSettings(kind="composite", weights={"a": 1.0})),
    "window of odd seconds": said(windows=(rolling(0.0417),)),
    "slice of odd seconds": said(method=RatioTimeslicesSettings(kind="ratio_timeslices", slice_s=90)),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_openslo_has_no_words_for_is_left_out_and_said(case):
    export = openslo([declared("x", LEFT_OUT[case])])
    (warning,) = export.warnings
    assert "'x'" in warning
    assert "left out" in warning
    assert f"# {warning}\n" in export.text
    assert not [each for each in yaml.safe_load_all(export.text) if each]


def test_a_description_is_cut_to_what_openslo_allows_and_that_is_said():
    settings = said(description="x" * 1051)
    assert len(slo(settings)["description"]) == 1050
    assert "cut" in openslo([declared("x", settings)]).warnings[0]


TABLE = (
    BurnAlertSettings(severity="page", budget_share=0.02, long_s=3600),
    BurnAlertSettings(severity="ticket", budget_share=0.1, long_s=86_400),
)
SAME = {
    "threshold": said(description='a "quoted" text'),
    "good of total": said(indicator=GOOD_RATIO, objective=99.99),
    "bad of total": said(indicator=BAD_RATIO, windows=(rolling(28),)),
    "raw ratio": said(indicator=RAW, windows=(rolling(0.25),)),
    "timeslices": said(method=TimeslicesSettings(kind="timeslices", slice_s=300, slice_objective=97.3)),
    "whole slices": said(method=TimeslicesSettings(kind="timeslices", slice_s=60, slice_objective=100)),
    "ratio timeslices": said(method=RatioTimeslicesSettings(kind="ratio_timeslices", slice_s=3600)),
    "calendar": said(windows=(CalendarWindowSettings(kind="calendar", unit="week", time_zone="Asia/Tokyo"),)),
    "alerts": said(alerting=AlertingSettings(burn_alerts=TABLE, pending_s=120)),
}


@pytest.mark.parametrize("case", SAME)
def test_what_is_exported_is_imported_as_the_same_settings(case, tmp_path):
    (tmp_path / "slo.yaml").write_text(openslo([declared("x", SAME[case])]).text, "utf-8")
    (imported,) = read_openslo(tmp_path / "slo.yaml")
    assert (imported.name, imported.settings) == ("x", SAME[case])
