"""No orphan stays behind, whatever dies first: a runtime in a process of its own is killed from outside."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.shared.self_healing.command import run_command
from modules.contracts.clock import SystemClock
from modules.contracts.component import ComponentState
from modules.contracts.events import ComponentFailed, EventBus
from modules.contracts.health import ProcessSpec
from modules.local.probes import ExecProbe
from modules.local.processes import ProcessSupervisor

ROOT = Path(__file__).parents[2]
RUNTIME = """
import asyncio, os, sys
from modules.contracts.clock import SystemClock
from modules.contracts.events import EventBus
from modules.contracts.health import ProcessSpec
from modules.local import child
from modules.local.processes import ProcessSupervisor

async def main():
    if "no-prctl" in sys.argv:
        child._prctl = None
    spec = ProcessSpec(("sh", "-c", "trap '' TERM HUP; sleep 60 & echo $!; wait; wait"))
    supervisor = ProcessSupervisor({"api": spec}, clock=SystemClock(), events=EventBus())
    await supervisor.start()
    while not supervisor.tail("api").endswith("\\n"):
        await asyncio.sleep(0.01)
    print(supervisor._guardian._child.pid, supervisor.get_status("api").pid, supervisor.tail("api"), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


COMMAND = """
import asyncio, sys
from modules.contracts.clock import SystemClock
from modules.contracts.events import EventBus
from modules.contracts.health import RepairContext
from modules.local.actions import ExecAction
from modules.local.probes import ExecProbe
from modules.local.processes import ProcessSupervisor
from backend.shared.self_healing.command import run_command

async def main():
    clock = SystemClock()
    supervisor = ProcessSupervisor({}, clock=clock, events=EventBus())
    await supervisor.start()
    command, guard = ("sh", "-c", f"sleep 60 & echo $! > {sys.argv[2]}; wait; true"), supervisor.guard
    if sys.argv[1] == "backend":
        await run_command(command, guard=guard)
    elif sys.argv[1] == "probe":
        await ExecProbe(command, timeout_s=60, clock=clock, guard=guard).probe()
    else:
        await ExecAction(command, clock=clock, guard=guard).run(RepairContext("api", "api-1", "", 1))

asyncio.run(main())
"""
LEAVER = RUNTIME.replace("sleep 60 & echo", "setsid sleep 60 & echo")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def all_gone(*pids: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:  # noqa: ASYNC110  a process sets no asyncio.Event
        await asyncio.sleep(0.01)
    return not any(alive(pid) for pid in pids)


@pytest.fixture
async def runtime():
    """Start a runtime with one service; return its process and the pids of guardian, leader and grandchild."""
    started = []

    async def start(*arguments: str, program: str = RUNTIME):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        pids = [int(word) for word in (await asyncio.wait_for(process.stdout.readline(), 10)).split()]
        started.append((process, pids))
        return process, *pids

    yield start
    for process, pids in started:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("arguments", [(), ("no-prctl",)], ids=["with prctl", "with the guardian alone"])
async def test_a_killed_runtime_takes_children_and_grandchildren_with_it(runtime, arguments):
    process, guardian, leader, grandchild = await runtime(*arguments)
    assert all(alive(pid) for pid in (guardian, leader, grandchild))
    process.kill()
    assert await all_gone(leader, grandchild, guardian, seconds=1.0)


async def test_a_killed_runtime_takes_with_it_what_left_its_session(runtime):
    process, _guardian, leader, stray = await runtime(program=LEAVER)
    assert os.getsid(stray) == stray
    process.kill()
    assert await all_gone(leader, stray, seconds=1.0)


@pytest.mark.parametrize("how", ["backend", "probe", "rung"])
async def test_a_killed_runtime_takes_the_whole_group_of_a_command_with_it(how, tmp_path):
    file = tmp_path / "pid"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, how, str(file), cwd=ROOT)
    deadline = time.monotonic() + 5
    while not (file.exists() and file.read_text().strip()) and time.monotonic() < deadline:  # noqa: ASYNC110  the same
        await asyncio.sleep(0.01)
    grandchild = int(file.read_text())
    await asyncio.sleep(0.05)  # the guardian begins with the first command
    process.kill()
    await process.wait()
    try:
        assert await all_gone(grandchild, seconds=1.0)
    finally:
        if alive(grandchild):
            os.kill(grandchild, signal.SIGKILL)


async def test_the_groups_of_commands_that_ended_are_forgotten_and_the_guardian_ends_with_the_supervisor():
    supervisor = ProcessSupervisor({}, clock=SystemClock(), events=EventBus())
    await supervisor.start()
    assert supervisor._guardian._child is None
    assert (await run_command(["true"], guard=supervisor.guard)).code == 0
    assert (await ExecProbe(["true"], clock=SystemClock(), guard=supervisor.guard).probe()).passed
    guardian = supervisor._guardian._child.pid
    assert (alive(guardian), supervisor._guardian._groups) == (True, set())
    await supervisor.stop()
    assert not alive(guardian)
    await run_command(["true"], guard=supervisor.guard)
    assert supervisor._guardian._child is None


async def test_the_guardian_outlives_the_signals_that_end_a_program(runtime):
    process, guardian, _leader, grandchild = await runtime()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian, number)
    await asyncio.sleep(0.05)
    assert alive(guardian)
    process.kill()
    assert await all_gone(grandchild, seconds=1.0)


