"""The live view in a terminal: the services, their promises, the last events, and what to try next.

Drawn below whatever else is written: log records scroll past above it, and after the end its last state
stays on the screen. It only looks (``runtime.view.look`` and the event bus), so it can be left out at will.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import logging
import select
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.events import ComponentFailed
from runtime.hints import admin_address, hints
from runtime.parts import Parts
from runtime.view import ProcessView, RepairView, RuntimeView, ServiceView, look

__all__ = ["TerminalView", "hints"]

EVENTS = 8
"""The newest so many events are shown, where there is room."""
_WIDE = 110  # columns from which the last check's finding has a column of its own
_SYMBOLS = {
    "healthy": ("●", "+", "green"),
    "starting": ("◌", "~", "cyan"),
    "degraded": ("▲", "!", "yellow"),
    "unhealthy": ("✖", "X", "bold red"),
    "unknown": ("?", "?", "bright_black"),
}
_SLO_STYLES = {"met": "green", "at_risk": "yellow", "violated": "bold red", "no_data": "bright_black"}
_WORST_FIRST = ("unhealthy", "degraded", "unknown", "starting", "healthy")
_EVENT_STYLES = {
    "incident_opened": "red",
    "repair_gave_up": "bold red",
    "component_failed": "bold red",
    "alert_fired": "red",
    "incident_closed": "green",
    "alert_resolved": "green",
    "repair_started": "yellow",
    "repair_ended": "yellow",
}


class TerminalView:
    """A component that draws ``parts`` every ``refresh_s`` seconds, and seldom when drawing is slow.

    ``address`` is asked for the admin API's, where it is not the configured one (port 0). A terminal that takes
    no output (Ctrl-S) is left alone, so that it never holds up the runtime.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        console: Console | None = None,
        refresh_s: float = 0.25,
        address: Callable[[], str] | None = None,
    ) -> None:
        self._parts = parts
        self._console = console or Console()
        self._refresh_s = refresh_s
        self._address = address or partial(admin_address, parts)
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._size = self._console.size
        self._redirected: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._problem: str | None = None

    @property
    def status(self) -> ComponentStatus:
        if self._live is None:
            return ComponentStatus(ComponentState.CREATED if self._task is None else ComponentState.STOPPED)
        if self._problem:
            return ComponentStatus(ComponentState.DEGRADED, self._problem)
        return ComponentStatus(ComponentState.RUNNING)

    async def start(self) -> None:
        """Begin to draw."""
        if self._live is not None:
            return
        if self._console.options.ascii_only and isinstance(self._console.file, io.TextIOWrapper):
            self._console.file.reconfigure(errors="replace")  # what a service says may be any character
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        atexit.register(self._restore)  # however the program ends, the cursor comes back
        streams = sys.stdout, sys.stderr
        try:
            self._live.start()
            self._redirect_logging(dict(zip(streams, (sys.stdout, sys.stderr), strict=True)))
            self._draw()
        except BaseException:
            self._restore()
            raise
        self._task = asyncio.create_task(self._run(), name="terminal-view")

    async def stop(self) -> None:
        """Draw the last state and give the terminal back; safe without start, and twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._live is not None:
            self._draw()
            self._restore()

    async def _run(self) -> None:
        clock = self._parts.clock
        while True:
            began = clock.monotonic()
            self._draw()
            # At most a tenth of the loop's time, also with a thousand services.
            await clock.sleep(max(self._refresh_s, 10 * (clock.monotonic() - began)))

    def _draw(self) -> None:
        """Draw once. A fault in it is published once, and neither ends the view nor the program."""
        if self._live is None or not _takes_output(self._console):
            return
        try:
            if self._console.size != self._size:  # a terminal that was resized has wrapped what stands there
                self._size = self._console.size
                self._console.clear()
            self._live.update(self.render(), refresh=True)
            self._problem = None
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if problem != self._problem:
                self._problem = problem
                self._parts.events.publish(ComponentFailed(component="terminal view", detail=problem))

    def _restore(self) -> None:
        """Give back cursor, standard streams and log handlers; safe twice."""
        atexit.unregister(self._restore)
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected.clear()
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _redirect_logging(self, taken_over: dict[Any, Any]) -> None:
        """Let log handlers write above the view: they hold the streams from before it took these over."""
        for handler in _stream_handlers():
            stream = handler.stream
            if stream in taken_over and taken_over[stream] is not stream:
                handler.setStream(taken_over[stream])
                self._redirected.append((handler, stream))

    def render(self) -> RenderableType:
        """Return one frame, cut to the console's size."""
        view = look(self._parts)
        height = self._console.size.height - 1  # the cursor's own line
        header = self._header(view)
        tips = [_line(hint, "bright_black") for hint in hints(self._parts, self._address())]
        left = height - len(header) - 1  # the table's head
        cut = len(view.services) > left
        shown = max(1, left - 1) if cut else len(view.services)
        left -= shown + cut
        tips = tips if left >= len(tips) + 3 else []  # with room for a blank line each and an event
        left -= len(tips) + 1 if tips else 0
        events = self._parts.events.recent(limit=max(0, min(EVENTS, left - 1)))
        parts: list[RenderableType] = [*header, self._table(view, shown)]
        if cut:
            parts.append(_line(f"  and {len(view.services) - shown} more services, none of them worse", "bright_black"))
        if events:
            parts.append(Text())
            parts.extend(
                _line(f"{datetime.fromtimestamp(event.at):%H:%M:%S} {event.message}", _EVENT_STYLES.get(event.kind, ""))
                for event in events
            )
        if tips:
            parts.extend([Text(), *tips])
        return Group(*parts)

    def _header(self, view: RuntimeView) -> list[Text]:
        backend = "on" if view.backend.available else "off"
        if view.backend.requested == "off":
            backend = "off (as asked)"
        versions = ", ".join(f"{name} {version}" for name, version in view.versions.items())
        state_style = {"running": "bold green", "starting": "cyan", "draining": "yellow"}.get(view.state, "bold red")
        first = Text.assemble(
            ("selfright ", "bold"),
            f"{view.version}  ",
            (_clean(view.deployment), "bold"),
            "  ",
            (f"{view.state} {_duration(view.now - view.since)}", state_style),
            ("  dry run", "yellow") if view.dry_run else "",
            (f"  {view.open_incidents} incident{'s' * (view.open_incidents > 1)} open", "bold red")
            if view.open_incidents
            else "",
        )
        second = _line(f"{versions}, backend {backend}  {self._address()}", "bright_black")
        return [_one_line(first), second, *(_line(note, "yellow") for note in view.notes[:2])]

    def _table(self, view: RuntimeView, shown: int) -> Table:
        wide = self._console.size.width >= _WIDE
        ascii_only = self._console.options.ascii_only
        table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold bright_black")
        table.add_column("service", no_wrap=True, max_width=20, overflow="ellipsis")
        table.add_column("status", no_wrap=True, width=11)
        table.add_column("latency", no_wrap=True, width=7, justify="right")
        table.add_column("SLO", no_wrap=True, width=8)
        table.add_column("budget", no_wrap=True, width=6, justify="right")
        table.add_column("process", no_wrap=True, max_width=11)
        table.add_column("repair", no_wrap=True, ratio=1, overflow="ellipsis")
        if wide:
            table.add_column("last check", no_wrap=True, ratio=1, overflow="ellipsis")
        services = sorted(view.services, key=lambda service: _WORST_FIRST.index(service.status))
        chosen = {service.name for service in services[:shown]}
        for service in view.services:
            if service.name in chosen:
                table.add_row(*self._row(service, view.now, wide=wide, ascii_only=ascii_only))
        return table

    def _row(self, service: ServiceView, now: float, *, wide: bool, ascii_only: bool) -> Iterator[Text]:
        symbol, plain, style = _SYMBOLS[service.status]
        yield Text(_clean(service.name))
        yield Text(f"{plain if ascii_only else symbol} {service.status}", style)
        yield Text("-" if service.latency_ms is None else _milliseconds(service.latency_ms))
        slo = service.slo
        yield Text(slo.status.replace("_", " "), _SLO_STYLES[slo.status]) if slo else Text("-")
        left = slo.error_budget_remaining if slo else None
        yield Text("-") if left is None else Text(f"{max(left, -999):.0f} %", "red" if left <= 0 else "")
        yield Text(_process(service.process))
        yield _situation(service, now)
        if wide:
            yield Text(_clean(service.detail), "bright_black")


