"""What a user types, and the exit code and words that come back."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import cli

ROOT = Path(__file__).parents[2]

BAD = {
    "type": (["slo.latency_ms=fast"], "slo.latency_ms: found 'fast'", "a number above 0"),
    "range": (["slo.availability=101"], "slo.availability: found 101", "above 0 and below 100"),
    "nan": (["slo.latency_ms=nan"], "slo.latency_ms: found nan", "a number above 0"),
    "key": (
        ["slo.latencyms=3"],
        "slo.latencyms: unknown key (did you mean 'latency_ms'?)",
        "alerting, availability, import, latency_ms",
    ),
    "added key": (["+slo.latencyms=3"], "did you mean 'latency_ms'?", "command line: +slo.latencyms=3"),
    "group": (["selfheeling=v2"], "selfheeling: unknown key (did you mean 'selfhealing'?)", "deployment, drain_s, env"),
    "added group": (["+selfheeling=v2"], "did you mean 'selfhealing'?", "command line: +selfheeling=v2"),
    "option": (["slo=strickt"], "slo: there is no option 'strickt' (did you mean 'strict'?)", "default, strict"),
    "option far off": (["selfhealing=v9"], "selfhealing: there is no option 'v9'", "none, v1, v2, v3"),
    "no option": (["selfhealing=null"], "there is no option 'null'", "none, v1, v2, v3"),
    "mapping for a group": (["slo={latency_ms: 3}"], "slo: found a mapping for a group", "slo.KEY=VALUE"),
    "mode": (["mode=chek"], "mode: found 'chek' (a string) (did you mean 'check'?)", "check, export, serve"),
    "backend": (["backend=maybe"], "backend: found 'maybe'", "auto, off, on"),
    "no equals": (["slo.latency_ms"], "slo.latency_ms: is no override: the '=' is missing", "key=value"),
    "no key": (["=3"], "names no key", "key=value"),
    "grammar": (["slo.latency_ms={"], "slo.latency_ms: cannot be read", "quotes"),
    "sweep": (["selfhealing=v1,v2"], "selfhealing: several values", "[a,b]"),
    "multirun": (["-m", "selfhealing=v1"], "-m: sweeps", "one by one"),
    "flag": (["--config-dr", "x"], "--config-dr: unknown option (did you mean '--config-dir'?)", "--help"),
    "folder": (["--config-dir", "nix"], "--config-dir: 'nix' does not exist", "a folder with groups"),
    "folder not given": (["-cd"], "--config-dir: no folder is given", "--config-dir DIR"),
    "hydra": (["hydra.run.dir=x"], "hydra.run.dir: Hydra's own keys are not used", "--config-dir"),
    "moved group": (["slo@other=strict"], "slo@other: a group cannot be moved", "slo=OPTION"),
    "deletion": (["~nothing"], "nothing: cannot be left out", "command line: ~nothing"),
    "string": (["log.level=3"], "log.level: found 3 (a number)", "debug, error, info, warning"),
    "list": (["extensions=shop"], "extensions: found 'shop' (a string)", "write a list"),
    "quoted number": (["server.port='80'"], "server.port: found '80' (a string)", "without quotes"),
    "missing value": (["state.path=???"], "state.path: is still to be given", "state.path=VALUE"),
    "environment": (["slo.latency_ms=${oc.env:NO_SUCH_VAR}"], "slo.latency_ms: ", "variable 'NO_SUCH_VAR' not found"),
    "interpolation": (["slo.latency_ms=${vars.nix}"], "slo.latency_ms: ", "'vars.nix' not found"),
    "host": (["server.host=0.0.0.0"], "server.host: found '0.0.0.0'", "loopback"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_exit_code_2_and_names_key_source_and_remedy(run, case):
    arguments, *parts = BAD[case]
    outcome = run("mode=check", *arguments) if case != "mode" else run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    for part in parts:
        assert part in outcome.err
    assert "Traceback" not in outcome.err


def test_every_problem_is_told_at_once(run):
    outcome = run(
        "mode=check", "slo=strickt", "slo.latency_ms=fast", "log.format=yaml", "services.api.depends_on=[stor]"
    )
    assert outcome.code == 2
    for part in ("'strict'", "slo.latency_ms", "log.format", "services.api.depends_on: 'stor'", "4 problems"):
        assert part in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *[[f"{plus}selfhealing={version}"] for plus in ("", "+", "++") for version in ("none", "v1", "v2", "v3")],
        *[[f"{plus}monitoring={version}"] for plus in ("", "+") for version in ("none", "v1", "v2", "v3")],
        *[[f"backend={choice}"] for choice in ("auto", "off", "true", "false")],
        ["slo=strict"],
        ["env=prod"],
        ["+env=prod", "+slo=strict", "+selfhealing=v2", "slo.latency_ms=1000", "+drain_s=3"],
        ["deployment=none"],
        ["~services.worker"],
        ["~selfhealing"],
    ],
    ids=" ".join,
)
def test_the_documented_choices_are_valid(run, monkeypatch, arguments):
    # Whether the backend can be imported here is another test's question.
    monkeypatch.setattr("runtime.consistency._backend", lambda settings: iter(()))
    outcome = run("mode=check", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert "is valid; nothing was started" in outcome.out


def test_app_env_stands_for_env_and_the_command_line_beats_it(run, monkeypatch):
    monkeypatch.setenv("APP_ENV", "prod")
    assert "env=prod" in run("mode=check").out
    assert "env=dev" in run("mode=check", "env=dev").out
    assert "env=dev" in run("mode=check", "+env=dev").out


def test_a_wrong_app_env_is_told_as_such(run, monkeypatch):
    monkeypatch.setenv("APP_ENV", "prd")
    outcome = run("mode=check")
    assert outcome.code == 2
    assert "env: there is no option 'prd' (did you mean 'prod'?)" in outcome.err
    assert "environment variable APP_ENV=prd" in outcome.err


def test_the_folder_may_come_from_the_environment(run, monkeypatch, shop):
    shop("services: {till: {probe: {kind: tcp, port: 9}}}")
    monkeypatch.setenv("SELFRIGHT_CONFIG_DIR", "d")
    outcome = run("mode=check", "deployment=shop")
    assert (outcome.code, "till" in outcome.out) == (0, True)
    monkeypatch.setenv("SELFRIGHT_CONFIG_DIR", "gone")
    assert "SELFRIGHT_CONFIG_DIR: 'gone' does not exist" in run("mode=check").err


def test_help_lists_groups_with_their_options_also_ones_own(run, shop):
    shop("services: {}")
    outcome = run("--help", "--config-dir=d")
    assert outcome.code == 0
    for part in ("usage: run", "demo, none, shop", "none, v1, v2, v3", "default, strict", "dev, prod"):
        assert part in outcome.out


def test_version_is_printed(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out.split()[0]) == (0, "selfright")


def test_a_traceback_is_shown_on_demand_only(run, monkeypatch):
    assert "Traceback" not in run("slo=nix").err
    monkeypatch.setenv("SELFRIGHT_DEBUG", "1")
    assert "Traceback" in run("slo=nix").err


def test_an_unexpected_failure_is_one_line_with_a_hint_and_exit_code_1(run, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(cli, "parse_arguments", fail)
    outcome = run("mode=check")
    assert outcome.code == 1
    assert outcome.err == "run: unexpected RuntimeError: the sky fell; set SELFRIGHT_DEBUG=1 for the traceback\n"


@pytest.mark.parametrize(
    ("arguments", "code"), [(["mode=check"], 0), (["+selfhealing=v9"], 2), (["slo.latency_ms=fast"], 2)]
)
def test_the_process_ends_soon_without_traceback_and_leaves_nothing_behind(tmp_path, arguments, code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "runtime", *arguments],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert list(tmp_path.iterdir()) == []
    assert took < 2  # CPU seconds, of which half a second is usual; scripts/bench measures wall time


def test_checking_loads_nothing_that_only_serving_needs(tmp_path):
    code = (
        "import sys; from runtime.cli import main; main(['mode=check']);"
        "print(sorted({'fastapi', 'uvicorn', 'rich', 'aiohttp', 'apprise', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
