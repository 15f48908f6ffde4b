"""Lines without a terminal: their shape, their level, and what happens when the reader goes."""

import io
import json
import logging
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.contracts import events as contract
from modules.contracts.clock import SystemClock
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    BudgetChanged,
    ComponentFailed,
    Event,
    FlappingChanged,
    HealthChanged,
    IncidentClosed,
    IncidentOpened,
    ProbeErred,
    ProcessExited,
    ProcessStarted,
    RepairEnded,
    RepairGaveUp,
    RuntimeStateChanged,
)
from runtime.lines import LineFormatter, LineHandler, LineWriter, configure_logging, level_of
from runtime.settings import LogSettings

ROOT = Path(__file__).parents[2]
AT = 1_795_428_000.123
UNHEALTHY = HealthChanged(service="api", previous="healthy", current="unhealthy", detail="no answer", at=AT, id=7)


def written(*events, format="text", level="info"):
    stream = io.StringIO()
    writer = LineWriter(stream, format=format, level=level, clock=SystemClock())
    for event in events:
        writer.listen(event)
    return stream.getvalue()


def ended(outcome):
    return RepairEnded(
        service="api", incident="i", rung=0, action="restart", attempt=1, outcome=outcome, detail="", duration_s=1.0
    )


def budget(current):
    return BudgetChanged(service="api", previous="met", current=current, error_budget_remaining=3.0)


@pytest.fixture
def root_logger():
    """The root logger and uvicorn's, put back afterwards as they were."""
    names = (None, "uvicorn", "uvicorn.error", "uvicorn.access", "urllib3", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    yield loggers[0]
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


def test_a_text_line_holds_time_level_service_kind_and_a_sentence_in_columns():
    columns = "2026-11-23T10:00:00.123Z warning api          health_changed       "
    assert written(UNHEALTHY) == f"{columns} api is unhealthy (was healthy): no answer\n"


def test_the_columns_of_different_events_stand_under_each_other():
    lines = written(
        UNHEALTHY,
        RuntimeStateChanged(current="running"),
        RepairGaveUp(service="worker", incident="i", attempts=2, reason="x"),
    ).splitlines()
    assert {
        line.index(kind) for line, kind in zip(lines, ("health_", "runtime_state", "repair_gave"), strict=True)
    } == {46}
    assert {line.index(word, 50) for line, word in zip(lines, ("api is", "runtime is", "gave up"), strict=True)} == {68}


def test_a_json_line_holds_the_same_and_the_fields_of_the_event():
    assert json.loads(written(UNHEALTHY, format="json")) == {
        "time": "2026-11-23T10:00:00.123Z",
        "level": "warning",
        "kind": "health_changed",
        "service": "api",
        "message": "api is unhealthy (was healthy): no answer",
        "id": 7,
        "previous": "healthy",
        "current": "unhealthy",
        "detail": "no answer",
        "affected_by": [],
    }


def test_an_event_that_was_not_published_is_dated_now():
    line = json.loads(written(RuntimeStateChanged(current="running"), format="json"))
    assert abs(datetime.fromisoformat(line["time"]).timestamp() - SystemClock().time()) < 60


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (UNHEALTHY, "warning"),
        (HealthChanged(service="api", previous="healthy", current="degraded"), "warning"),
        (HealthChanged(service="api", previous="unhealthy", current="healthy"), "info"),
        (FlappingChanged(service="api", flapping=True, share=0.6), "warning"),
        (FlappingChanged(service="api", flapping=False, share=0.2), "info"),
        (ProbeErred(service="api", detail="no descriptors"), "warning"),
        (ProcessStarted(service="api", pid=1), "info"),
        (ProcessExited(service="api", pid=1, exit_code=-9, expected=False), "warning"),
        (ProcessExited(service="api", pid=1, exit_code=0, expected=True), "info"),
        (IncidentOpened(service="api", incident="i", reason="r"), "warning"),
        (IncidentClosed(service="api", incident="i", duration_s=1.0, actions=1), "info"),
        (ended("done"), "info"),
        (ended("dry_run"), "info"),
        (ended("failed"), "warning"),
        (ended("timed_out"), "warning"),
        (RepairGaveUp(service="api", incident="i", attempts=1, reason="r"), "error"),
        (budget("violated"), "error"),
        (budget("at_risk"), "warning"),
        (budget("met"), "info"),
        (AlertFired(alert="a", severity="page", summary="s"), "error"),
        (AlertFired(alert="a", severity="ticket", summary="s"), "warning"),
        (AlertFailed(alert="a", target="t", detail="d"), "error"),
        (ComponentFailed(component="monitor", detail="d"), "error"),
        (RuntimeStateChanged(current="failed"), "error"),
        (RuntimeStateChanged(current="running"), "info"),
    ],
)
def test_the_level_says_how_much_an_event_matters(event, level):
    assert level_of(event) == level


def test_less_than_the_least_level_is_not_written():
    healthy = HealthChanged(service="api", previous="unhealthy", current="healthy", at=AT)
    assert written(healthy, UNHEALTHY, level="warning") == written(UNHEALTHY)
    assert written(healthy, UNHEALTHY, level="error") == ""


def test_every_kind_of_event_fits_its_column():
    kinds = [kind.kind for kind in vars(contract).values() if isinstance(kind, type) and issubclass(kind, Event)]
    assert len(kinds) > 15
    assert max(map(len, kinds)) == 21