def _situation(service: ServiceView, now: float) -> Text:
    """What is being done about a service, or why nothing is."""
    if service.affected_by:
        return Text(f"affected by {_clean(', '.join(service.affected_by))}", "yellow")
    if service.repair is not None and service.repair.phase != "idle":
        return Text(_repair(service.repair, now), "bold red" if service.repair.phase == "gave_up" else "yellow")
    if service.paused or (service.repair and service.repair.paused):
        return Text("paused", "yellow")
    if service.flapping:
        return Text("flapping", "yellow")
    return Text("" if service.status == "healthy" else _clean(service.detail), "bright_black")


def _repair(repair: RepairView, now: float) -> str:
    phase = repair.phase.replace("_", " ")
    if repair.phase == "waiting" and repair.next_at is not None:
        phase = f"waiting {max(0.0, repair.next_at - now):.0f} s"
    rung = min(repair.rung, len(repair.rungs) - 1)
    action = f" {rung + 1}/{len(repair.rungs)} {_clean(repair.rungs[rung])}" if repair.rungs else ""
    return f"{phase}{action}{', paused' if repair.paused else ''}"


def _process(process: ProcessView | None) -> str:
    if process is None:
        return "-"
    if not process.running:
        return "not run" if process.exit_code is None else f"exit {process.exit_code}"
    return f"{process.pid}" + (f" x{process.restarts}" if process.restarts else "")


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms"[:7] if value < 100 else f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.0f} s"


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _clean(text: str) -> str:
    """Without control characters: what a service answered must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _line(text: str, style: str = "") -> Text:
    return _one_line(Text(_clean(text), style))


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    for name in ["", *logging.root.manager.loggerDict]:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                yield handler


def _takes_output(console: Console) -> bool:
    try:
        return bool(select.select([], [console.file.fileno()], [], 0)[1])
    except (AttributeError, io.UnsupportedOperation, OSError, ValueError):  # not a real file: nothing can hold it up
        return True
