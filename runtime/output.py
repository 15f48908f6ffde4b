"""What a person or a log collector sees of a running deployment: the live view, or one line an event."""

from __future__ import annotations

import sys

from modules.contracts.events import Event, RuntimeStateChanged
from runtime.assembly import Deployment
from runtime.hints import hints
from runtime.lines import LineWriter, configure_logging


def attach_output(deployment: Deployment) -> None:
    """Choose between the live view and lines, and attach it to the deployment's bus or graph."""
    parts = deployment.parts
    settings = parts.settings.log
    if settings.view == "live" or (settings.view == "auto" and sys.stdout.isatty()):
        from runtime.terminal import TerminalView  # noqa: PLC0415  only a terminal pays for it

        # Nothing requires it and it requires nothing that stops early, so that the shutdown is seen too.
        deployment.graph.add("terminal", TerminalView(parts, address=lambda: deployment.address), requires=("state",))
        return
    configure_logging(settings, sys.stdout)
    writer = LineWriter(sys.stdout, format=settings.format, level=settings.level, clock=parts.clock)
    parts.events.listen(writer.listen)

    def say_what_to_try(event: Event) -> None:
        if isinstance(event, RuntimeStateChanged) and event.current == "running" and settings.format == "text":
            for hint in hints(parts, deployment.address):
                print(f"  {hint}", flush=True)  # noqa: T201  these lines are for a person to act on

    parts.events.listen(say_what_to_try)