@given(detail=st.text(), service=st.text(min_size=1, max_size=20))
def test_whatever_a_service_says_it_stays_one_line_without_control_characters(detail, service):
    event = HealthChanged(service=service, previous="healthy", current="unhealthy", detail=detail, at=AT)
    for format in ("text", "json"):
        (line,) = written(event, format=format).splitlines()
        assert line.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in line)
        if format == "json":
            assert json.loads(line)["detail"] == detail


def test_escape_sequences_of_a_service_are_shown_and_not_obeyed():
    event = HealthChanged(service="api", previous="healthy", current="unhealthy", detail="\x1b[2J\nforged", at=AT)
    assert written(event).endswith(": \\x1b[2J\\nforged\n")


def test_a_number_that_json_does_not_know_becomes_null():
    line = written(FlappingChanged(service="api", flapping=True, share=float("nan"), at=AT), format="json")
    assert json.loads(line, parse_constant=pytest.fail)["share"] is None


def test_a_stream_that_knows_ascii_only_gets_escapes():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    LineWriter(stream, format="text", level="info", clock=SystemClock()).listen(
        HealthChanged(service="api", previous="healthy", current="unhealthy", detail="défaut", at=AT)
    )
    assert b"d\\xe9faut" in raw.getvalue()


def test_a_log_record_has_the_shape_of_an_event(root_logger):
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    logging.getLogger("runtime.graph").warning("slow %s", "start")
    line = stream.getvalue()
    assert line[24:] == " warning -            runtime.graph         slow start\n"
    assert datetime.fromisoformat(line[:24]).tzinfo is not None


def test_a_log_record_as_json_names_its_logger_and_keeps_its_traceback_in_one_line(root_logger):
    stream = io.StringIO()
    configure_logging(LogSettings(format="json"), stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("runtime.graph").exception("failed")
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["kind"], record["logger"], record["message"]) == (
        "error",
        "log",
        "runtime.graph",
        "failed",
    )
    assert record["exception"].endswith("ValueError: odd")


def test_a_traceback_in_text_is_indented_under_its_line(root_logger):
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert rest[-1] == "    ValueError: odd"
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize(
    ("rank", "level"), [(5, "debug"), (10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error")]
)
def test_a_log_record_has_one_of_the_four_levels(rank, level):
    record = logging.LogRecord("x", rank, "", 0, "m", None, None)
    assert json.loads(LineFormatter("json").format(record))["level"] == level


def test_logging_configured_twice_writes_once_and_keeps_the_handlers_of_others(root_logger):
    other = logging.NullHandler()
    root_logger.addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    configure_logging(LogSettings(), first)
    configure_logging(LogSettings(level="error"), second)
    logging.getLogger("x").warning("unseen")
    logging.getLogger("x").error("seen")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert other in root_logger.handlers


def test_requests_to_the_admin_api_are_not_logged_and_its_errors_are(root_logger):
    stream = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
    logging.getLogger("uvicorn").propagate = False
    configure_logging(LogSettings(level="debug"), stream)
    logging.getLogger("uvicorn.access").info("GET /metrics 200")
    logging.getLogger("uvicorn.error").error("cannot bind")
    (line,) = stream.getvalue().splitlines()
    assert "cannot bind" in line


def test_a_record_that_cannot_be_formatted_does_not_reach_who_logged_it(capsys):
    stream = io.StringIO()
    handler = LineHandler(stream, format="text")
    handler.handle(logging.LogRecord("x", logging.ERROR, "", 0, "%d", ("no number",), None))
    handler.handle(logging.LogRecord("x", logging.ERROR, "", 0, "next", None, None))
    assert stream.getvalue().endswith("next\n")
    assert "Logging error" in capsys.readouterr().err


class Failing(io.StringIO):
    def __init__(self, *errors):
        super().__init__()
        self.to_raise = list(errors)

    def write(self, text):
        if self.to_raise:
            raise self.to_raise.pop(0)
        return super().write(text)


def test_a_full_disk_costs_its_line_and_no_other():
    stream = Failing(OSError(28, "No space left on device"))
    writer = LineWriter(stream, format="text", level="info", clock=SystemClock())
    writer.listen(UNHEALTHY)
    writer.listen(UNHEALTHY)
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_once_the_reader_has_gone_nothing_is_written_any_more(error):
    stream = Failing(error)
    writer = LineWriter(stream, format="text", level="info", clock=SystemClock())
    writer.listen(UNHEALTHY)
    writer.listen(UNHEALTHY)
    assert stream.getvalue() == ""


PROGRAM = """
import logging, sys
from modules.contracts.clock import SystemClock
from modules.contracts.events import RuntimeStateChanged
from runtime.lines import LineWriter, configure_logging
from runtime.settings import LogSettings
configure_logging(LogSettings(), sys.stdout)
writer = LineWriter(sys.stdout, format="text", level="info", clock=SystemClock())
sys.stdin.readline()
for _ in range(3):
    writer.listen(RuntimeStateChanged(current="running"))
    logging.getLogger("x").error("still here")
sys.stderr.write("finished")
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_the_output_and_not_the_program(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=b"\n",
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        timeout=20,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"finished")