async def test_a_child_dies_with_a_runtime_that_lost_its_guardian(runtime):
    process, guardian, leader, grandchild = await runtime()
    os.kill(process.pid, signal.SIGSTOP)  # so that it cannot begin a new guardian
    os.kill(guardian, signal.SIGKILL)
    assert await all_gone(guardian, seconds=1.0)
    process.kill()
    assert await all_gone(leader, seconds=1.0)
    os.kill(grandchild, signal.SIGKILL)


async def test_a_guardian_that_was_killed_is_replaced_at_the_next_start_and_told_of_every_group():
    events = EventBus()
    sleeper = ProcessSpec(("sleep", "60"))
    supervisor = ProcessSupervisor({"db": sleeper, "api": sleeper}, clock=SystemClock(), events=events)
    await supervisor.start()
    first = supervisor._guardian._child
    os.kill(first.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(first.exited), 1)
    assert supervisor.status.state is ComponentState.DEGRADED
    assert any(isinstance(event, ComponentFailed) for event in events.recent())
    await supervisor.restart("api")
    assert supervisor.status.state is ComponentState.RUNNING
    db = supervisor.get_status("db").pid
    os.close(os.dup(supervisor._guardian._child.stdin))  # it is open
    supervisor._guardian._child.close_stdin()  # as the kernel does when the program dies
    assert await all_gone(db, seconds=1.0)
    await supervisor.stop()


def test_the_guardian_spares_the_groups_that_were_dropped():
    sleepers = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    script = ROOT / "modules" / "local" / "guardian.py"
    guardian = subprocess.Popen([sys.executable, "-I", "-S", script], stdin=subprocess.PIPE)
    guardian.communicate(b"add %d\nadd %d\ndrop %d\n" % (sleepers[0].pid, sleepers[1].pid, sleepers[0].pid), 2)
    try:
        assert guardian.returncode == 0
        assert sleepers[1].wait(1) == -signal.SIGKILL
        assert sleepers[0].poll() is None
    finally:
        sleepers[0].kill()
        sleepers[0].wait()


async def test_a_process_that_ended_is_dropped_because_its_number_may_come_back(monkeypatch):
    told: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: (told.append(data), write(descriptor, data))[1])
    supervisor = ProcessSupervisor({"db": ProcessSpec(("sleep", "60"))}, clock=SystemClock(), events=EventBus())
    await supervisor.start()
    pid = supervisor.get_status("db").pid
    await supervisor.stop_process("db")
    assert told == [b"add %d\n" % pid, b"drop %d\n" % pid]
    await supervisor.stop()


async def test_a_guardian_that_is_killed_again_and_again_is_replaced_after_waits_that_double():
    waits: list[float] = []

    class Hasty(SystemClock):
        async def sleep(self, seconds: float) -> None:
            if seconds >= 1:
                waits.append(seconds)
            await asyncio.sleep(seconds / 100)

    supervisor = ProcessSupervisor({"db": ProcessSpec(("sleep", "60"))}, clock=Hasty(), events=EventBus())
    await supervisor.start()
    for _ in range(3):
        guardian = supervisor._guardian._child
        os.kill(guardian.pid, signal.SIGKILL)
        await asyncio.wait_for(asyncio.shield(guardian.exited), 1)
        assert supervisor.status.state is ComponentState.DEGRADED
        async with asyncio.timeout(2):
            while supervisor._guardian._child is None:  # noqa: ASYNC110  nobody announces it
                await asyncio.sleep(0.005)
    assert waits == [1.0, 2.0, 4.0]
    assert supervisor.status.state is ComponentState.RUNNING
    await supervisor.stop()


async def test_a_stop_while_the_guardian_is_awaited_begins_no_other():
    supervisor = ProcessSupervisor({"db": ProcessSpec(("sleep", "60"))}, clock=SystemClock(), events=EventBus())
    await supervisor.start()
    guardian = supervisor._guardian._child
    os.kill(guardian.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(guardian.exited), 1)
    await supervisor.stop()
    assert (supervisor._guardian._child, supervisor._guardian._retry) == (None, None)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_guardian_that_lived_is_replaced_at_once():
    class Fast(SystemClock):
        def monotonic(self) -> float:
            return 100 * super().monotonic()  # a second passes in 10 ms

    supervisor = ProcessSupervisor({"db": ProcessSpec(("sleep", "60"))}, clock=Fast(), events=EventBus())
    await supervisor.start()
    first = supervisor._guardian._child
    await asyncio.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(first.exited), 1)
    assert supervisor._guardian._child.pid != first.pid
    await supervisor.stop()
