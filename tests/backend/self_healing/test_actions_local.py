"""Rungs that need no network: restart, command and function; and how settings and functions become rungs."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from backend.shared.self_healing.actions import as_rung, build_rung
from backend.shared.self_healing.actions.timed import TimedRung
from backend.shared.self_healing.settings import AnyRung, ServiceSettings
from modules.contracts.clock import SystemClock
from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import ConfigurationError, ProcessError, RepairError
from modules.contracts.health import BuildContext, Heartbeats, RepairContext, Rung, RungOutcome

CONTEXT = RepairContext("api", "api-1", "answered 500", 2)


class Processes:
    """Notes what is asked of it; ``fails`` cannot be restarted."""

    def __init__(self, *names, fails=None):
        self.names = names
        self.fails = fails
        self.calls = []

    async def stop_process(self, name):
        self.calls.append(("stop", name))

    async def restart(self, name):
        self.calls.append(("restart", name))
        if name == self.fails:
            raise ProcessError(f"{name} does not start")


def build(kind, *, processes=None, load=None, group=None, **keys):
    settings = TypeAdapter(AnyRung).validate_python({"kind": kind} | keys)
    clock = SystemClock()
    context = BuildContext("api", clock, Heartbeats(clock), load or (lambda name: None), processes)
    if group is not None:
        context = BuildContext("api", clock, Heartbeats(clock), lambda name: None, processes, group)
    return build_rung(settings, context)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_default_restart_is_tried_again_and_has_more_time_than_a_stop_may_take():
    service = ServiceSettings.model_validate({"process": {"command": ("true",), "stop_timeout_s": 60}})
    (rung,) = service.ladder
    assert (rung.kind, rung.attempts) == ("restart", 3)
    assert rung.timeout_s > 60


# --- restart --------------------------------------------------------------------------------------------

GRAPH = DependencyGraph({"db": (), "api": ("db",), "web": ("api",), "cron": ("db",)})


@pytest.mark.parametrize(
    ("scope", "calls"),
    [
        ("one", ["restart api"]),
        ("rest", ["stop web", "restart api", "restart web"]),
        ("all", ["stop web", "stop api", "restart db", "restart api", "restart web"]),
    ],
)
async def test_a_restart_stops_dependents_first_and_starts_them_last(scope, calls):
    processes = Processes("db", "api", "web")  # cron is not supervised
    rung = build("restart", processes=processes, scope=scope, group=GRAPH.restart_group)
    said = await rung.action.run(CONTEXT)
    assert calls == [" ".join(call) for call in processes.calls]
    restarted = tuple(call.split()[1] for call in calls if call.startswith("restart"))
    assert rung.action.restarts == restarted
    assert said == f"restarted {', '.join(restarted)}"


async def test_a_restart_that_fails_says_which_process():
    rung = build("restart", processes=Processes("api", fails="api"))
    with pytest.raises(RepairError, match="api could not be restarted: api does not start"):
        await rung.action.run(CONTEXT)


@pytest.mark.parametrize("processes", [None, Processes("db")])
def test_a_restart_of_what_is_not_supervised_is_refused(processes):
    with pytest.raises(ConfigurationError, match=r"services\.api\.process"):
        build("restart", processes=processes)


# --- exec -----------------------------------------------------------------------------------------------


async def test_a_command_knows_the_incident_and_exit_code_0_is_success(tmp_path):
    out = tmp_path / "out"
    script = f"echo $SELFRIGHT_SERVICE $SELFRIGHT_INCIDENT $SELFRIGHT_ATTEMPT $SELFRIGHT_REASON $MORE $PWD > {out}"
    rung = build("exec", command=("sh", "-c", script), env={"MORE": "more"}, cwd=str(tmp_path))
    assert await rung.action.run(CONTEXT) == "'sh' ended with code 0"
    assert out.read_text().split() == ["api", "api-1", "2", "answered", "500", "more", str(tmp_path)]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("sh", "-c", "echo first; echo broken pipe >&2; exit 3"), "ended with code 3, expected code 0; .*broken pipe"),
        (("sh", "-c", "kill -9 $$"), "was ended by signal 9"),
        (("/no/such/program",), "'/no/such/program' does not exist"),
        (("/etc",), "'/etc' cannot be executed"),
    ],
)
async def test_a_command_that_fails_says_how(command, words):
    with pytest.raises(RepairError, match=words):
        await build("exec", command=command).action.run(CONTEXT)


async def test_a_missing_working_directory_is_named():
    with pytest.raises(RepairError, match="working directory '/no/such/folder'"):
        await build("exec", command=("true",), cwd="/no/such/folder").action.run(CONTEXT)


async def test_a_reason_that_no_environment_can_hold_does_not_stop_a_command():
    context = RepairContext("api", "api-1", "answered \0", 1)
    assert await build("exec", command=("true",)).action.run(context)


async def test_a_command_that_floods_its_output_ends_all_the_same():
    flood = (sys.executable, "-c", "import sys; sys.stdout.write('x' * 5_000_000)")
    assert await build("exec", command=flood).action.run(CONTEXT)


async def test_at_its_timeout_a_command_ends_with_its_whole_group_even_when_it_ignores_signals(tmp_path):
    pids = tmp_path / "pids"
    script = f"trap '' TERM INT; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait; sleep 60"
    rung = TimedRung(build("exec", command=("sh", "-c", script), timeout_s=0.5))
    ended = await rung.run(CONTEXT)
    assert ended.outcome is RungOutcome.TIMED_OUT
    assert "0.5 s" in ended.detail
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    for _ in range(50):
        if not any(alive(pid) for pid in children):
            break
        await asyncio.sleep(0.02)
    assert not any(alive(pid) for pid in children)


def test_the_arguments_of_a_command_are_not_shown():
    assert build("exec", command=("systemctl", "--token=secret")).action.describe == "run systemctl"


# --- functions ------------------------------------------------------------------------------------------


async def quiet(context):
    return None


async def talks(context):
    return f"moved {context.service} to another node"


async def raises(context):
    raise OSError("no route to host")


async def takes_two(context, more):
    return None


def not_async(context):
    return None


async def test_a_function_says_what_it_did_and_its_exception_is_its_failure():
    assert await build("callable", target="shop.fix", load=lambda name: talks).action.run(CONTEXT) == (
        "moved api to another node"
    )
    assert await build("callable", target="shop.fix", load=lambda name: quiet).action.run(CONTEXT) == "called quiet"
    with pytest.raises(RepairError, match="raises raised OSError: no route to host"):
        await build("callable", target="shop.fix", load=lambda name: raises).action.run(CONTEXT)


@pytest.mark.parametrize(
    ("function", "words"), [(not_async, "async def"), (takes_two, "one argument"), (7, "async def")]
)
def test_a_function_that_cannot_be_awaited_with_the_context_is_refused(function, words):
    with pytest.raises(ConfigurationError, match=words):
        build("callable", target="shop.fix", load=lambda name: function)


# --- from settings, and from code -----------------------------------------------------------------------


def test_timeout_and_attempts_come_from_the_settings():
    rung = build("exec", command=("true",), timeout_s=7, attempts=3)
    assert (rung.timeout_s, rung.attempts) == (7, 3)


@pytest.mark.parametrize(("kind", "module"), [("clear_cache", "caching"), ("open_breaker", "orchestration")])
def test_a_rung_whose_module_is_not_there_is_refused_by_name(kind, module):
    with pytest.raises(ConfigurationError, match=f"'{kind}' needs a {module} module") as refused:
        build(kind)
    assert "services.api.repair" in str(refused.value)


def test_a_function_an_action_and_a_rung_all_become_rungs():
    assert as_rung(talks, "rung 1").action.describe == "call talks"
    action = build("exec", command=("true",)).action
    assert as_rung(action, "rung 1") == Rung(action)
    assert as_rung(Rung(talks, timeout_s=3), "rung 1").action.kind == "callable"


@pytest.mark.parametrize(
    "step", ["restart", not_async, None, Rung(quiet, timeout_s=0), Rung(quiet, attempts=0), Rung(3)]
)
def test_what_is_no_rung_is_refused(step):
    with pytest.raises(ConfigurationError, match="rung 1 of 'api'"):
        as_rung(step, "rung 1 of 'api'")


async def test_a_run_never_raises_whatever_its_action_does():
    class Odd:
        kind, describe = "odd", "odd"

        def __init__(self, how):
            self.how = how

        async def run(self, context):
            return self.how()

    def cancelled():
        raise asyncio.CancelledError

    def broken():
        raise KeyError("x")

    for how, outcome, words in [
        (cancelled, RungOutcome.FAILED, "cancelled from within"),
        (broken, RungOutcome.FAILED, "KeyError"),
        (lambda: 7, RungOutcome.DONE, "done"),
    ]:
        ended = await TimedRung(Rung(Odd(how))).run(CONTEXT)
        assert ended.outcome is outcome
        assert words in ended.detail


async def test_a_cancelled_run_ends_its_action_first():
    gone = []

    async def waits(context):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            gone.append(os.getpid())

    task = asyncio.create_task(TimedRung(as_rung(waits, "rung")).run(CONTEXT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(gone) == 1
