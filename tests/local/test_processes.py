"""Supervised processes, with real children of a few lines each."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from modules.contracts.clock import SystemClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import ProcessError, UnknownServiceError
from modules.contracts.events import ComponentFailed, EventBus, ProcessExited, ProcessStarted
from modules.contracts.health import ProcessSpec
from modules.local.child import TAIL_BYTES, Tail
from modules.local.processes import ProcessSupervisor

SLEEPER = ProcessSpec(("sleep", "60"), stop_timeout_s=2)
DEAF = ProcessSpec(("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"), stop_timeout_s=0.2)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition, seconds: float = 5.0):
    """Wait for a condition of the real world; its truth is the test's business."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  a process sets no asyncio.Event
        await asyncio.sleep(0.01)
    return condition()


@pytest.fixture
def events():
    return EventBus()


@pytest.fixture
async def supervise(events):
    made: list[ProcessSupervisor] = []

    def make(order=None, environment=dict, **specs: ProcessSpec) -> ProcessSupervisor:
        made.append(ProcessSupervisor(specs, clock=SystemClock(), events=events, order=order, environment=environment))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


def of_kind(events: EventBus, kind: type) -> list:
    return [event for event in events.recent() if isinstance(event, kind)]


def exits(events: EventBus) -> list[tuple[str, int, bool]]:
    return [(event.service, event.exit_code, event.expected) for event in of_kind(events, ProcessExited)]


async def test_processes_start_in_order_and_stop_in_reverse(supervise, events):
    supervisor = supervise(order=["db", "elsewhere", "api"], worker=SLEEPER, api=SLEEPER, db=SLEEPER)
    await supervisor.start()
    assert [event.service for event in of_kind(events, ProcessStarted)] == ["db", "api", "worker"]
    pids = [supervisor.get_status(name).pid for name in supervisor.names]
    assert all(alive(pid) for pid in pids)
    await supervisor.stop()
    assert exits(events) == [("worker", -15, True), ("api", -15, True), ("db", -15, True)]
    assert not any(alive(pid) for pid in pids)
    assert supervisor.status.state is ComponentState.STOPPED


async def test_stop_is_safe_without_start_and_twice(supervise):
    supervisor = supervise(api=SLEEPER)
    await supervisor.stop()
    await supervisor.start()
    await supervisor.stop()
    await supervisor.stop()
    assert supervisor.get_status("api").running is False


async def test_a_start_that_fails_half_way_leaves_nothing_running(supervise, events):
    supervisor = supervise(db=SLEEPER, api=ProcessSpec(("no-such-program-here", "--port", "1")))
    with pytest.raises(ProcessError, match=r"'api' \(no-such-program-here --port 1\).*not found; install it"):
        await supervisor.start()
    assert exits(events) == [("db", -15, True)]
    assert supervisor.status.state is ComponentState.STOPPED


async def test_a_file_that_may_not_be_executed_is_told_with_what_to_do(supervise, tmp_path):
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\n")
    supervisor = supervise(api=ProcessSpec((str(script),)))
    with pytest.raises(ProcessError, match=r"'api'.*not executable.*chmod"):
        await supervisor.start_process("api")


async def test_a_file_that_is_no_program_is_told(supervise, tmp_path):
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x00\x01\x02")
    junk.chmod(0o755)
    with pytest.raises(ProcessError, match="Exec format error"):
        await supervise(api=ProcessSpec((str(junk),))).start_process("api")


async def test_a_missing_working_directory_is_told_as_such(supervise):
    supervisor = supervise(api=ProcessSpec(("sleep", "60"), cwd="/no/such/folder"))
    with pytest.raises(ProcessError, match=r"'/no/such/folder' is no folder"):
        await supervisor.start_process("api")


async def test_an_unknown_service_is_named_with_the_nearest_known_one(supervise):
    with pytest.raises(UnknownServiceError, match="did you mean 'worker'"):
        supervise(worker=SLEEPER).get_status("wroker")


async def test_an_exit_is_noticed_with_its_code_and_nothing_restarts_it(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "exit 7")))
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert exits(events) == [("api", 7, False)]
    status = supervisor.get_status("api")
    assert (status.running, status.pid, status.exit_code, status.restarts) == (False, None, 7, 0)
    assert len(of_kind(events, ProcessStarted)) == 1


