"""The live view, drawn on a recording console over parts made by hand."""

import asyncio
import atexit
import io
import logging
import os
import pty
import re
import sys
import termios
from types import SimpleNamespace

import pytest
from rich.console import Console

from modules.contracts.clock import LoopClock, SystemClock
from modules.contracts.component import ComponentState
from modules.contracts.events import ComponentFailed, EventBus, HealthChanged, IncidentOpened
from modules.contracts.health import (
    HealthCheckResult,
    HealthStatus,
    ProbeOutcome,
    ProcessStatus,
    RepairPhase,
    RepairStatus,
    ServiceHealth,
)
from modules.contracts.slo import SLOReport, SLOStatus
from runtime.hints import admin_address
from runtime.parts import Parts
from runtime.settings import RootSettings
from runtime.simulation.loop import virtual_time
from runtime.terminal import TerminalView, hints

NOW = 1_700_000_000.0
ADDRESS = "http://127.0.0.1:8420"


class Monitor:
    def __init__(self, *health: ServiceHealth) -> None:
        self._health = {one.name: one for one in health}

    @property
    def services(self):
        return tuple(self._health)

    def get_status(self, name):
        return self._health[name]


class Processes:
    def __init__(self, **status: ProcessStatus) -> None:
        self._status = status

    @property
    def names(self):
        return tuple(self._status)

    def get_status(self, name):
        return self._status[name]


class Repairs(Processes):
    services = Processes.names


def health(name, status=HealthStatus.HEALTHY, latency=3.2, detail="status 200", **more) -> ServiceHealth:
    last = HealthCheckResult(name, True, ProbeOutcome.PASS, status, latency, detail, NOW)
    known = {"depends_on": (), "affected_by": (), "flapping": False, "paused": False, **more}
    return ServiceHealth(name, status, NOW, True, last, consecutive_passes=1, consecutive_failures=0, **known)


def report(status: SLOStatus, left: float | None) -> SLOReport:
    return SLOReport("x", 99.9, 2_592_000, 10, 10, 100.0, left, status)


def configuration(**more) -> RootSettings:
    def service(port, **rest):
        probe = {"kind": "http", "url": f"http://127.0.0.1:{port}/healthz?deep=1"}
        return {"probe": probe, "process": {"command": ["true"]}, **rest}

    services = {
        "api": service(8432, depends_on=["store"]),
        "store": service(8431),
        "worker": {"process": {"command": ["true"]}, "depends_on": ["store"]},
    }
    return RootSettings.model_validate_json(
        RootSettings(selfhealing={"version": "v2"}).model_dump_json(by_alias=True)
    ).model_copy(update={"services": RootSettings.model_validate({"services": _tupled(services)}).services, **more})


def _tupled(value):
    if isinstance(value, dict):
        return {key: _tupled(one) for key, one in value.items()}
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def parts_of(*services: ServiceHealth, clock=None, settings=None, processes=(), repairs=(), slo=(), **more) -> Parts:
    clock = clock or SimpleNamespace(time=lambda: NOW + 75, monotonic=lambda: 75.0)
    return Parts(
        settings=settings or configuration(),
        clock=clock,
        events=EventBus(clock),
        store=None,
        monitor=Monitor(*services),
        processes=Processes(**dict(processes)),
        heartbeats=None,
        repair=Repairs(**dict(repairs)),
        slo=dict(slo).get,
        backend_available=True,
        state="running",
        state_since=NOW,
        **more,
    )


def demo() -> Parts:
    return parts_of(
        health("store", HealthStatus.UNHEALTHY, 1000.4, "no answer within 1000 ms"),
        health("api", HealthStatus.UNHEALTHY, 502.0, "status 503", affected_by=("store",)),
        health("worker", latency=0.1, detail="heartbeat 0.4 s ago"),
        processes={
            "store": ProcessStatus("store", True, 4711, NOW, 2, -9),
            "api": ProcessStatus("api", True, 4712, NOW, 0, None),
            "worker": ProcessStatus("worker", False, None, NOW, 0, 1),
        },
        repairs={"store": RepairStatus("store", RepairPhase.VERIFYING, "i1", NOW, 0, ("restart store", "page"), 1)},
        slo={
            "store": report(SLOStatus.VIOLATED, -35.4),
            "api": report(SLOStatus.AT_RISK, 12.0),
            "worker": report(SLOStatus.NO_DATA, None),
        },
    )


def draw(parts: Parts, width: int = 80, height: int = 30, **more) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, record=True, **more)
    console.print(TerminalView(parts, console=console).render())
    return console.export_text()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("width", [80, 120])
