"""mode=export: what goes to standard output or a file, and the counters that exported rules are made of."""

from __future__ import annotations

import json
import stat

import pytest
import yaml

from modules.contracts.clock import LoopClock
from modules.contracts.events import EventBus
from modules.contracts.health import HealthCheckResult, HealthStatus, ProbeOutcome
from modules.local.metrics import LocalCollector
from runtime.simulation.loop import virtual_time
from runtime.telemetry import Telemetry, objective_counters

API = "services: {api: {probe: {kind: tcp, port: 9}, slo: {availability: 99}}}\n"
RULES = ("mode=export", "export.what=prometheus-rules")


@pytest.fixture
def deployed(shop):
    """The arguments that choose a deployment of one service, without a mode."""
    return [argument for argument in shop(API) if argument != "mode=check"]


def test_rules_go_to_standard_output_and_nothing_else_does(run, deployed):
    outcome = run(*deployed, *RULES)
    assert (outcome.code, outcome.err) == (0, "")
    (group,) = yaml.safe_load(outcome.out)["groups"]
    assert group["name"] == "slo-api"
    assert group["rules"][0] == {
        "record": "slo:objective:ratio", "expr": "vector(0.99)", "labels": {"objective": "api", "service": "api"},
    }  # fmt: skip


def test_rules_name_the_counters_with_the_prefix_that_is_configured(run, deployed):
    outcome = run(*deployed, *RULES, "monitoring.prefix=shop")
    assert 'shop_slo_good_events_total{service="api"}' in outcome.out
    assert "selfright_" not in outcome.out


def test_each_format_is_written_in_its_own_language(run, deployed):
    assert json.loads(run(*deployed, "mode=export", "export.what=grafana").out)["panels"]
    kinds = [each["kind"] for each in yaml.safe_load_all(run(*deployed, "mode=export", "export.what=openslo").out)]
    assert kinds[:2] == ["Service", "SLO"]


def test_what_a_format_cannot_say_is_told_on_standard_error(run, deployed):
    outcome = run(*deployed, "mode=export", "export.what=openslo")
    assert outcome.err.startswith("run: alerts are written with their long windows alone")
    assert outcome.code == 0


def test_the_schema_describes_a_configuration_to_an_editor(run):
    schema = json.loads(run("mode=export", "export.what=schema").out)
    assert schema["properties"]["slo"]["$ref"] == "#/$defs/SLOSettings"
    assert schema["$defs"]["SLOSettings"]["properties"]["availability"]["description"].startswith("Percent")
    assert schema["$schema"].startswith("https://json-schema.org/")


DECLARED = """
slo:
  alerting: {resolve_s: 600}
  objectives:
    fast: {service: api, objective: 95, indicator: {kind: threshold, metric: request_duration, threshold: 0.3}}
    loss: {objective: 90, indicator: {kind: ratio, total: requests, bad: failures}}
"""


def test_declared_objectives_are_exported_with_the_alerting_of_the_group(run, shop):
    outcome = run(*(argument for argument in shop(API + DECLARED) if argument != "mode=check"), *RULES)
    assert [group["name"] for group in yaml.safe_load(outcome.out)["groups"]] == ["slo-api", "slo-fast", "slo-loss"]
    assert 'selfright_objective_good_events_total{objective="fast"}' in outcome.out
    assert 'sum(rate(selfright_objective_bad_events_total{objective="loss"}[5m]))' in outcome.out
    assert outcome.out.count("keep_firing_for: 10m") == outcome.out.count("alert: SLO")


def test_without_a_word_what_to_export_the_choices_are_named(run):
    outcome = run("mode=export")
    assert (outcome.code, outcome.out) == (2, "")
    assert "export.what: is missing" in outcome.err
    assert "prometheus-rules, grafana, openslo, schema" in outcome.err


@pytest.mark.parametrize("what", ["prometheus-rules", "grafana"])
def test_rules_without_metrics_are_refused(run, deployed, what):
    outcome = run(*deployed, "mode=export", f"export.what={what}", "monitoring=none")
    assert outcome.code == 2
    assert "monitoring=none" in outcome.err


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(run, deployed, here):
    outcome = run(*deployed, *RULES, "export.path=out/rules.yml")
    assert outcome.code == 2
    assert "name a file in a folder that exists" in outcome.err
    (here / "out").mkdir()
    outcome = run(*deployed, *RULES, "export.path=out/rules.yml")
    assert (outcome.code, outcome.out) == (0, "")
    assert [file.name for file in (here / "out").iterdir()] == ["rules.yml"]
    assert (here / "out" / "rules.yml").read_text() == run(*deployed, *RULES).out


