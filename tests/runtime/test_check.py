"""mode=check: what fits neither itself nor this machine is told, and a sound configuration is summed up."""

from __future__ import annotations

import os

import pytest

from modules import bridge

TCP = "probe: {kind: tcp, port: 9}"

UNFIT = {
    "unknown dependency": (
        f"{{a: {{{TCP}, depends_on: [bb]}}, b: {{{TCP}}}}}",
        "services.a.depends_on: 'bb' is no service",
    ),
    "cycle": (f"{{a: {{{TCP}, depends_on: [b]}}, b: {{{TCP}, depends_on: [a]}}}}", "in a circle: "),
    "itself": (f"{{a: {{{TCP}, depends_on: [a]}}}}", "in a circle: a -> a"),
    "clear_cache": (
        f"{{a: {{{TCP}, repair: [{{kind: clear_cache}}]}}}}",
        "services.a.repair.0: clear_cache needs the caching",
    ),
    "open_breaker": (f"{{a: {{{TCP}, repair: [{{kind: open_breaker}}]}}}}", "open_breaker needs the orchestration"),
    "restart": (f"{{a: {{{TCP}, repair: [{{kind: restart}}]}}}}", "services.a.repair.0: a restart rung, but"),
    "short restart": (
        '{a: {process: {command: ["{python}"]}, repair: [{kind: restart, timeout_s: 5}]}}',
        "services.a.repair.0.timeout_s: restarting a has 5 s, and stopping may take"
        " services.a.process.stop_timeout_s (5)",
    ),
    "short restart of a group": (
        '{a: {process: {command: ["{python}"]}, repair: [{kind: restart, scope: rest}]},'
        ' b: {process: {command: ["{python}"], stop_timeout_s: 25}, depends_on: [a], repair: []}}',
        "services.a.repair.0.timeout_s: restarting a, b has 30 s",
    ),
    "process probe": ("{a: {probe: {kind: process}}}", "services.a.probe: a process probe, but"),
    "process role": ("{a: {probes: {liveness: {kind: process}}}}", "services.a.probes.liveness: a process probe, but"),
    "program": (
        "{a: {process: {command: [no-such-program]}}}",
        "services.a.process.command: program 'no-such-program'",
    ),
    "program by path": ("{a: {process: {command: [./here.sh]}}}", "program './here.sh' was not found"),
    "program of a probe": (
        "{a: {probe: {kind: exec, command: [nix-da]}}}",
        "services.a.probe.command: program 'nix-da'",
    ),
    "program of a rung": (
        f"{{a: {{{TCP}, repair: [{{kind: exec, command: [nix-da]}}]}}}}",
        "services.a.repair.0.command: program 'nix-da'",
    ),
    "folder": ('{a: {process: {command: ["{python}"], cwd: gone}}}', "services.a.process.cwd: 'gone' is not a folder"),
    "extension": ("{a: {probe: {kind: callable, target: os.path.exists}}}", "add 'os' to extensions"),
    "name": (f"{{'not good!': {{{TCP}}}}}", "services.not good!: this name cannot be used"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_with_its_key(run, shop, case):
    services, part = UNFIT[case]
    outcome = run(*shop(f"services: {services}\n"))
    assert outcome.code == 2
    assert part in outcome.err


def test_parts_are_compared_even_where_another_service_is_wrong(run, shop):
    services = f"{{a: {{{TCP}, depends_on: [wrong, gone]}}, wrong: {{interval_s: -1, {TCP}}}}}"
    outcome = run(*shop(f"services: {services}\n"))
    assert "services.wrong.interval_s: found -1" in outcome.err
    assert "services.a.depends_on: 'gone' is no service" in outcome.err
    assert "'wrong' is no service" not in outcome.err


def test_a_restart_rung_and_a_process_probe_go_with_a_process(run, shop):
    service = '{process: {command: ["{python}"]}, probe: {kind: process}, repair: [{kind: restart}]}'
    assert run(*shop(f"services: {{a: {service}}}\n")).code == 0


def test_a_pidfile_makes_up_for_a_process(run, shop):
    assert run(*shop("services: {a: {probe: {kind: process, pidfile: a.pid}}}\n")).code == 0


def test_a_program_is_looked_for_where_it_will_run(run, shop, write):
    program = write("bin/tool", "#!/bin/sh\n")
    arguments = shop(
        "services:\n  a: {process: {command: [./tool], cwd: bin}}\n"
        f"  b: {{process: {{command: [tool], env: {{PATH: '{program.parent}'}}}}}}\n"
    )
    assert "program './tool' cannot be run" in run(*arguments).err
    program.chmod(0o755)
    assert run(*arguments).code == 0


def test_maintenance_of_an_unknown_service_is_refused(run, shop):
    window = "{start: '2026-01-01T00:00:00+00:00', end: '2026-01-02T00:00:00+00:00', services: [stor]}"
    arguments = shop(f"selfhealing: {{maintenance: [{window}]}}\nservices: {{store: {{{TCP}}}}}\n")
    assert "selfhealing.maintenance.0.services: 'stor' is no service (did you mean 'store'?)" in run(*arguments).err


@pytest.mark.parametrize("path", ["d", "file/state.db", "file/deeper/state.db"])
def test_a_state_file_that_cannot_be_written_is_refused(run, shop, write, path):
    write("file", "")
    outcome = run(*shop("services: {}\n"), f"state.path={path}")
    assert outcome.code == 2
    assert f"state.path: '{path}'" in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_folder_without_write_permission_is_refused_for_the_state_file(run, here):
    (here / "locked").mkdir(mode=0o500)
    assert "cannot be written to" in run("mode=check", "state.path=locked/state.db").err


def test_a_summary_names_modules_objectives_and_services_in_start_order(run):
    out = run("mode=check", "+selfhealing=v2", "slo.latency_ms=1000", "selfhealing.dry_run=true").out
    assert "selfhealing v2, dry run; monitoring v2; backend auto" in out
    assert "99.9 % of checks within 1000 ms over 30 days" in out
    assert "http://127.0.0.1:8431/healthz; repair: restart (up to 3 times)" in out
    assert "heartbeat within 3 s" in out
    assert out.index("store  ") < out.index("api  ")


def test_the_summary_shows_no_secret(run, shop):
    arguments = shop('services: {a: {probe: {kind: http, url: "http://u:hunter2@127.0.0.1/?token=hunter2"}}}\n')
    outcome = run(*arguments)
    assert outcome.code == 0
    assert "hunter2" not in outcome.out
    assert "127.0.0.1" in outcome.out


# --- the backend --------------------------------------------------------------------------------------


@pytest.fixture
def without_backend(monkeypatch):
    monkeypatch.setattr(bridge, "detect_self_healing", lambda: bridge.Backend(False, "no module named aiohttp"))


@pytest.mark.usefixtures("without_backend")
def test_backend_on_is_refused_with_the_reason_where_it_cannot_be_used(run):
    outcome = run("mode=check", "backend=on", "deployment=none")
    assert outcome.code == 2
    assert "backend: is on, but the backend cannot be used: no module named aiohttp" in outcome.err
    assert "command line: backend=on" in outcome.err


@pytest.mark.usefixtures("without_backend")
def test_backend_auto_does_without_it(run):
    assert run("mode=check", "backend=auto", "deployment=none").code == 0


@pytest.mark.parametrize("choice", ["off", "auto"])
@pytest.mark.usefixtures("without_backend")
def test_kinds_that_only_the_backend_has_are_refused_without_it(run, shop, monkeypatch, choice):
    monkeypatch.setattr("modules.local.probes.SUPPORTED", frozenset({"tcp"}))
    monkeypatch.setattr("modules.local.actions.SUPPORTED", frozenset({"restart"}))
    repair = '[{kind: webhook, url: "http://127.0.0.1:1/"}]'
    services = f'{{a: {{probe: {{kind: http, url: "http://127.0.0.1:1/"}}, repair: {repair}}}, b: {{{TCP}}}}}'
    outcome = run(*shop(f"services: {services}\n"), f"backend={choice}")
    assert outcome.code == 2
    assert "services.a.probe.kind: 'http' needs the backend" in outcome.err
    assert "services.a.repair.0.kind: 'webhook' needs the backend" in outcome.err
    assert "services.b" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["selfhealing=v2", "monitoring=v1"], "sent by monitoring=v2"),
        (["selfhealing=v2", "backend=off"], "alerts need the backend"),
    ],
)
def test_alert_targets_that_would_never_hear_anything_are_refused(run, arguments, reason):
    targets = "alerts.targets=[{kind: webhook, url: 'http://127.0.0.1:9/'}]"
    answer = run(*arguments, targets, "mode=check")
    assert answer.code == 2
    assert reason in answer.err


def test_an_apprise_url_that_nothing_can_send_to_is_refused(run):
    answer = run("selfhealing=v2", "alerts.targets=[{kind: apprise, url: 'nonsense://x'}]", "mode=check")
    assert answer.code == 2
    assert "alerts.targets" in answer.err
    assert "nonsense" not in answer.err


def test_what_a_local_probe_cannot_do_is_told_before_the_start(run):
    answer = run("backend=off", "services.store.probe.expect_body=fine", "mode=check")
    assert answer.code == 2
    assert "services.store.probe" in answer.err
    assert "expect_body" in answer.err