def test_each_service_has_a_row_with_its_whole_story(width):
    text = draw(demo(), width)
    assert re.search(r"✖ unhealthy +1000 ms violated +-35 % +4711 x2 +verifying 1/2 restart store", row(text, "store"))
    assert re.search(r"✖ unhealthy +502 ms at risk +12 % +4712 +affected by store", row(text, "api"))
    assert re.search(r"● healthy +0.1 ms no data +- exit 1", row(text, "worker"))
    assert ("no answer within 1000 ms" in text) is (width == 120)
    assert all(len(line) <= width for line in text.splitlines())


def test_the_header_says_what_runs_since_when_and_where():
    lines = draw(demo()).splitlines()
    assert re.search(r"^selfright \S+  demo  running 1 min 15 s  1 incident open", lines[0])
    assert lines[1].rstrip() == "selfhealing v2, monitoring v2, backend on  http://127.0.0.1:8420"


def test_a_dry_run_and_notes_of_the_start_stand_in_the_header():
    settings = configuration()
    settings = settings.model_copy(update={"selfhealing": settings.selfhealing.model_copy(update={"dry_run": True})})
    text = draw(parts_of(health("api"), settings=settings, notes=["the state file was set aside"]))
    assert "dry run" in text.splitlines()[0]
    assert "the state file was set aside" in text


def test_the_last_events_are_told_with_their_times():
    parts = demo()
    for number in range(12):
        parts.events.publish(HealthChanged(service="api", previous="healthy", current=f"state{number}"))
    text = draw(parts, 100, 40)
    told = re.findall(r"^\d\d:\d\d:\d\d api is state(\d+)", text, re.MULTILINE)
    assert told == [str(number) for number in range(4, 12)]


@pytest.mark.parametrize("height", [4, 6, 8, 10, 14, 18, 24])
def test_a_frame_fits_the_height_and_the_worst_services_stay(height):
    names = [f"svc{number:03}" for number in range(300)]
    parts = parts_of(*(health(name) for name in names), health("broken", HealthStatus.UNHEALTHY))
    parts.events.publish(IncidentOpened(service="broken", incident="i", reason="r"))
    text = draw(parts, 80, height)
    assert "broken" in text
    assert len(text.rstrip("\n").splitlines()) <= max(height - 1, 5)
    if height >= 8:
        assert re.search(r"and \d+ more services", text)


def test_control_characters_of_a_service_never_reach_the_terminal():
    parts = parts_of(health("api", HealthStatus.DEGRADED, detail="\x1b[2Jgone\r\n\x07[red]x"))
    parts.events.publish(IncidentOpened(service="api", incident="i", reason="\x1b]0;title\x07 [bold]y"))
    text = draw(parts, 120)
    assert not set(text) & {"\x1b", "\x07", "\r"}
    assert "[red]x" in text, "what a service says is no markup"
    assert "[bold]y" in text


@virtual_time
async def test_a_console_without_unicode_gets_plain_symbols():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    parts = demo()
    parts.clock = LoopClock()
    parts.notes.append("größer")
    view = TerminalView(parts, console=Console(file=file, width=80, height=30, force_terminal=True))
    await view.start()
    await view.stop()
    file.flush()
    assert b"X unhealthy" in file.buffer.getvalue()
    assert b"gr??er" in file.buffer.getvalue()
    assert not parts.events.recent()


def test_repair_waits_and_surrenders_are_told():
    parts = parts_of(
        health("a", HealthStatus.UNHEALTHY),
        health("b", HealthStatus.UNHEALTHY),
        health("c", paused=True),
        health("d", HealthStatus.DEGRADED, flapping=True),
        repairs={
            "a": RepairStatus("a", RepairPhase.WAITING, "i", NOW, 1, ("restart a", "page"), 1, NOW + 85),
            "b": RepairStatus("b", RepairPhase.GAVE_UP, "i", NOW, 2, ("restart b", "page"), 4),
        },
    )
    text = draw(parts, 100)
    assert "waiting 10 s 2/2 page" in row(text, "a")
    assert "gave up 2/2 page" in row(text, "b")
    assert row(text, "c").rstrip().endswith("paused")
    assert row(text, "d").rstrip().endswith("flapping")


def test_the_hints_break_the_service_that_most_others_need_by_its_own_address():
    lines = hints(demo(), ADDRESS)
    assert any("curl -X POST 'http://127.0.0.1:8431/_fault?kind=hang'" in line for line in lines)
    assert any(f"{ADDRESS}/docs" in line for line in lines)
    assert any(f"{ADDRESS}/api/v1/status" in line for line in lines)
    assert not any("+selfhealing" in line for line in lines)