async def test_a_kill_from_outside_is_noticed_within_50_ms(supervise, events):
    supervisor = supervise(api=SLEEPER)
    await supervisor.start()
    seen = asyncio.Event()
    events.listen(lambda event: seen.set() if isinstance(event, ProcessExited) else None)
    os.kill(supervisor.get_status("api").pid, signal.SIGKILL)
    async with asyncio.timeout(0.5):  # 50 ms on a quiet machine; the polling this rules out would take seconds
        await seen.wait()
    assert exits(events) == [("api", -9, False)]


async def test_an_exit_is_noticed_on_a_kernel_without_pidfd(supervise, events, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "sleep 0.05; exit 3")), deaf=DEAF)
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert exits(events) == [("api", 3, False)]
    await supervisor.stop()
    assert exits(events)[1:] == [("deaf", -9, True)]


async def test_sigterm_ignored_ends_in_sigkill_after_the_stop_timeout(supervise, events):
    supervisor = supervise(api=DEAF)
    await supervisor.start()
    assert await until(lambda: "ready" in supervisor.tail("api"))
    began = time.monotonic()
    await supervisor.stop_process("api")
    assert 0.2 <= time.monotonic() - began < 1.0
    assert exits(events) == [("api", -9, True)]


async def test_a_stopped_process_still_ends_in_order(supervise, events):
    supervisor = supervise(api=SLEEPER)
    await supervisor.start()
    os.kill(supervisor.get_status("api").pid, signal.SIGSTOP)
    await supervisor.stop_process("api")
    assert exits(events) == [("api", -15, True)]


async def test_a_cancelled_stop_kills_everything_at_once(supervise, events):
    slow = ProcessSpec(DEAF.command, stop_timeout_s=30)
    supervisor = supervise(first=slow, second=slow)
    await supervisor.start()
    assert await until(lambda: supervisor.tail("first") and supervisor.tail("second"))
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.05)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert sorted(exits(events)) == [("first", -9, True), ("second", -9, True)]


async def test_children_of_a_leader_die_with_it(supervise):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "sleep 60 & echo $!; wait")))
    await supervisor.start()
    assert await until(lambda: supervisor.tail("api").endswith("\n"))
    grandchild = int(supervisor.tail("api"))
    os.kill(supervisor.get_status("api").pid, signal.SIGKILL)
    assert await until(lambda: not alive(grandchild), 1.0)


async def test_a_command_that_forks_and_exits_leaves_nothing_behind(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "sleep 60 & echo $!")))
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert exits(events) == [("api", 0, False)]
    assert await until(lambda: not alive(int(supervisor.tail("api"))), 1.0)


LEAVER = ProcessSpec(("sh", "-c", "setsid sh -c 'setsid sleep 60 & echo $!; exec sleep 60' & wait"))


async def stray_of(supervisor: ProcessSupervisor) -> int:
    assert await until(lambda: supervisor.tail("api").endswith("\n"))
    pid = int(supervisor.tail("api").split()[-1])
    assert os.getsid(pid) != supervisor.get_status("api").pid
    return pid


@pytest.mark.parametrize("end", ["stop", "stop_process", "restart"])
async def test_what_left_the_session_of_its_service_ends_with_it(supervise, end):
    supervisor = supervise(other=LEAVER, api=LEAVER)
    await supervisor.start()
    assert await until(lambda: supervisor.tail("other").endswith("\n"))
    stray, others = await stray_of(supervisor), int(supervisor.tail("other"))
    await (supervisor.stop() if end == "stop" else getattr(supervisor, end)("api"))
    assert await until(lambda: not alive(stray), 0.2)
    assert alive(others) == (end != "stop")


async def test_what_left_the_session_of_a_service_that_was_killed_ends_soon(supervise):
    supervisor = supervise(api=LEAVER)
    await supervisor.start()
    stray = await stray_of(supervisor)
    os.kill(supervisor.get_status("api").pid, signal.SIGKILL)
    assert await until(lambda: not alive(stray), 1.0)


async def test_a_stop_ends_what_left_its_session_also_without_a_guardian(supervise):
    supervisor = supervise(api=LEAVER)
    await supervisor.start()
    stray, guardian = await stray_of(supervisor), supervisor._guardian._child
    os.kill(guardian.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(guardian.exited), 1)
    await supervisor.stop()
    assert await until(lambda: not alive(stray), 0.2)


