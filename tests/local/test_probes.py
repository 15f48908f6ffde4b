from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from modules.contracts.clock import LoopClock, SystemClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, Heartbeats, ProbeOutcome, ProcessStatus, Wait
from modules.local.connections import HttpProbe, TcpProbe
from modules.local.probes import SUPPORTED, ExecProbe, FunctionProbe, HeartbeatProbe, PidfileProbe, build_probe
from runtime.simulation.loop import virtual_time

FAIL, PASS, ERROR = ProbeOutcome.FAIL, ProbeOutcome.PASS, ProbeOutcome.ERROR
HTTP = {
    "kind": "http",
    "method": "GET",
    "headers": {},
    "expect_status": (200,),
    "verify_tls": True,
    "timeout_ms": 500,
    "expect_body": None,
    "max_latency_ms": None,
    "max_redirects": 0,
    "min_certificate_days": None,
}


@contextlib.asynccontextmanager
async def server(answer: bytes | None, *, seen: list[bytes] | None = None, pause: float = 0) -> AsyncIterator[int]:
    """Answer each connection with ``answer``, byte by byte when ``pause``; None hangs, and empty closes."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            if answer is None:
                await asyncio.Event().wait()
            for part in [answer] if not pause else [bytes((byte,)) for byte in answer]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.sleep(0)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers)
        await listening.wait_closed()


def context(**parts: object) -> BuildContext:
    clock = SystemClock()
    return BuildContext(**{"service": "api", "clock": clock, "heartbeats": Heartbeats(clock), "load": None, **parts})


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", PASS, ""),
        (b"HTTP/1.0 200\r\n\r\n", PASS, ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", FAIL, "answered 503, expected 200 or 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", FAIL, "answered 302"),
        (b"SSH-2.0-OpenSSH\r\n", FAIL, "no HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", FAIL, "no HTTP"),
        (b"x" * 200_000, FAIL, "does not end"),
        (b"", FAIL, "closed without an answer"),
        (None, FAIL, "no answer"),
    ],
)
async def test_an_http_probe_judges_the_status_line(answer, outcome, detail):
    async with server(answer) as port:
        result = await HttpProbe(f"http://127.0.0.1:{port}/", expect_status=(200, 204), timeout_s=0.2).probe()
    assert result.outcome is outcome
    assert detail in result.detail


async def test_an_http_answer_that_trickles_ends_at_the_timeout():
    async with server(b"HTTP/1.1 200 OK\r\n", pause=0.05) as port:
        result = await HttpProbe(f"http://127.0.0.1:{port}/", timeout_s=0.2).probe()
    assert (result.outcome, "200 ms" in result.detail) == (FAIL, True)


async def test_an_http_probe_sends_what_was_configured():
    seen: list[bytes] = []
    async with server(b"HTTP/1.1 200 OK\r\n\r\n", seen=seen) as port:
        url = f"http://127.0.0.1:{port}/a b?c=d#e"
        await HttpProbe(url, method="HEAD", headers={"X-Token": "t"}).probe()
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "HEAD /a%20b?c=d HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "X-Token: t", "Connection: close"} <= set(lines)


def test_a_header_cannot_smuggle_another_line():
    with pytest.raises(ConfigurationError, match="control characters"):
        HttpProbe("http://127.0.0.1/", headers={"X": "a\r\nY: b"})


async def test_a_refused_connection_is_the_services_fault_and_an_unknown_name_is_not():
    async with server(b"") as port:
        pass
    for probe in (HttpProbe(f"http://127.0.0.1:{port}/"), TcpProbe("127.0.0.1", port)):
        assert (await probe.probe()).outcome is FAIL
    for probe in (HttpProbe("http://name.invalid/", timeout_s=5), TcpProbe("name.invalid", 1, timeout_s=5)):
        result = await probe.probe()
        assert result.outcome is ERROR
        assert "name.invalid" in result.detail


@pytest.mark.parametrize("probe", [HttpProbe("http://127.0.0.1:1/"), TcpProbe("127.0.0.1", 1)])
async def test_a_prober_without_descriptors_says_nothing_about_the_service(probe, monkeypatch):
    async def exhausted(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "open_connection", exhausted)
    result = await probe.probe()
    assert (result.outcome, "Too many open files" in result.detail) == (ERROR, True)


async def test_a_tcp_probe_passes_when_somebody_listens():
    async with server(None) as port:
        assert (await TcpProbe("127.0.0.1", port).probe()).outcome is PASS


@pytest.mark.parametrize(
    ("command", "outcome", "detail"),
    [
        (("true",), PASS, ""),
        (("false",), FAIL, "exit code 1"),
        (("sh", "-c", "kill -9 $$"), FAIL, "signal 9"),
        (("no-such-program-here",), ERROR, "no-such-program-here"),
    ],
)
async def test_an_exec_probe_judges_the_exit_code(command, outcome, detail):
    result = await ExecProbe(command, timeout_s=5, clock=SystemClock()).probe()
    assert result.outcome is outcome
    assert detail in result.detail


async def test_an_exec_probe_ends_the_whole_process_group_at_its_timeout(tmp_path):
    pidfile = tmp_path / "pid"
    command = ("sh", "-c", f"trap '' TERM; sleep 60 & echo $! > {pidfile}; wait")
    result = await ExecProbe(command, timeout_s=0.3, clock=SystemClock()).probe()
    assert (result.outcome, "300 ms" in result.detail) == (FAIL, True)
    grandchild = int(pidfile.read_text())
    for _ in range(100):
        if not _runs(grandchild):
            break
        await asyncio.sleep(0.01)
    assert not _runs(grandchild)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@virtual_time
async def test_a_heartbeat_passes_while_it_is_young_and_there_is_no_verdict_before_the_first_is_due():
    clock = LoopClock()
    heartbeats = Heartbeats(clock)
    probe = HeartbeatProbe("worker", 30, heartbeats=heartbeats, clock=clock)
    assert (await probe.probe()).outcome is ERROR
    await asyncio.sleep(31)
    assert (await probe.probe()).outcome is FAIL
    heartbeats.beat("worker")
    await asyncio.sleep(30)
    assert (await probe.probe()).outcome is PASS
    await asyncio.sleep(1)
    result = await probe.probe()
    assert (result.outcome, "31.0 s ago" in result.detail) == (FAIL, True)


class Supervised:
    """A supervisor of one service whose process comes and goes as the test says."""

    names = ("api",)

    def __init__(self, pid: int | None = None, exit_code: int | None = None, started_at: float | None = None) -> None:
        self.pid, self.exit_code, self.started_at = pid, exit_code, started_at

    def get_status(self, name: str) -> ProcessStatus:
        return ProcessStatus(name, self.pid is not None, self.pid, self.started_at, 0, self.exit_code)


@virtual_time
async def test_a_heartbeat_of_a_process_that_was_replaced_does_not_count():
    clock = LoopClock()
    heartbeats, processes = Heartbeats(clock), Supervised(pid=1, started_at=clock.time())
    settings = SimpleNamespace(kind="heartbeat", timeout_ms=500, ttl_s=30.0)
    probe = build_probe(settings, context(clock=clock, heartbeats=heartbeats, processes=processes))
    await asyncio.sleep(1)
    heartbeats.beat("api")
    assert (await probe.probe()).outcome is PASS
    await asyncio.sleep(1)
    processes.pid, processes.started_at = 2, clock.time()
    await asyncio.sleep(1)
    result = await probe.probe()
    assert (result.outcome, result.wait) == (ERROR, Wait(1.0, 30.0))
    heartbeats.beat("api")
    assert (await probe.probe()).outcome is PASS
    processes.pid, processes.started_at = 3, clock.time()
    heartbeats.beat("api")
    await asyncio.sleep(1)
    assert (await probe.probe()).outcome is PASS, "the new one had reported before the first look at it"
    processes.pid, processes.started_at = 4, clock.time()
    await asyncio.sleep(31)
    assert (await probe.probe()).outcome is FAIL


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("http", {"url": "http://127.0.0.1:1/", "method": "GET", "headers": {}, "expect_status": (200,)}),
        ("heartbeat", {"ttl_s": 30.0}),
    ],
)
async def test_no_probe_waits_for_a_process_that_has_ended(kind, more):
    off = {"expect_body": None, "max_latency_ms": None, "max_redirects": 0, "min_certificate_days": None}
    settings = SimpleNamespace(kind=kind, timeout_ms=500, verify_tls=True, **off, **more)
    beats = Heartbeats(SystemClock())
    beats.beat("api")
    ended = build_probe(settings, context(processes=Supervised(exit_code=1), heartbeats=beats))
    result = await ended.probe()
    assert (ended.kind, result.outcome, result.detail) == (kind, FAIL, "its process ended with code 1")
    running = build_probe(settings, context(processes=Supervised(pid=1), heartbeats=beats))
    assert "process" not in (await running.probe()).detail


@pytest.mark.parametrize(
    ("text", "outcome"),
    [(str(os.getpid()), PASS), ("4194304999", FAIL), ("four", FAIL), ("-1", FAIL), ("0", FAIL), (None, FAIL)],
)
async def test_a_pid_file_must_name_a_process_that_exists(tmp_path, text, outcome):
    path = tmp_path / "pid"
    if text is not None:
        path.write_text(text)
    assert (await PidfileProbe(str(path)).probe()).outcome is outcome


async def test_a_process_probe_asks_the_supervisor():
    status = ProcessStatus("api", running=False, pid=None, started_at=None, restarts=0, exit_code=-9)
    processes = SimpleNamespace(names=("api",), get_status=lambda name: status)
    settings = SimpleNamespace(kind="process", timeout_ms=500, pidfile=None, max_rss_mb=None)
    result = await build_probe(settings, context(processes=processes)).probe()
    assert (result.outcome, "was ended by signal 9" in result.detail) == (FAIL, True)
    with pytest.raises(ConfigurationError, match=r"services\.api.*supervises"):
        build_probe(settings, context())


@pytest.mark.parametrize(
    "extra",
    [{"expect_body": "ok"}, {"max_latency_ms": 5.0}, {"max_redirects": 3}, {"min_certificate_days": 7.0}],
)
def test_what_the_local_http_probe_cannot_do_is_refused_by_name(extra):
    with pytest.raises(ConfigurationError, match=f"{next(iter(extra))}.*needs the backend"):
        build_probe(SimpleNamespace(**HTTP | {"url": "http://127.0.0.1/"} | extra), context())


def test_an_unknown_kind_is_refused_with_the_kinds_that_are_there():
    with pytest.raises(ConfigurationError, match=r"'icmp' needs the backend.*heartbeat"):
        build_probe(SimpleNamespace(kind="icmp", timeout_ms=1), context())


async def test_every_supported_kind_is_built_from_settings():
    async def check(**arguments: object) -> bool:
        return arguments == {"shelf": 3}

    common = {"timeout_ms": 2000}
    settings = [
        SimpleNamespace(**HTTP, url="https://127.0.0.1:1/"),
        SimpleNamespace(kind="tcp", host="127.0.0.1", port=1, **common),
        SimpleNamespace(kind="exec", command=("true",), env={}, cwd=None, expect_output=None, **common),
        SimpleNamespace(kind="process", pidfile="/nonexistent/pid", max_rss_mb=None, **common),
        SimpleNamespace(kind="heartbeat", ttl_s=30, **common),
        SimpleNamespace(kind="callable", target="shop.check", arguments={"shelf": 3}, **common),
    ]
    outcomes = {}
    for each in settings:
        probe = build_probe(each, context(load=lambda name: check))
        outcomes[each.kind] = (await probe.probe()).outcome
        await probe.close()
    assert outcomes == {
        "http": FAIL,
        "tcp": FAIL,
        "exec": PASS,
        "process": FAIL,
        "heartbeat": ERROR,
        "callable": PASS,
    }
    assert set(outcomes) == SUPPORTED


async def test_a_check_that_is_cancelled_is_not_swallowed():
    async def hang() -> bool:
        await asyncio.sleep(60)
        return True

    task = asyncio.create_task(FunctionProbe(hang).probe())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_probes_need_the_standard_library_alone():
    loaded = {name.partition(".")[0] for name in _modules_of("modules.local.probes, modules.local.actions")}
    assert not loaded & {"pydantic", "aiohttp", "backend", "prometheus_client"}


def _modules_of(names: str) -> list[str]:
    code = f"import sys, {names}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
