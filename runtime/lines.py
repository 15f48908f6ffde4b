"""Output without a terminal: one structured line an event, and log records of libraries in the same shape.

Text is for people and grep: time, level, service, kind and a sentence, in columns, without colours. JSON is
for collectors: one object a line, with the event's own fields. A line never holds a line break or a control
character from outside, so that nobody can forge a second line (CWE-117). When the reader of the pipe has
gone, output ends quietly and the program goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from modules.contracts.clock import Clock
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    BudgetChanged,
    ComponentFailed,
    Event,
    FlappingChanged,
    HealthChanged,
    IncidentOpened,
    ProbeErred,
    ProcessExited,
    RepairEnded,
    RepairGaveUp,
    RuntimeStateChanged,
)
from modules.contracts.health import HealthStatus, RungOutcome
from modules.contracts.slo import SLOStatus
from runtime.settings import LogSettings

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

_RANK: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SERVICE_WIDTH = 12
_KIND_WIDTH = 21  # of runtime_state_changed, the longest


def level_of(event: Event) -> Level:
    """How much an event matters: error asks for a person, warning is not as it should be, info is the rest."""
    match event:
        case (
            RepairGaveUp()
            | AlertFailed()
            | ComponentFailed()
            | AlertFired(severity="page")
            | BudgetChanged(current=SLOStatus.VIOLATED)
            | RuntimeStateChanged(current="failed")
        ):
            return "error"
        case (
            HealthChanged(current=HealthStatus.UNHEALTHY | HealthStatus.DEGRADED)
            | ProbeErred()
            | IncidentOpened()
            | AlertFired()
            | BudgetChanged(current=SLOStatus.AT_RISK)
            | FlappingChanged(flapping=True)
            | ProcessExited(expected=False)
        ):
            return "warning"
        case RepairEnded(outcome=outcome) if outcome not in (RungOutcome.DONE, RungOutcome.DRY_RUN):
            return "warning"
    return "info"


@dataclass(frozen=True, slots=True)
class _Line:
    """What every line holds; ``fields`` are of its kind alone."""

    at: float
    level: Level
    kind: str
    service: str | None
    message: str
    fields: Mapping[str, Any]

    def as_text(self) -> str:
        return (
            f"{self._time} {self.level:<7} {_printable(self.service or '-'):<{_SERVICE_WIDTH}}"
            f" {self.kind:<{_KIND_WIDTH}} {_printable(self.message)}"
        )

    def as_json(self) -> str:
        head = {
            "time": self._time,
            "level": self.level,
            "kind": self.kind,
            "service": self.service,
            "message": self.message,
        }
        own = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in self.fields.items()}
        return json.dumps(head | own, default=str, separators=(",", ":"))

    @property
    def _time(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LineWriter:
    """Writes events of at least ``level`` to ``stream``; give ``listen`` to the bus.

    ``clock`` dates an event that was not published. Writing never raises for a reader that has gone or a
    disk that is full.
    """

    def __init__(self, stream: TextIO, *, format: Format, level: Level, clock: Clock) -> None:
        self._output = _Output(stream)
        self._format = format
        self._least = _RANK[level]
        self._clock = clock

    def listen(self, event: Event) -> None:
        level = level_of(event)
        if _RANK[level] < self._least or self._output.ended:
            return
        record = event.as_dict()
        at, kind = record.pop("at") or self._clock.time(), record.pop("kind")
        service, message = record.pop("service"), record.pop("message")
        line = _Line(at, level, kind, service, message, record)
        self._output.write(line.as_text() if self._format == "text" else line.as_json())


class LineFormatter(logging.Formatter):
    """Gives a log record the shape of an event's line; its logger stands where the kind does, JSON says ``log``."""

    def __init__(self, format: Format) -> None:
        super().__init__()
        self._format = format

    def format(self, record: logging.LogRecord) -> str:
        level = next(level for level, rank in reversed(_RANK.items()) if rank <= max(record.levelno, logging.DEBUG))
        exception = self.formatException(record.exc_info) if record.exc_info else None
        if self._format == "json":
            fields = {"logger": record.name} | ({"exception": exception} if exception else {})
            return _Line(record.created, level, "log", None, record.getMessage(), fields).as_json()
        line = _Line(record.created, level, record.name, None, record.getMessage(), {}).as_text()
        # A traceback is for people: readable, and indented so that it cannot pass for a line of its own.
        return "\n    ".join([line, *map(_printable, (exception or "").splitlines())])


class LineHandler(logging.Handler):
    """Writes log records to ``stream`` as lines."""

    def __init__(self, stream: TextIO, *, format: Format) -> None:
        super().__init__()
        self._output = _Output(stream)
        self.setFormatter(LineFormatter(format))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.write(self.format(record))
        except Exception:  # logging's own rule: a record that cannot be written never harms who logged it
            self.handleError(record)


def configure_logging(settings: LogSettings, stream: TextIO) -> None:
    """Send every log record of the program to ``stream`` in the shape of the lines; may be called again."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, LineHandler):
            root.removeHandler(handler)
    root.addHandler(LineHandler(stream, format=settings.format))
    root.setLevel(_RANK[settings.level])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # A line for each scrape and each event stream says nothing that /metrics does not.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # Below info, urllib3 quotes whole addresses with the tokens in them, and asyncio only its selector.
    for name in ("urllib3", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.INFO, _RANK[settings.level]))


class _Output:
    """A stream that takes whole lines and ends quietly with its reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.ended = False

    def write(self, line: str) -> None:
        if self.ended:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self.ended = True
            self._point_nowhere()
        except ValueError:  # the stream was closed
            self.ended = True
        except OSError:  # a full disk may have room again for the next line
            pass

    def _point_nowhere(self) -> None:
        # What is still buffered would fail once more when the interpreter flushes it at its end, with exit code 120.
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
