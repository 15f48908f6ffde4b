"""slo.objectives, slo.import, slo.alerting and slo.policy: what a user writes is taken, or told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules import bridge
from runtime.compose import compose

SERVICES = "services: {api: {probe: {kind: tcp, port: 9}}, web: {probe: {kind: tcp, port: 9}}}\n"
RATIO = "{kind: ratio, total: requests, good: ok}"
OPENSLO = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout
spec:
  service: web
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: prometheus, spec: {query: shop_ok_total}}}
        total: {metricSource: {type: selfright, spec: {metric: requests}}}
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"""


@pytest.fixture
def deployed(shop):
    """``deployed(slo)`` returns the arguments that check a deployment of two services with this ``slo`` group."""
    return lambda slo: shop(f"{SERVICES}monitoring: {{prefix: shop}}\nslo:\n  {slo}\n")


@pytest.fixture
def slo_of(deployed):
    """``slo_of(slo)`` composes it and returns the settings."""
    return lambda slo: compose(deployed(slo)).settings.slo


# --- what is taken ------------------------------------------------------------------------------------------


def test_an_objective_needs_no_more_than_an_indicator_and_a_target(slo_of):
    objective = slo_of(f"objectives: {{orders: {{indicator: {RATIO}, objective: 99}}}}").objectives["orders"]
    assert objective.objective == 99
    assert objective.indicator.kind == "ratio"
    assert [(window.kind, window.length_s) for window in objective.windows] == [("rolling", 30 * 86_400)]
    assert objective.method.kind == "occurrences"
    assert objective.alerting is None


def test_a_key_of_an_objective_can_be_set_on_the_command_line(deployed):
    arguments = deployed(f"objectives: {{orders: {{indicator: {RATIO}, objective: 99}}}}")
    settings = compose([*arguments, "slo.objectives.orders.objective=98"]).settings
    assert settings.slo.objectives["orders"].objective == 98


def test_composites_are_made_of_objectives_and_services(slo_of):
    slo = slo_of(
        f"objectives: {{orders: {{indicator: {RATIO}, objective: 99}},"
        " journey: {indicator: {kind: composite, weights: {orders: 2, api: 1}}, objective: 99}}"
    )
    assert slo.objectives["journey"].indicator.weights == {"orders": 2, "api": 1}


def test_imported_objectives_join_the_others(deployed, write):
    write("slo/checkout.yaml", OPENSLO)
    arguments = deployed(
        f"import: [slo/checkout.yaml]\n  objectives: {{orders: {{indicator: {RATIO}, objective: 98}}}}"
    )
    composed = compose(arguments)
    slo = composed.settings.slo
    assert slo.import_ == ("slo/checkout.yaml",)
    assert {name: objective.objective for name, objective in slo.objectives.items()} == {"orders": 98, "checkout": 99}
    assert slo.objectives["checkout"].indicator.good == "ok"
    assert composed.sources.of(("slo", "objectives", "checkout", "objective")) == "slo/checkout.yaml:4"


def test_files_can_be_named_on_the_command_line(deployed, write):
    write("a.yaml", OPENSLO)
    write("b.yaml", OPENSLO.replace("checkout", "basket"))
    settings = compose([*deployed("{}"), "slo.import=[a.yaml,b.yaml]"]).settings
    assert sorted(settings.slo.objectives) == ["basket", "checkout"]


def test_the_digest_follows_what_the_files_say(deployed, write):
    write("a.yaml", OPENSLO)
    arguments = deployed("import: [a.yaml]")
    before = compose(arguments).digest
    write("a.yaml", OPENSLO.replace("0.99", "0.999"))
    assert compose(arguments).digest != before


def test_an_imported_objective_may_be_part_of_a_composite(slo_of, write):
    write("a.yaml", OPENSLO)
    slo = slo_of(
        "import: [a.yaml]\n  objectives: {all: {indicator: {kind: composite, weights: {checkout: 1}}, objective: 9}}"
    )
    assert sorted(slo.objectives) == ["all", "checkout"]


def test_steps_of_the_policy_stand_in_the_order_in_which_they_come_into_force(slo_of):
    policy = slo_of("policy: [{below: 50, step: tighten}, {below: 10, step: shed}, {below: 0, step: freeze}]").policy
    assert [(step.below, step.step) for step in policy] == [(50, "tighten"), (10, "shed"), (0, "freeze")]


def test_of_the_default_table_a_row_that_can_never_fire_is_no_problem(slo_of):
    slo = slo_of(f"alerting: {{pending_s: 60}}\n  objectives: {{orders: {{indicator: {RATIO}, objective: 80}}}}")
    assert "burn_alerts" not in slo.alerting.model_fields_set
    assert len(slo.alerting.burn_alerts) == 4


def test_rows_of_ones_own_are_taken_where_they_can_fire(slo_of):
    slo = slo_of(
        "alerting: {burn_alerts: [{severity: page, budget_share: 0.02, long_s: 3600}]}\n"
        f"  objectives: {{orders: {{indicator: {RATIO}, objective: 99}}}}"
    )
    assert [row.long_s for row in slo.alerting.burn_alerts] == [3600]


