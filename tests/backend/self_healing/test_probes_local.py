"""The tcp, exec, process, heartbeat and callable probes, against real sockets and processes."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.shared.self_healing import command
from backend.shared.self_healing.probes import build_probe
from backend.shared.self_healing.settings import (
    CallableProbeSettings,
    ExecProbeSettings,
    HeartbeatProbeSettings,
    ProcessProbeSettings,
    TcpProbeSettings,
)
from modules.contracts.clock import LoopClock, SystemClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, Heartbeats, ProbeOutcome, ProcessStatus, Wait
from runtime.simulation.loop import virtual_time


def context(load=None, processes=None, clock=None, heartbeats=None):
    clock = clock or SystemClock()
    return BuildContext("api", clock, heartbeats or Heartbeats(clock), load=load, processes=processes)


def fails(result, *texts):
    assert result.outcome is ProbeOutcome.FAIL, result
    assert all(text in result.detail for text in texts), result.detail


def errs(result, *texts):
    assert result.outcome is ProbeOutcome.ERROR, result
    assert all(text in result.detail for text in texts), result.detail


def gone(pid, within=2.0):
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
    return False


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


# --- tcp ----------------------------------------------------------------------------------------------


async def look_tcp(port, host="127.0.0.1"):
    settings = TcpProbeSettings(kind="tcp", host=host, port=port, timeout_ms=60)
    return await build_probe(settings, context()).probe()


async def test_a_port_on_which_somebody_listens_passes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert (await look_tcp(server.getsockname()[1])).passed


async def test_a_port_on_which_nobody_listens_fails():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        fails(await look_tcp(port), f"127.0.0.1:{port} refused the connection")


async def test_a_full_backlog_fails_at_the_timeout():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        fails(await look_tcp(server.getsockname()[1]), "did not accept a connection within 60 ms")
        for client in waiting:
            client.close()


async def test_a_host_name_that_does_not_resolve_is_the_probers_error(monkeypatch):
    async def no_such_name(self, host, *args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_such_name)
    errs(await look_tcp(80, "shop.invalid"), "'shop.invalid' does not resolve")


# --- exec ---------------------------------------------------------------------------------------------


async def run(*argv, **settings):
    settings = ExecProbeSettings(kind="exec", command=argv, **{"timeout_ms": 5000, **settings})
    return await build_probe(settings, context()).probe()


async def test_exit_code_zero_passes_and_another_fails_with_the_last_line_of_output():
    assert (await run("true")).passed
    fails(await run("sh", "-c", "echo starting; echo no route >&2; exit 3"), "code 3", "no route")


async def test_a_command_that_a_signal_ends_fails():
    fails(await run("sh", "-c", "kill -9 $$"), "was ended by signal 9")


async def test_a_command_that_does_not_exist_is_the_probers_error_and_is_named():
    errs(await run("no-such-program-here"), "'no-such-program-here' does not exist")


async def test_a_command_without_permission_or_a_missing_folder_is_the_probers_error(tmp_path):
    script = tmp_path / "check.sh"
    script.write_text("#!/bin/sh\n")
    errs(await run(str(script)), "may not be executed")
    errs(await run("true", cwd=str(tmp_path / "nowhere")), "working directory", "nowhere")
    errs(await run("true\0"), "cannot be executed")


async def test_a_lack_of_descriptors_is_the_probers_error(monkeypatch):
    def none_left(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", none_left)
    errs(await run("true"), "Too many open files")


async def test_the_environment_and_the_folder_are_the_ones_that_were_asked_for(tmp_path):
    result = await run(
        "sh", "-c", 'echo "$GREETING in $PWD"', env={"GREETING": "hi"}, cwd=str(tmp_path), expect_output="^hi in /"
    )
    assert result.passed


async def test_output_must_match_when_a_pattern_is_given():
    fails(await run("echo", "hello", expect_output="bye"), "does not match 'bye'")


async def test_a_command_at_its_timeout_is_killed_with_everything_that_it_forked(tmp_path):
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! > {pids}; echo $$ >> {pids}; wait; sleep 60"
    fails(await run("sh", "-c", script, timeout_ms=150), "did not end within 150 ms")
    leader_and_child = [int(pid) for pid in pids.read_text().split()]
    assert len(leader_and_child) == 2
    assert all(gone(pid) for pid in leader_and_child)


async def test_what_a_command_leaves_running_in_the_background_is_ended_and_does_not_hold_it_up(tmp_path):
    pids = tmp_path / "pids"
    began = time.monotonic()
    assert (await run("sh", "-c", f"sleep 60 & echo $! > {pids}")).passed
    assert time.monotonic() - began < 2
    assert gone(int(pids.read_text()))


async def test_a_cancelled_look_leaves_no_process(tmp_path):
    pids = tmp_path / "pids"
    task = asyncio.create_task(run("sh", "-c", f"echo $$ > {pids}; sleep 60"))
    while not (pids.exists() and pids.read_text().strip()):  # noqa: ASYNC110  another process writes it
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(int(pids.read_text()))


async def test_a_flood_of_output_is_drained_and_kept_to_64_kib():
    result = await command.run_command(["sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo end"])
    assert result.code == 0
    assert result.output == b"x" * command.OUTPUT_BYTES


async def test_a_flood_without_end_is_read_at_a_bounded_rate(monkeypatch):
    sizes = []
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, most: (sizes.append(len(data := read(file, most))), data)[1])
    fails(await run("yes", timeout_ms=350), "did not end")
    assert 1024 * 1024 < sum(sizes) <= 6 * 1024 * 1024  # unbounded it would be some hundred


async def test_the_whole_of_a_short_output_is_seen_even_when_the_command_ends_at_once():
    for number in range(20):
        assert (await command.run_command(["echo", str(number)])).output == f"{number}\n".encode()


async def test_without_a_pidfd_the_end_of_a_command_is_seen_all_the_same(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert (await command.run_command(["echo", "seen"])).output == b"seen\n"
    fails(await run("sleep", "60", timeout_ms=50), "did not end")


async def test_commands_leave_no_descriptor_behind():
    await run("true")
    before = descriptors()
    for _ in range(10):
        await run("true")
        await run("sleep", "60", timeout_ms=10)
    assert descriptors() == before


def test_a_command_dies_with_the_program_that_ran_it(tmp_path):
    pids = tmp_path / "pids"
    program = (
        "import asyncio; from backend.shared.self_healing.command import run_command;"
        f"asyncio.run(run_command(['sh', '-c', 'echo $$ > {pids}; exec sleep 60']))"
    )
    runner = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while not (pids.exists() and pids.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert gone(int(pids.read_text()))


# --- process ------------------------------------------------------------------------------------------


class Processes:
    """A process control that reports what it is told."""

    names = ("api",)

    def __init__(self, pid=None, exit_code=None, started_at=None):
        self.pid, self.exit_code, self.started_at = pid, exit_code, started_at

    def get_status(self, name):
        return ProcessStatus(name, self.pid is not None, self.pid, self.started_at, 0, self.exit_code)


async def look_process(processes=None, **settings):
    settings = ProcessProbeSettings(kind="process", **settings)
    return await build_probe(settings, context(processes=processes)).probe()


async def test_a_supervised_process_passes_while_it_runs_and_fails_with_how_it_ended():
    assert (await look_process(Processes(pid=os.getpid()))).passed
    fails(await look_process(Processes()), "has not been started")
    fails(await look_process(Processes(exit_code=-9)), "signal 9")
    fails(await look_process(Processes(exit_code=3)), "code 3")


async def test_too_much_resident_memory_fails_with_both_figures():
    assert (await look_process(Processes(pid=os.getpid()), max_rss_mb=100_000)).facts["rss_mb"] > 1
    fails(await look_process(Processes(pid=os.getpid()), max_rss_mb=1), "MiB of memory, allowed are 1 MiB")


async def test_a_process_probe_without_a_process_is_refused():
    with pytest.raises(ConfigurationError, match=r"services\.api.*pidfile"):
        await look_process()


async def test_a_pid_file_is_followed_to_a_running_process(tmp_path):
    file = tmp_path / "api.pid"
    fails(await look_process(pidfile=str(file)), "does not exist")
    file.write_text(f"{os.getpid()}\n")
    assert (await look_process(pidfile=str(file))).passed
    for nonsense in ("", "-1", "0", "abc", "1" * 60, "99999999999"):
        file.write_text(nonsense)
        fails(await look_process(pidfile=str(file)), "expected a process id")
    fails(await look_process(pidfile=str(tmp_path)), "cannot be read")


async def test_a_zombie_and_a_process_that_is_gone_do_not_run(tmp_path):
    file = tmp_path / "api.pid"
    child = subprocess.Popen(["true"])  # noqa: ASYNC220  left a zombie on purpose
    file.write_text(str(child.pid))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  it ends at once
    fails(await look_process(pidfile=str(file)), "does not run")
    child.wait()
    fails(await look_process(pidfile=str(file), max_rss_mb=10), "does not run")


# --- heartbeat ----------------------------------------------------------------------------------------


@virtual_time
async def test_a_heartbeat_passes_until_it_is_older_than_its_time_to_live():
    clock = LoopClock()
    heartbeats = Heartbeats(clock)
    settings = HeartbeatProbeSettings(kind="heartbeat", ttl_s=30.0)
    probe = build_probe(settings, context(clock=clock, heartbeats=heartbeats))
    errs(await probe.probe(), "no heartbeat yet")
    await clock.sleep(30)
    errs(await probe.probe(), "no heartbeat yet")
    await clock.sleep(0.1)
    fails(await probe.probe(), "never sent a heartbeat")
    heartbeats.beat("somebody else")
    fails(await probe.probe(), "never sent a heartbeat")
    heartbeats.beat("api")
    await clock.sleep(30)
    assert (await probe.probe()).passed
    await clock.sleep(0.2)
    fails(await probe.probe(), "30.2 s ago", "every 30 s")


@virtual_time
async def test_a_heartbeat_of_a_process_that_was_replaced_does_not_count():
    clock = LoopClock()
    heartbeats, processes = Heartbeats(clock), Processes(pid=1, started_at=clock.time())
    settings = HeartbeatProbeSettings(kind="heartbeat", ttl_s=30.0)
    probe = build_probe(settings, context(clock=clock, heartbeats=heartbeats, processes=processes))
    await clock.sleep(1)
    heartbeats.beat("api")
    assert (await probe.probe()).passed
    await clock.sleep(1)
    processes.pid, processes.started_at = 2, clock.time()
    await clock.sleep(1)
    result = await probe.probe()
    errs(result, "no heartbeat yet")
    assert result.wait == Wait(1.0, 30.0)
    heartbeats.beat("api")
    assert (await probe.probe()).passed
    processes.pid, processes.started_at = 3, clock.time()
    heartbeats.beat("api")
    await clock.sleep(1)
    assert (await probe.probe()).passed, "the new one had reported before the first look at it"
    processes.pid, processes.started_at = 4, clock.time() - 1e9  # the wall clock jumped
    await clock.sleep(31)
    fails(await probe.probe(), "never sent a heartbeat")


@pytest.mark.parametrize(
    "settings",
    [
        HeartbeatProbeSettings(kind="heartbeat", ttl_s=30.0),
        TcpProbeSettings(kind="tcp", host="127.0.0.1", port=1, timeout_ms=60),
        ExecProbeSettings(kind="exec", command=("true",)),
    ],
)
async def test_no_probe_waits_for_a_process_that_has_ended(settings):
    beats = Heartbeats(SystemClock())
    beats.beat("api")
    ended = build_probe(settings, context(processes=Processes(exit_code=-9), heartbeats=beats))
    result = await ended.probe()
    fails(result, "its process was ended by signal 9")
    assert ended.kind == settings.kind
    running = build_probe(settings, context(processes=Processes(pid=1), heartbeats=beats))
    assert "process" not in (await running.probe()).detail


# --- callable -----------------------------------------------------------------------------------------


async def stock(shelf, least=1):
    return least <= 5


def plain():
    return True


async def look_callable(target, **arguments):
    settings = CallableProbeSettings(kind="callable", target="shop.probes.stock", arguments=arguments)
    return await build_probe(settings, context(load=lambda name: target)).probe()


async def test_an_extension_function_is_awaited_with_its_arguments():
    assert (await look_callable(stock, shelf="a")).passed
    fails(await look_callable(stock, shelf="a", least=9), "returned False")


async def test_a_function_that_is_not_async_or_does_not_take_the_arguments_is_refused():
    with pytest.raises(ConfigurationError, match=r"services\.api.*shop\.probes\.stock.*async def"):
        await look_callable(plain)
    with pytest.raises(ConfigurationError, match="missing a required argument: 'shelf'"):
        await look_callable(stock)
    with pytest.raises(ConfigurationError, match=r"it takes \(shelf, least=1\)"):
        await look_callable(stock, shelf="a", colour="red")