async def test_strays_of_many_services_that_end_at_once_are_found_by_one_or_two_looks(supervise, events, monkeypatch):
    looks: list[int] = []

    def look(marks):
        looks.append(len(marks))
        yield

    monkeypatch.setattr("modules.local.processes.end_marked", look)
    supervisor = supervise(**{f"s{n}": SLEEPER for n in range(10)})
    await supervisor.start()
    for name in supervisor.names:
        os.kill(supervisor.get_status(name).pid, signal.SIGKILL)
    time.sleep(0.1)  # noqa: ASYNC251  all exits are found in the same turn of the loop
    assert await until(lambda: len(exits(events)) == 10)
    assert await until(lambda: sum(looks) == 10)
    assert len(looks) <= 2


async def test_a_look_for_strays_that_fails_is_told_and_holds_up_no_restart(supervise, events, monkeypatch):
    def broken(marks):
        raise RuntimeError("no /proc today")

    monkeypatch.setattr("modules.local.processes.end_marked", broken)
    supervisor = supervise(api=SLEEPER)
    await supervisor.start()
    await supervisor.restart("api")
    assert supervisor.get_status("api").running
    assert [event.detail for event in of_kind(events, ComponentFailed)] == [
        "looking for strays: RuntimeError: no /proc today"
    ]


async def test_a_restart_ends_the_old_process_before_the_new_one_begins(supervise, events):
    supervisor = supervise(api=SLEEPER)
    await supervisor.start()
    before = supervisor.get_status("api")
    await supervisor.restart("api")
    after = supervisor.get_status("api")
    assert not alive(before.pid)
    assert alive(after.pid)
    assert (after.restarts, after.exit_code) == (1, -15)
    assert [event.kind for event in events.recent()] == ["process_started", "process_exited", "process_started"]


async def test_a_restart_starts_what_has_exited(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "exit 1")))
    await supervisor.start()
    assert await until(lambda: exits(events))
    await supervisor.restart("api")
    assert len(of_kind(events, ProcessStarted)) == 2


async def test_two_restarts_at_once_are_one(supervise, events):
    supervisor = supervise(api=SLEEPER)
    await supervisor.start()
    await asyncio.gather(supervisor.restart("api"), supervisor.restart("api"))
    assert supervisor.get_status("api").restarts == 1


async def test_a_cancelled_restart_is_finished_all_the_same(supervise, events):
    supervisor = supervise(api=DEAF)
    await supervisor.start()
    assert await until(lambda: supervisor.tail("api"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await supervisor.restart("api")
    assert await until(lambda: supervisor.get_status("api").restarts == 1)
    assert supervisor.get_status("api").running


async def test_the_failure_of_a_restart_that_nobody_awaits_is_published(supervise, events, tmp_path):
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 60; done\n")
    script.chmod(0o755)
    supervisor = supervise(api=ProcessSpec((str(script),), stop_timeout_s=0.2))
    await supervisor.start()
    assert await until(lambda: supervisor.tail("api"))
    script.unlink()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await supervisor.restart("api")
    assert await until(lambda: of_kind(events, ComponentFailed))
    assert "not found" in of_kind(events, ComponentFailed)[0].detail


async def test_a_restart_during_stop_starts_nothing(supervise, events):
    supervisor = supervise(api=DEAF)
    await supervisor.start()
    assert await until(lambda: supervisor.tail("api"))
    restart = asyncio.create_task(supervisor.restart("api"))
    await asyncio.sleep(0.05)
    await supervisor.stop()
    with pytest.raises(ProcessError, match="runtime stops"):
        await restart
    assert len(of_kind(events, ProcessStarted)) == 1
    with pytest.raises(ProcessError, match="runtime stops"):
        await supervisor.start_process("api")


async def test_starting_what_runs_and_stopping_what_does_not_change_nothing(supervise, events):
    supervisor = supervise(api=SLEEPER)
    await supervisor.stop_process("api")
    await supervisor.start_process("api")
    await supervisor.start_process("api")
    assert len(events.recent()) == 1


async def test_a_flood_of_output_is_drained_and_only_its_newest_part_is_kept(supervise, events):
    lines = 200_000
    program = f"import sys\nfor i in range({lines}): sys.stdout.write(f'line {{i}}\\n')"
    supervisor = supervise(api=ProcessSpec(("{python}", "-c", program)))
    await supervisor.start()
    assert await until(lambda: exits(events), 20.0)
    assert exits(events) == [("api", 0, False)]
    assert supervisor.tail("api").endswith(f"line {lines - 1}\n")
    assert len(supervisor.tail("api")) == TAIL_BYTES


async def test_a_flood_without_end_is_read_at_a_bounded_rate_and_goes_on(supervise):
    supervisor = supervise(api=ProcessSpec(("yes",)))
    await supervisor.start()
    tail = supervisor._services["api"].tail
    await asyncio.sleep(0.35)
    first = tail.written
    await asyncio.sleep(0.25)
    assert 0 < first <= 6 * 1024 * 1024  # unbounded it would be some hundred
    assert tail.written > first


async def test_an_exit_says_the_last_words_of_this_run_alone(supervise, events, tmp_path):
    once = f"test -e {tmp_path}/x && exit 4; touch {tmp_path}/x; printf 'port \\033[31mis taken\\007\\n\\n \\n'; exit 3"
    supervisor = supervise(api=ProcessSpec(("sh", "-c", once)))
    await supervisor.start()
    assert await until(lambda: exits(events))
    await supervisor.restart("api")
    assert await until(lambda: len(exits(events)) == 2)
    first, second = of_kind(events, ProcessExited)
    assert first.message.endswith("ended with code 3, unexpectedly; it said: port is taken")
    assert (second.output, second.message.endswith("code 4, unexpectedly")) == ("", True)


def test_a_last_line_is_cut_to_what_fits_a_message():
    tail = Tail(limit=1000)
    tail.write(b"a" * 300 + b"\r\n\t\n")
    assert tail.last_line() == "a" * 200
    assert tail.last_line(since=302) == ""


async def test_the_last_words_before_an_exit_are_kept(supervise, events, monkeypatch):
    monkeypatch.setattr("modules.local.child._READ_BYTES", 100)
    supervisor = supervise(api=ProcessSpec(("seq", "500")))
    await supervisor.start()
    time.sleep(0.1)  # noqa: ASYNC251  a busy loop finds the exit and unread output at the same moment
    assert await until(lambda: exits(events))
    assert supervisor.tail("api").endswith("499\n500\n")


async def test_errors_of_a_child_are_in_its_tail_over_restarts(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "echo $$; echo boom >&2; exit 1")))
    await supervisor.start()
    assert await until(lambda: len(exits(events)) == 1)
    await supervisor.restart("api")
    assert await until(lambda: len(exits(events)) == 2)
    assert supervisor.tail("api").count("boom") == 2


