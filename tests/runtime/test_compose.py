"""From argv to settings: what wins over what, where a value came from, and what is never shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.compose import compose
from runtime.loader import Loader
from runtime.problems import CompositionError, describe, is_secret, shown_override
from runtime.settings import RootSettings, SLOSettings

pytestmark = pytest.mark.usefixtures("here")


def problems(*arguments):
    with pytest.raises(CompositionError) as caught:
        compose(arguments)
    return {problem.key: problem for problem in caught.value.problems}


def test_nothing_said_is_the_demo_deployment_watched_but_not_repaired():
    composed = compose([])
    assert composed.deployment == "demo"
    assert composed.settings.selfhealing.version == "none"
    assert composed.settings.monitoring.version == "v2"
    assert set(composed.settings.services) == {"store", "api", "worker"}


def test_a_port_of_the_demo_is_said_once():
    composed = compose(["vars.store_port=9000"])
    assert "--port=9000" in composed.settings.services["store"].process.command
    assert composed.settings.services["store"].probe.url == "http://127.0.0.1:9000/healthz"


def test_the_slo_files_and_the_models_defaults_agree():
    assert compose(["slo=default"]).settings.slo == SLOSettings()
    strict = compose(["slo=strict"]).settings.slo
    assert strict.latency_ms < SLOSettings().latency_ms
    assert strict.availability > SLOSettings().availability


def test_prod_writes_json_and_drains_longer():
    dev, prod = compose(["env=dev"]).settings, compose(["env=prod"]).settings
    assert (dev.log.format, prod.log.format) == ("text", "json")
    assert prod.drain_s > dev.drain_s


@pytest.mark.parametrize("text", ["slo.latency_ms=7", "+slo.latency_ms=7", "++slo.latency_ms=7"])
def test_one_plus_two_or_none_before_a_key_mean_the_same(text):
    assert compose([text]).settings.slo.latency_ms == 7


@pytest.mark.parametrize("group", ["selfhealing=v2", "slo=strict", "env=prod", "deployment=none", "monitoring=v1"])
def test_a_plus_before_a_group_changes_nothing(group):
    assert compose([group]).digest == compose([f"+{group}"]).digest


@pytest.mark.parametrize(("said", "means"), [("on", "on"), ("off", "off"), ("true", "on"), ("False", "off")])
def test_the_backend_key_takes_words_and_yaml_booleans(monkeypatch, said, means):
    monkeypatch.setattr("runtime.consistency._backend", lambda settings: iter(()))
    assert compose([f"backend={said}"]).settings.backend == means


def test_command_line_beats_env_beats_deployment_beats_group(shop, write):
    write("d/env/late.yaml", "# @package _global_\nslo: {availability: 97}\nlog: {level: error}\n")
    arguments = shop("slo: {latency_ms: 50, availability: 98, window_days: 7}\nservices: {}\n")
    composed = compose([*arguments, "env=late", "log.level=debug"])
    slo = composed.settings.slo
    assert (slo.latency_ms, slo.availability, composed.settings.log.level) == (50, 97, "debug")


def test_a_deployment_may_choose_options_and_keys_of_other_groups(shop):
    arguments = shop(
        "defaults: [{override /selfhealing: v2}, {override /slo: strict}]\n"
        "selfhealing: {caps: {max_concurrent: 9}}\nservices: {}\n"
    )
    settings = compose(arguments).settings
    assert (settings.selfhealing.version, settings.selfhealing.caps.max_concurrent) == ("v2", 9)
    assert settings.slo.availability == compose(["slo=strict"]).settings.slo.availability


def test_an_option_of_ones_own_folder_hides_the_built_in_one_of_that_name(write):
    write("d/slo/strict.yaml", "latency_ms: 1\n")
    assert compose(["slo=strict", "--config-dir=d"]).settings.slo.latency_ms == 1


def test_defaults_that_no_file_writes_can_be_referred_to(shop):
    arguments = shop('services: {a: {probe: {kind: tcp, port: "${server.port}"}}}\n')
    assert compose(arguments).settings.services["a"].probe.port == RootSettings().server.port


def test_equal_configurations_have_equal_digests_and_others_do_not():
    assert compose(["slo.latency_ms=500"]).digest == compose([]).digest
    assert compose(["slo.latency_ms=501"]).digest != compose([]).digest


def test_composing_touches_neither_logging_nor_the_folder(here: Path):
    before = list(logging.getLogger().handlers)
    compose(["env=prod"])
    assert logging.getLogger().handlers == before
    assert list(here.iterdir()) == []
    assert Path.cwd() == here


# --- where a value came from --------------------------------------------------------------------------


def test_origins_name_file_and_line_or_the_argument(shop):
    arguments = shop("services:\n  a:\n    probe: {kind: tcp, port: 9}\n    interval_s: 3\n")
    sources = compose([*arguments, "+slo.latency_ms=7"]).sources
    assert sources.of(("services", "a", "interval_s")) == "d/deployment/shop.yaml:5"
    assert sources.of(("services", "a", "fall")) == "d/deployment/shop.yaml:3"
    assert sources.of(("slo", "latency_ms")) == "command line: +slo.latency_ms=7"
    assert sources.of(("slo", "availability")) == "conf/slo/default.yaml:3"
    assert sources.of(("server", "port")) == ""


def test_a_list_set_anew_leaves_no_origin_of_the_old_one(shop):
    arguments = shop(
        "services: {a: {probe: {kind: tcp, port: 9}, depends_on: [b]}, b: {probe: {kind: tcp, port: 9}}}\n"
    )
    sources = compose([*arguments, "services.a.depends_on=[]"]).sources
    assert sources.of(("services", "a", "depends_on", "0")) == "command line: services.a.depends_on=[]"


def test_the_loader_names_every_file_in_merge_order():
    """Holds the one private call into Hydra: a new version that changes it fails here."""
    layers = Loader().layers(["env=prod", "selfhealing=v2"])
    files = ["/".join(layer.file.parts[-2:]) for layer in layers]
    assert files == [
        "conf/config.yaml",
        "slo/default.yaml",
        "selfhealing/v2.yaml",
        "monitoring/v2.yaml",
        "deployment/demo.yaml",
        "env/prod.yaml",
    ]
    assert all(layer.file.is_file() for layer in layers)
    assert [layer.package for layer in layers] == [(), ("slo",), ("selfhealing",), ("monitoring",), (), ()]
    assert layers[1].content.slo.latency_ms == 500


# --- files that cannot be used ------------------------------------------------------------------------


def test_two_services_of_one_name_are_refused_with_file_and_line(shop):
    arguments = shop("services:\n  a: {probe: {kind: tcp, port: 1}}\n  a: {probe: {kind: tcp, port: 2}}\n")
    found = problems(*arguments)
    assert "'a' stands here for the second time" in found["d/deployment/shop.yaml:4"].found


@pytest.mark.parametrize(("written", "key"), [("1", "1"), ("on", "true"), ("no", "false"), ("1.5", "1.5")])
def test_a_name_that_yaml_does_not_read_as_text_is_refused(shop, written, key):
    problem = problems(*shop(f"services:\n  {written}: {{probe: {{kind: tcp, port: 1}}}}\n"))[f"services.{key}"]
    assert "no text" in problem.found
    assert problem.hint == "put it in quotes"


def test_a_quoted_name_may_look_like_anything(shop):
    assert list(compose(shop('services:\n  "1": {probe: {kind: tcp, port: 1}}\n')).settings.services) == ["1"]


def test_a_service_that_nobody_knows_is_told_with_where_it_was_set_and_the_nearest(here):
    problem = problems("services.apii.interval_s=3")["services.apii"]
    assert "did you mean 'api'?" in problem.found
    assert problem.source == "command line: services.apii.interval_s=3"


def test_a_circle_is_told_at_one_of_its_services(here):
    problem = problems("services.store.depends_on=[worker]")["services.store.depends_on"]
    assert "store -> worker -> store" in problem.found
    assert problem.source == "command line: services.store.depends_on=[worker]"


def test_capital_letters_do_not_hide_the_nearest_name(here):
    assert "'info'" in problems("log.level=INFO")["log.level"].found


def test_a_maintenance_time_without_an_offset_is_told_what_is_missing(here):
    problem = problems("selfhealing.maintenance=[{start: '2026-01-01T00:00:00', end: '2026-01-02T00:00:00Z'}]")
    assert "with an offset" in problem["selfhealing.maintenance.0.start"].found


def test_a_file_larger_than_any_configuration_is_refused_unread(shop, here):
    arguments = shop("")
    (here / "d/deployment/shop.yaml").write_text("x: " + "y" * (1 << 20))
    assert "more than a configuration" in problems(*arguments)["d/deployment/shop.yaml"].found


def test_a_package_of_the_user_called_conf_is_not_taken_for_the_own_one(here, monkeypatch, write):
    write("conf/__init__.py", "")
    monkeypatch.syspath_prepend(str(here))
    assert compose(["mode=check"]).deployment == "demo"


def test_broken_yaml_is_told_with_file_line_and_column(shop):
    found = problems(*shop("services:\n  a: {probe: [\n  b: }\n"))
    (problem,) = found.values()
    assert problem.key == "d/deployment/shop.yaml:4"
    assert "column 6" in problem.found


def test_a_file_that_is_not_utf8_is_told_as_such(here, shop):
    arguments = shop("")
    (here / "d/deployment/shop.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in problems(*arguments)["d/deployment/shop.yaml"].found


def test_a_deployment_file_without_package_line_is_told_which_line_to_add(write):
    write("d/deployment/shop.yaml", "services: {}\n")
    problem = problems("deployment=shop", "--config-dir=d")["deployment"]
    assert "# @package _global_" in problem.hint
    assert problem.source == "d/deployment/shop.yaml"


@pytest.mark.parametrize(
    ("override", "key", "part"),
    [("override /selfheeling: v2", "selfheeling", "'selfhealing'"), ("override /slo: strickt", "slo", "'strict'")],
)
def test_a_wrong_name_in_a_defaults_list_is_told_with_the_nearest_right_one(shop, override, key, part):
    assert part in problems(*shop(f"defaults: [{{{override}}}]\nservices: {{}}\n"))[key].found


def test_a_value_that_cannot_be_resolved_is_one_problem_and_not_a_wrong_type_too():
    with pytest.raises(CompositionError) as caught:
        compose(["slo.latency_ms=${oc.env:NO_SUCH_VAR}"])
    (problem,) = caught.value.problems
    assert problem.hint.startswith("set the variable")


def test_values_that_refer_to_each_other_in_a_circle_are_refused(shop):
    found = problems(*shop('vars: {a: "${vars.b}", b: "${vars.a}", c: {x: "${vars.d}"}, d: {y: "${vars.c}"}}\n'))
    assert set(found) == {"vars.a", "vars.b", "vars.c.x.y", "vars.d.y.x"}


def test_an_empty_section_is_told_as_null(shop):
    assert problems(*shop("services:\n"))["services"].found == "found null"


# --- unions -------------------------------------------------------------------------------------------


def test_problems_inside_a_probe_name_the_key_and_not_the_unions_member(shop):
    found = problems(
        *shop(
            "services:\n  a:\n    probes:\n"
            '      liveness: {kind: http, url: "http://x", expect_status: [99], timout_ms: 3}\n'
            "      readiness: {kind: callable, target: a.b, arguments: {x: [1]}}\n"
            "    repair: [{kind: restart, scope: al}, {}, {kind: restrt}]\n"
        )
    )
    base = "services.a.probes.liveness"
    assert found[f"{base}.expect_status.0"].allowed.startswith("a whole number at least 100 and at most 599")
    assert "'timeout_ms'" in found[f"{base}.timout_ms"].found
    assert f"{base}.expect_status" not in found
    assert "a string or a whole number" in found["services.a.probes.readiness.arguments.x"].allowed
    assert "'all'" in found["services.a.repair.0.scope"].found
    assert found["services.a.repair.1.kind"].found == "is missing"
    assert "'restart'" in found["services.a.repair.2.kind"].found


def test_a_rule_between_two_fields_is_told_at_their_section(shop):
    found = problems(*shop("services: {a: {probe: {kind: tcp, port: 1}, flap: {low: 0.9}}, b: {}}\n"))
    assert "must be below high" in found["services.a.flap"].found
    assert "nothing to watch" in found["services.b"].found


# --- secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument",
    [
        "alerts.targets=[{kind: apprise, url: hunter2, nam: x}]",
        "services.api.api_key=hunter2",
        "services.api.process.env.DB_PASSWORD=[hunter2]",
        "services.api.process.env={DB_PASSWORD: [hunter2]}",
        "services.api.probe.headers={Authorization: [hunter2]}",
        "services.api.probe.headers.X=[hunter2]",
        "services.api.probe.url='ftp://user:hunter2@x/'",
        "services.api.probe.url='ftp://x/?access_token=hunter2'",
        "vars.token={hunter2",
        "vars.token=hunter2,hunter2",
        "hydra.secret=hunter2",
    ],
)
def test_a_secret_is_in_no_message(argument):
    with pytest.raises(CompositionError) as caught:
        compose([argument])
    assert "hunter2" not in str(caught.value)


def test_a_secret_of_the_wrong_type_is_in_no_message(shop):
    arguments = shop("alerts: {targets: [{kind: apprise, url: 4711}]}\nservices: {}\n")
    (problem,) = problems(*arguments).values()
    assert problem.key == "alerts.targets.0.url"
    assert "4711" not in str(problem)


def test_a_secret_from_the_environment_is_in_no_message(shop, monkeypatch):
    monkeypatch.setenv("WEBHOOK", "hunter2")
    arguments = shop('alerts: {targets: [{kind: webhook, url: "${oc.env:WEBHOOK}"}]}\nservices: {}\n')
    with pytest.raises(CompositionError) as caught:
        compose(arguments)
    assert "alerts.targets.0.url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.text(), st.sampled_from(["api_key", "vars.token", "a.b.PASSWORD", "+x.client_secret"]))
def test_what_follows_a_secret_key_is_never_shown(value, key):
    assert shown_override(f"{key}={value}") == f"{key}=***"


def test_plain_values_are_shown():
    assert shown_override("slo.latency_ms=3") == "slo.latency_ms=3"
    assert not is_secret(("slo", "latency_ms"))
    assert [describe(value) for value in (None, True, 3, "x", [], {"a": 1})] == [
        "null",
        "true (a boolean)",
        "3 (a number)",
        "'x' (a string)",
        "an empty list",
        "a mapping",
    ]