# --- what is refused ----------------------------------------------------------------------------------------


def objectives(text: str) -> str:
    return f"objectives: {{{text}}}"


def orders(more: str) -> str:
    return objectives(f"orders: {{indicator: {RATIO}, objective: 99, {more}}}")


ROW = "burn_alerts: [{severity: page, budget_share: 0.02, long_s: 3600}]"
NEVER = (
    "it can never fire at an objective of 90 %: its factor is 0.02 x 2.592e+06 s / 3600 s = 14.4,"
    " but a full outage burns at 1 / (1 - 0.9) = 10"
)
UNFIT = {
    "a name that cannot be used": (
        objectives(f"'not good!': {{indicator: {RATIO}, objective: 99}}"),
        "slo.objectives.not good!: this name cannot be used",
    ),
    "the name of a service": (
        objectives(f"api: {{indicator: {RATIO}, objective: 99}}"),
        "slo.objectives.api: a service has this name",
    ),
    "an unknown service": (orders("service: wep"), "slo.objectives.orders.service: 'wep' is no service (did you mean"),
    "checks of an unknown service": (
        objectives("orders: {indicator: {kind: health, service: wep}, objective: 99}"),
        "slo.objectives.orders.indicator.service: 'wep' is no service (did you mean 'web'?)",
    ),
    "an unknown member": (
        objectives("all: {indicator: {kind: composite, weights: {wep: 1}}, objective: 99}"),
        "slo.objectives.all.indicator.weights.wep: 'wep' is neither objective nor service (did you mean 'web'?)",
    ),
    "a composite of itself": (
        objectives("all: {indicator: {kind: composite, weights: {all: 1}}, objective: 99}"),
        "slo.objectives: composites are made of each other in a circle: all -> all",
    ),
    "a circle of composites": (
        objectives(
            "a: {indicator: {kind: composite, weights: {b: 1}}, objective: 99},"
            " b: {indicator: {kind: composite, weights: {a: 1}}, objective: 99}"
        ),
        "in a circle: ",
    ),
    "no indicator": (objectives("orders: {objective: 99}"), "slo.objectives.orders.indicator: is missing"),
    "an indicator of no kind": (
        objectives("orders: {indicator: {metric: x}, objective: 99}"),
        "slo.objectives.orders.indicator.kind: is missing",
    ),
    "good and bad": (
        objectives("orders: {indicator: {kind: ratio, total: a, good: b, bad: c}, objective: 99}"),
        "slo.objectives.orders.indicator: needs exactly one of good and bad",
    ),
    "an objective of nothing": (objectives(f"orders: {{indicator: {RATIO}, objective: 0}}"), "objective: found 0 "),
    "an objective of all": (objectives(f"orders: {{indicator: {RATIO}, objective: 100}}"), "objective: found 100 "),
    "an objective beyond all": (objectives(f"orders: {{indicator: {RATIO}, objective: 101}}"), "objective: found 101"),
    "a window that is too long": (
        orders("windows: [{kind: rolling, days: 367}]"),
        "slo.objectives.orders.windows.0.days: found 367",
    ),
    "a zone that is none": (
        orders("windows: [{kind: calendar, unit: month, time_zone: Mars/Olympus}]"),
        "slo.objectives.orders.windows.0.time_zone: is no time zone",
    ),
    "a slice longer than the window": (
        orders("windows: [{kind: rolling, days: 0.5}], method: {kind: ratio_timeslices, slice_s: 86400}"),
        "slo.objectives.orders.method.slice_s: a slice of 86400 s is longer than the window of 43200 s",
    ),
    "a row of its own that can never fire": (
        objectives(f"orders: {{indicator: {RATIO}, objective: 90, alerting: {{{ROW}}}}}"),
        f"slo.objectives.orders.alerting.burn_alerts: burn alert of orders (page over 1h): {NEVER}",
    ),
    "a row for all that can never fire for one": (
        f"alerting: {{{ROW}}}\n  {objectives(f'orders: {{indicator: {RATIO}, objective: 90}}')}",
        f"slo.alerting.burn_alerts: burn alert of orders (page over 1h): {NEVER}",
    ),
    "a row for all that can never fire for services": (
        f"alerting: {{{ROW}}}\n  availability: 90",
        f"slo.alerting.burn_alerts: burn alert of api (page over 1h): {NEVER}",
    ),
    "steps in the wrong order": (
        "policy: [{below: 0, step: freeze}, {below: 50, step: tighten}]",
        "slo.policy: tighten below 50 stands after freeze below 0",
    ),
    "steps at the same threshold": (
        "policy: [{below: 10, step: shed}, {below: 10, step: freeze}]",
        "slo.policy: freeze below 10 stands after shed below 10",
    ),
    "a step twice": (
        "policy: [{below: 10, step: shed}, {below: 0, step: shed}]",
        "slo.policy: the step shed stands here twice",
    ),
    "one file that is no list": ("import: slo.yaml", "slo.import: found 'slo.yaml' (a string)"),
    "a file without name": ("import: ['']", "slo.import.0: found '' (a string)"),
    "a file that is not there": ("import: [slo/gone.yaml]", "slo/gone.yaml: cannot be read: No such file"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_with_its_key(run, deployed, case):
    slo, told = UNFIT[case]
    outcome = run(*deployed(slo))
    assert outcome.code == 2
    assert told in outcome.err


def test_alike_objectives_are_told_once_of_a_row_that_serves_none_of_them(run, deployed):
    outcome = run(*deployed(f"alerting: {{{ROW}}}\n  availability: 90"))
    assert outcome.err.count("can never fire") == 1


def test_problems_of_imported_files_are_told_with_the_others(run, deployed, write):
    write("slo.yaml", OPENSLO.replace("target: 0.99", "target: 2").replace("Occurrences", "Often"))
    outcome = run(*deployed(f"import: [slo.yaml]\n  {orders('service: wep')}"))
    assert "slo.yaml:13: spec.objectives[0].target: found 2" in outcome.err
    assert "slo.yaml:12: spec.budgetingMethod: found 'Often'" in outcome.err
    assert "slo.objectives.orders.service: 'wep' is no service" in outcome.err


def test_a_member_that_a_broken_file_may_hold_is_not_called_unknown(run, deployed, write):
    write("slo.yaml", OPENSLO.replace("target: 0.99", "target: 2"))
    composite = "all: {indicator: {kind: composite, weights: {checkout: 1}}, objective: 99}"
    outcome = run(*deployed(f"import: [slo.yaml]\n  {objectives(composite)}"))
    assert "slo.yaml:13" in outcome.err
    assert "neither objective nor service" not in outcome.err


def test_a_member_whose_own_settings_are_wrong_is_not_called_unknown(run, deployed):
    composite = "all: {indicator: {kind: composite, weights: {orders: 1}}, objective: 99}"
    wrong = f"orders: {{indicator: {RATIO}, objective: 101}}, other: {{indicator: {RATIO}, objective: 9, service: wep}}"
    outcome = run(*deployed(objectives(f"{wrong}, {composite}")))
    assert "slo.objectives.orders.objective: found 101" in outcome.err
    assert "slo.objectives.other.service: 'wep' is no service" in outcome.err
    assert "neither objective nor service" not in outcome.err


def test_an_objective_that_is_written_and_imported_is_told_with_both_places(run, deployed, write):
    write("slo.yaml", OPENSLO)
    outcome = run(*deployed(f"import: [slo.yaml]\n  objectives: {{checkout: {{indicator: {RATIO}, objective: 98}}}}"))
    assert "slo.objectives.checkout: is written here, and imported from slo.yaml:4 as well" in outcome.err
    assert str(Path("d") / "deployment" / "shop.yaml") + ":6" in outcome.err


def test_what_does_not_fit_in_an_imported_objective_is_told_with_the_line_of_the_file(run, deployed, write):
    write("slo.yaml", OPENSLO.replace("service: web", "service: wep"))
    outcome = run(*deployed("import: [slo.yaml]"))
    assert "slo.objectives.checkout.service: 'wep' is no service (did you mean 'web'?)" in outcome.err
    assert "slo.yaml:4" in outcome.err


def test_a_name_of_openslo_that_is_none_here_is_told_with_the_line_of_the_file(run, deployed, write):
    write("slo.yaml", OPENSLO.replace("name: checkout", "name: shop/checkout"))
    outcome = run(*deployed("import: [slo.yaml]"))
    assert "slo.objectives.shop/checkout: this name cannot be used" in outcome.err
    assert "slo.yaml:4" in outcome.err


# --- which module keeps them ----------------------------------------------------------------------------------

WANTED = {
    "slo.objectives": f"objectives: {{orders: {{indicator: {RATIO}, objective: 99}}}}",
    "slo.policy": "policy: [{below: 0, step: freeze}]",
}


@pytest.mark.parametrize("version", ["none", "v1", "v3"])
@pytest.mark.parametrize("key", WANTED)
def test_objectives_and_policy_need_monitoring_v2(run, shop, key, version):
    arguments = shop(f"{SERVICES}slo:\n  {WANTED[key]}\n")
    outcome = run(*arguments, f"monitoring={version}")
    assert f"{key}: needs monitoring=v2, and it is {version}" in outcome.err
    assert run(*arguments, "monitoring=v2").code == 0


@pytest.mark.parametrize("key", WANTED)
def test_objectives_and_policy_need_the_backend(run, deployed, key, monkeypatch):
    arguments = deployed(WANTED[key])
    assert f"{key}: needs the backend, and backend is off" in run(*arguments, "backend=off").err
    monkeypatch.setattr(bridge, "detect_monitoring", lambda: bridge.Backend(False, "no module named 'x'"))
    assert f"{key}: needs the backend, which cannot be used: no module named 'x'" in run(*arguments).err