async def test_a_daemon_that_left_the_group_cannot_hold_up_the_exit(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "setsid sleep 1 & echo started")))
    await supervisor.start()
    assert await until(lambda: exits(events), 0.8), "the exit waited for a pipe that somebody else holds"


async def test_discarded_output_goes_nowhere(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "echo noise"), log="discard"))
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert supervisor.tail("api") == ""


async def test_a_child_has_the_programs_environment_its_own_and_its_folder(supervise, events, monkeypatch, tmp_path):
    monkeypatch.setenv("FROM_PROGRAM", "one")
    spec = ProcessSpec(("sh", "-c", 'echo "$FROM_PROGRAM $OWN $(pwd)"'), env={"OWN": "two"}, cwd=str(tmp_path))
    supervisor = supervise(api=spec)
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert supervisor.tail("api") == f"one two {tmp_path}\n"


async def test_the_common_environment_is_asked_at_each_start_and_a_services_own_wins(supervise, events):
    common = {"ADDRESS": "early", "OWN": "common"}
    spec = ProcessSpec(("sh", "-c", 'echo "$ADDRESS $OWN"'), env={"OWN": "mine"})
    supervisor = supervise(environment=lambda: common, api=spec)
    await supervisor.start()
    assert await until(lambda: exits(events))
    common["ADDRESS"] = "late"
    await supervisor.restart("api")
    assert await until(lambda: len(exits(events)) == 2)
    assert supervisor.tail("api") == "early mine\nlate mine\n"


async def test_python_in_braces_is_the_runtimes_own_interpreter(supervise, events):
    supervisor = supervise(api=ProcessSpec(("{python}", "-S", "-c", "import sys; print(sys.executable)")))
    await supervisor.start()
    assert await until(lambda: exits(events))
    assert supervisor.tail("api").strip() == sys.executable


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_every_descriptor_is_given_back(supervise, events):
    supervisor = supervise(api=ProcessSpec(("sh", "-c", "exit 0")))
    before = descriptors()
    await supervisor.start()
    for round_ in range(5):
        assert await until(lambda expected=round_ + 1: len(exits(events)) == expected)
        await supervisor.restart("api")
    assert await until(lambda: len(exits(events)) == 6)
    await supervisor.stop()
    assert descriptors() == before


def test_a_tail_begins_with_a_whole_character():
    tail = Tail(limit=5)
    for _ in range(4):
        tail.write("äöü".encode())
    assert tail.text() == "öü"