def test_outside_the_demo_nobody_is_told_to_break_anything():
    parts = demo()
    parts.deployment = "shop"
    assert not any("_fault" in line for line in hints(parts, ADDRESS))


def test_monitoring_alone_hints_at_healing():
    parts = demo()
    off = parts.settings.selfhealing.model_copy(update={"version": "none"})
    parts.settings = parts.settings.model_copy(update={"selfhealing": off})
    assert any("run +selfhealing=v2" in line for line in hints(parts, ADDRESS))


def test_an_ipv6_address_is_bracketed():
    parts = demo()
    server = parts.settings.server.model_copy(update={"host": "::1", "port": 9})
    parts.settings = parts.settings.model_copy(update={"server": server})
    assert admin_address(parts) == "http://[::1]:9"


def terminal(**more) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=30, **more)


@virtual_time
async def test_the_view_draws_again_every_refresh_and_restores_the_terminal():
    parts = demo()
    parts.clock = LoopClock(NOW + 60)
    console = terminal()
    view = TerminalView(parts, console=console, refresh_s=0.5, address=lambda: "http://127.0.0.1:1")
    await view.stop()
    await view.start()
    assert view.status.state is ComponentState.RUNNING
    await asyncio.sleep(2.1)
    drawn = console.file.getvalue()
    assert [f"1 min {second} s" in drawn for second in range(4)] == [True, True, True, False]
    parts.state = "stopped"
    await view.stop()
    await view.stop()
    drawn = console.file.getvalue()
    assert "stopped 1 min 2 s" in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1, "the cursor is hidden and shown once"
    assert "http://127.0.0.1:1" in drawn
    assert view.status.state is ComponentState.STOPPED


@virtual_time
async def test_a_fault_in_drawing_is_published_once_and_the_view_goes_on():
    parts = demo()
    parts.clock = LoopClock()
    good, parts.monitor = parts.monitor, None
    view = TerminalView(parts, console=terminal(), refresh_s=0.5)
    await view.start()
    await asyncio.sleep(3)
    assert [event.component for event in parts.events.recent() if isinstance(event, ComponentFailed)] == [
        "terminal view"
    ]
    assert view.status.state is ComponentState.DEGRADED
    parts.monitor = good
    await asyncio.sleep(1)
    assert view.status.state is ComponentState.RUNNING
    await view.stop()


@virtual_time
async def test_log_records_are_written_above_the_view_and_the_handler_is_given_back(monkeypatch):
    console = terminal()
    monkeypatch.setattr(sys, "stderr", before := io.StringIO())
    handler = logging.StreamHandler()
    log = logging.getLogger("tests.terminal")
    log.addHandler(handler)
    parts = demo()
    parts.clock = LoopClock()
    view = TerminalView(parts, console=console)
    try:
        await view.start()
        log.warning("the disk is nearly full")
        await view.stop()
        log.warning("after the end")
    finally:
        log.removeHandler(handler)
    assert "the disk is nearly full" in console.file.getvalue()
    assert before.getvalue() == "after the end\n"
    assert sys.stderr is before


@virtual_time
async def test_a_resized_terminal_is_cleared_before_the_next_frame():
    parts = demo()
    parts.clock = LoopClock()
    console = terminal()
    view = TerminalView(parts, console=console, refresh_s=0.5)
    await view.start()
    await asyncio.sleep(0.6)
    assert "\x1b[2J" not in console.file.getvalue()
    console.size = (60, 20)
    await asyncio.sleep(0.6)
    assert console.file.getvalue().count("\x1b[2J") == 1
    await view.stop()


async def test_a_terminal_that_takes_no_output_does_not_hold_up_the_loop():
    outer, inner = pty.openpty()
    with os.fdopen(inner, "w") as file:
        parts = demo()
        parts.clock = SystemClock()
        view = TerminalView(parts, console=Console(file=file, force_terminal=True), refresh_s=0.01)
        await view.start()
        os.set_blocking(outer, False)
        while read(outer):
            pass
        termios.tcflow(inner, termios.TCOOFF)
        async with asyncio.timeout(2):
            await asyncio.sleep(0.1)
        assert not read(outer)
        termios.tcflow(inner, termios.TCOON)
        await asyncio.sleep(0.1)
        assert "selfright" in read(outer).decode()
        await view.stop()
    os.close(outer)


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except BlockingIOError:
        return b""


@virtual_time
async def test_a_program_that_ends_without_stop_gives_the_cursor_back(monkeypatch):
    at_exit = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    parts = demo()
    parts.clock = LoopClock()
    console = terminal()
    await TerminalView(parts, console=console).start()
    for function in at_exit:
        function()
    assert console.file.getvalue().endswith("\x1b[?25h")