def test_a_file_that_is_there_is_replaced_only_by_force(run, deployed, write, here):
    file = write("rules.yml", "mine")
    file.chmod(0o640)
    outcome = run(*deployed, *RULES, "export.path=rules.yml")
    assert outcome.code == 2
    assert "export.force=true" in outcome.err
    assert file.read_text() == "mine"
    assert run(*deployed, *RULES, "export.path=rules.yml", "export.force=true").code == 0
    assert "slo-api" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert not list(here.glob(".*"))


def test_a_link_stays_a_link_and_its_file_is_replaced(run, deployed, write, here):
    file = write("real.yml", "mine")
    (here / "link.yml").symlink_to(file)
    assert run(*deployed, *RULES, "export.path=link.yml", "export.force=true").code == 0
    assert (here / "link.yml").is_symlink()
    assert "slo-api" in file.read_text()


def test_a_folder_in_the_way_is_told(run, deployed, here):
    (here / "rules.yml").mkdir()
    outcome = run(*deployed, *RULES, "export.path=rules.yml", "export.force=true")
    assert outcome.code == 2
    assert "rules.yml cannot be written" in outcome.err


def test_a_deployment_without_services_exports_no_rules(run):
    assert yaml.safe_load(run("deployment=none", *RULES).out) == {"groups": []}


# --- the counters -----------------------------------------------------------------------------------


class Monitor:
    """Hands results to listeners, as a monitor does."""

    def __init__(self):
        self.listeners = []

    def add_listener(self, listener):
        self.listeners.append(listener)

    def report(self, outcome="pass", status="healthy", latency_ms=1.0, service="api"):
        found = ProbeOutcome(outcome)
        result = HealthCheckResult(
            service, found is ProbeOutcome.PASS, found, HealthStatus(status), latency_ms, "", 0.0
        )
        for listener in self.listeners:
            listener(result)


class Counted:
    """A telemetry over a monitor, and what it counted for the service api."""

    def __init__(self):
        clock = LoopClock()
        self.monitor, self.collector = Monitor(), LocalCollector("x", clock=clock)
        self.maintained: set[str] = set()
        Telemetry(
            self.collector, self.monitor, EventBus(clock),
            latency_ms={"api": 100.0}, in_maintenance=self.maintained.__contains__,
        )  # fmt: skip

    @property
    def counts(self):
        value, labels = self.collector.value, {"service": "api"}
        return value("slo_good_events", labels), value("slo_events", labels)


@virtual_time
async def test_both_counters_are_there_before_the_first_check():
    assert Counted().counts == (0, 0)


@virtual_time
async def test_a_check_is_good_when_it_passed_within_the_latency():
    api = Counted()
    api.monitor.report(latency_ms=100.0)
    api.monitor.report(latency_ms=100.1)
    api.monitor.report("fail", "unhealthy")
    assert api.counts == (1, 3)


@virtual_time
async def test_errors_of_the_prober_maintenance_and_other_services_do_not_count():
    api = Counted()
    api.monitor.report("error", "unknown")
    api.monitor.report(service="unknown")
    api.maintained.add("api")
    api.monitor.report("fail", "unhealthy")
    assert api.counts == (0, 0)


@virtual_time
async def test_failures_of_a_start_count_once_the_service_was_up():
    api = Counted()
    api.monitor.report("fail", "starting")
    assert api.counts == (0, 0)
    api.monitor.report()
    api.monitor.report("fail", "starting")
    assert api.counts == (1, 2)


def test_declared_objectives_are_exposed_by_what_their_indicator_counts():
    source = objective_counters("x", lambda: {"p99": (2.25, 4), "loss": (7, 9)}, by_bad=["loss"])
    assert {gauge.name: [(dict(labels), value) for labels, value in gauge.samples] for gauge in source()} == {
        "x_objective_events_total": [({"objective": "p99"}, 4), ({"objective": "loss"}, 9)],
        "x_objective_good_events_total": [({"objective": "p99"}, 2.25)],
        "x_objective_bad_events_total": [({"objective": "loss"}, 2)],
    }


def test_without_declared_objectives_there_are_no_counters_of_them():
    assert list(objective_counters("x", dict)()) == []
