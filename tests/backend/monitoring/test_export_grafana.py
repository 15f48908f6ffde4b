"""The dashboard: sound in its structure, and made of nothing but series that the rules record."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
import yaml

from backend.shared.monitoring.exports.grafana import grafana
from backend.shared.monitoring.exports.objective import Counters, service_objective
from backend.shared.monitoring.exports.prometheus_rules import prometheus_rules
from backend.shared.monitoring.settings import AlertingSettings

OBJECTIVE = service_objective(
    "api",
    latency_ms=300,
    availability=99.9,
    window_days=30,
    alerting=AlertingSettings(),
    counters=Counters("my_slo_events_total", "my_slo_good_events_total", ("service", "api")),
    prefix="my",
)


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(grafana([OBJECTIVE]).text)


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_it_shows_sli_budget_burn_budget_over_time_and_alerts(dashboard):
    assert [(panel["type"], panel["title"]) for panel in dashboard["panels"]] == [
        ("stat", "SLI"),
        ("stat", "Error budget left"),
        ("stat", "Alerts that fire"),
        ("timeseries", "Burn rate by window"),
        ("timeseries", "Error budget left over time"),
        ("state-timeline", "Alerts"),
    ]


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_each_variable_is_declared_and_each_query_asks_the_chosen_source(dashboard):
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)\}?", json.dumps(dashboard["panels"])))
    assert declared == used == {"datasource", "objective"}
    for panel in dashboard["panels"]:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_every_series_that_it_asks_for_is_recorded_by_the_rules(dashboard):
    (group,) = yaml.safe_load(prometheus_rules([OBJECTIVE]).text)["groups"]
    recorded = {rule["record"] for rule in group["rules"] if "record" in rule}
    variable = dashboard["templating"]["list"][1]["query"]["query"]
    asked = {name for text in (*expressions(dashboard), variable) for name in re.findall(r"slo:\w+(?::\w+)?", text)}
    assert asked
    assert asked <= recorded


def test_it_warns_of_what_the_rules_leave_out_as_they_do():
    assert grafana([OBJECTIVE]).warnings == prometheus_rules([OBJECTIVE]).warnings


def test_without_objectives_there_is_still_a_dashboard_to_fill():
    assert len(json.loads(grafana([]).text)["panels"]) == 6
