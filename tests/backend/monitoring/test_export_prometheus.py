"""Exported rules: what they say, what they leave out, and that promtool agrees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.monitoring.exports.objective import Counters, declared_objective, service_objective
from backend.shared.monitoring.exports.prometheus_rules import prometheus_rules
from backend.shared.monitoring.exports.promql import duration, number, selector
from backend.shared.monitoring.settings import (
    AlertingSettings,
    BurnAlertSettings,
    CalendarWindowSettings,
    CompositeIndicatorSettings,
    LowTrafficSettings,
    ObjectiveSettings,
    RollingWindowSettings,
    ThresholdIndicatorSettings,
    TimeslicesSettings,
)
from modules.contracts.errors import ConfigurationError

LATENCY = ThresholdIndicatorSettings(kind="threshold", metric="request_duration", threshold=0.3)


def service(name="api", **other):
    said = {"latency_ms": 300, "availability": 99.9, "window_days": 30, "alerting": AlertingSettings()} | other
    counters = Counters("my_slo_events_total", "my_slo_good_events_total", ("service", name))
    return service_objective(name, counters=counters, prefix="my", **said)


def declared(name="p99", **settings):
    counters = Counters("my_objective_events_total", "my_objective_good_events_total", ("objective", name))
    said = ObjectiveSettings(**{"indicator": LATENCY, "objective": 99.0} | settings)
    return declared_objective(name, said, alerting=AlertingSettings(), counters=counters, prefix="my")


def rules_of(*objectives):
    groups = yaml.safe_load(prometheus_rules(objectives).text)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts_of(*objectives):
    return [rule for rule in rules_of(*objectives) if "alert" in rule]


def records_of(*objectives):
    return {
        (rule["record"], rule["labels"].get("window")): rule["expr"]
        for rule in rules_of(*objectives)
        if "record" in rule
    }


def test_factors_follow_from_share_period_and_long_window():
    factors = [re.search(r">= ([\d.]+)", rule["expr"])[1] for rule in alerts_of(service(window_days=28))]
    assert [float(factor) for factor in factors] == pytest.approx([13.44, 5.6, 2.8, 28 / 30])


def test_an_alert_looks_at_the_long_window_and_at_a_twelfth_of_it():
    table = (BurnAlertSettings(severity="page", budget_share=0.5, long_s=7200),)
    (rule,) = alerts_of(service(alerting=AlertingSettings(burn_alerts=table)))
    assert rule["labels"] == {"severity": "page", "objective": "api", "service": "api", "window": "2h"}
    assert re.findall(r'window="(\w+)"', rule["expr"]) == ["2h", "10m", "2h"]
    assert ("slo:sli_error:ratio_rate10m", "10m") in records_of(service(alerting=AlertingSettings(burn_alerts=table)))


def test_a_row_that_can_never_fire_at_an_objective_is_not_exported():
    assert [rule["labels"]["window"] for rule in alerts_of(service(availability=90))] == ["6h", "1d", "3d"]


def test_an_alert_waits_and_lingers_as_long_as_it_is_told():
    alerting = AlertingSettings(pending_s=120, resolve_s=90)
    assert {(rule["for"], rule["keep_firing_for"]) for rule in alerts_of(service(alerting=alerting))} == {
        ("2m", "1m30s")
    }
    at_once = alerts_of(service(alerting=AlertingSettings(pending_s=0, resolve_s=0)))
    assert not any({"for", "keep_firing_for"} & set(rule) for rule in at_once)


def test_the_budget_of_every_rolling_window_is_recorded():
    windows = tuple(RollingWindowSettings(kind="rolling", days=days) for days in (7, 30))
    found = records_of(declared(windows=windows))
    assert {window for name, window in found if name == "slo:period_error_budget_remaining:ratio"} == {"7d", "30d"}


def test_a_window_longer_than_the_objectives_own_has_no_burn_rate():
    windows = {window for name, window in records_of(service(window_days=1)) if name == "slo:burn_rate:ratio"}
    assert windows == {"5m", "30m", "1h", "2h", "6h", "1d"}


def test_a_calendar_budget_is_left_out_with_a_word_and_its_alerts_stay():
    windows = (CalendarWindowSettings(kind="calendar", unit="month", time_zone="Europe/Berlin"),)
    export = prometheus_rules([declared(windows=windows)])
    (warning,) = export.warnings
    assert "'p99'" in warning
    assert "calendar window (month, Europe/Berlin)" in warning
    assert f"# {warning}\n" in export.text
    records = records_of(declared(windows=windows))
    assert not any(name.startswith("slo:period") for name, _ in records)
    assert len(alerts_of(declared(windows=windows))) == 4


def test_timeslices_and_what_is_made_of_them_are_left_out_with_a_word():
    slices = declared("slices", method=TimeslicesSettings(kind="timeslices"))
    both = declared("both", indicator=CompositeIndicatorSettings(kind="composite", weights={"slices": 1.0, "api": 2.0}))
    export = prometheus_rules([slices, both, service()])
    assert [group["name"] for group in yaml.safe_load(export.text)["groups"]] == ["slo-api"]
    assert len(export.warnings) == 2
    assert all(f"# {warning}\n" in export.text for warning in export.warnings)


def test_two_objectives_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="two objectives are named 'api'"):
        prometheus_rules([service(), declared("api")])


def test_the_file_does_not_depend_on_the_order_of_objectives():
    one, two = service("a"), service("b")
    assert prometheus_rules([one, two]).text == prometheus_rules([two, one]).text


def test_no_objectives_make_a_file_without_groups():
    assert yaml.safe_load(prometheus_rules([]).text) == {"groups": []}


@pytest.mark.parametrize(
    "text",
    ["{{ $value }}", 'say "no": #1', "two\nlines\n# three", "- yes", "null", "5", "é \u2028 \x07", "{{", "*a &b"],
)
def test_whatever_a_description_holds_stays_text(text):
    (rule, *_) = alerts_of(declared(description=text))
    assert rule["annotations"]["description"].endswith(" " + text.replace("{{", '{{ "{{" }}'))


@given(st.text(max_size=30))
def test_a_label_value_cannot_leave_its_quotes(value):
    text = selector("m", {"name": value})
    assert re.fullmatch(r'm\{name="(?:[^"\\\n]|\\.)*"\}', text)


@given(st.integers(min_value=1, max_value=366 * 86_400_000))
def test_a_duration_says_every_millisecond(milliseconds):
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    parts = re.findall(r"(\d+)(ms|s|m|h|d)", duration(milliseconds / 1000))
    assert sum(int(count) * units[unit] for count, unit in parts) == milliseconds


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_a_number_keeps_all_its_digits(value):
    assert float(number(value)) == value


# --- what promtool says -----------------------------------------------------------------------------


@pytest.fixture
def promtool(tmp_path):
    """``promtool(rules, tests)`` runs promtool's own unit tests and returns what it says, empty when they hold."""
    if shutil.which("promtool") is None:
        reason = "promtool is not on PATH: apt-get install prometheus"
        if os.environ.get("SELFRIGHT_PROMETHEUS_TESTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(rules, tests=None):
        (tmp_path / "rules.yml").write_text(rules, "utf-8")
        command = ["promtool", "check", "rules", "rules.yml"]
        if tests is not None:
            document = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
            (tmp_path / "tests.yml").write_text(yaml.safe_dump(document), "utf-8")
            command = ["promtool", "test", "rules", "tests.yml"]
        answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        return "" if answer.returncode == 0 else answer.stdout + answer.stderr

    return run


def test_promtool_takes_every_kind_of_objective(promtool):
    windows = (CalendarWindowSettings(kind="calendar", unit="week"), RollingWindowSettings(kind="rolling", days=0.7001))
    both = declared("both", indicator=CompositeIndicatorSettings(kind="composite", weights={"p99": 1.0, "inner": 2.5}))
    inner = declared("inner", indicator=CompositeIndicatorSettings(kind="composite", weights={"api": 1e-9}))
    text = 'a "quoted" {{ template }} \\ {{'
    assert promtool(prometheus_rules([service(), declared(windows=windows, description=text), both, inner]).text) == ""


def simulated(total, good, *, fires, at, **alerting):
    """Return rules with one alert, over 1 h and 5 m, and a test that says whether it fires at ``at``."""
    table = (BurnAlertSettings(severity="page", budget_share=0.02, long_s=3600),)
    series = [
        {"series": f'my_slo_{name}_total{{service="api"}}', "values": values}
        for name, values in (("events", total), ("good_events", good))
    ]
    fired = 'count(ALERTS{alertname="SLOErrorBudgetBurn",alertstate="firing"}) or vector(0)'
    case = {"expr": fired, "eval_time": at, "exp_samples": [{"labels": "{}", "value": int(fires)}]}
    rules = prometheus_rules([service(alerting=AlertingSettings(burn_alerts=table, resolve_s=0, **alerting))])
    return rules.text, [{"interval": "15s", "input_series": series, "promql_expr_test": [case]}]


# Two hours at four events a minute, then an outage.
STEADY, OUTAGE_TOTAL, OUTAGE_GOOD = "0+1x480", "481+1x40", "480+0x40"


@pytest.mark.parametrize(("at", "fires"), [("2h30s", False), ("2h2m", True)])
def test_a_full_outage_fires_once_it_has_spent_its_share(promtool, at, fires):
    """At 99.9 % and 14.4 the workbook's detection time is 52 s."""
    rules, tests = simulated(f"{STEADY} {OUTAGE_TOTAL}", f"{STEADY} {OUTAGE_GOOD}", at=at, fires=fires)
    assert promtool(rules, tests) == ""


def test_it_ceases_once_the_short_window_is_good_again(promtool):
    total, good = f"{STEADY} {OUTAGE_TOTAL} 522+1x60", f"{STEADY} {OUTAGE_GOOD} 481+1x60"
    for at, fires in (("2h14m", True), ("2h16m", False)):
        rules, tests = simulated(total, good, at=at, fires=fires)
        assert promtool(rules, tests) == ""


def test_silence_after_an_outage_is_no_recovery(promtool):
    rules, tests = simulated(
        f"{STEADY} {OUTAGE_TOTAL} 521+0x60", f"{STEADY} {OUTAGE_GOOD} 480+0x60", at="2h20m", fires=True
    )
    assert promtool(rules, tests) == ""


@pytest.mark.parametrize(("bad", "fires"), [(2, False), (3, True)])
def test_few_bad_events_page_nobody(promtool, bad, fires):
    """An event every two minutes; the last ``bad`` ones fail."""
    total = " ".join(f"{number}+0x7" for number in range(60))
    good = " ".join(f"{min(number, 59 - bad)}+0x7" for number in range(60))
    rules, tests = simulated(total, good, at="119m", fires=fires)
    assert promtool(rules, tests) == ""


def test_the_guard_for_little_traffic_is_the_one_that_is_set(promtool):
    total = " ".join(f"{number}+0x7" for number in range(60))
    good = " ".join(f"{min(number, 58)}+0x7" for number in range(60))
    rules, tests = simulated(total, good, at="119m", fires=True, low_traffic=LowTrafficSettings(min_bad_events=1))
    assert promtool(rules, tests) == ""
