"""What an SLO costs: a record, all windows of one objective, and its memory."""

from __future__ import annotations

import subprocess
import sys
import time
import timeit
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from prometheus_client import CollectorRegistry, Histogram

from backend.shared.monitoring.engine import SLOEngine
from backend.shared.monitoring.metrics import PrometheusCollector
from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.settings import (
    AlertingSettings,
    CalendarWindowSettings,
    ObjectiveSettings,
    RatioTimeslicesSettings,
    RollingWindowSettings,
    ThresholdIndicatorSettings,
)
from modules.contracts.clock import SystemClock
from modules.contracts.events import EventBus

CLOCK = SystemClock()
WINDOW_S = 30 * 86_400.0
OBJECTIVES = 200
MANY = 10_000
_LATENCY = ThresholdIndicatorSettings(kind="threshold", metric="latency", threshold=0.5)

Figure = tuple[str, str, str, str]


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The best of seven rounds of CPU time: what the call itself takes when nothing else disturbs it."""
    return min(timeit.repeat(call, number=calls, repeat=7, timer=time.process_time)) / calls * 1e6


def figure(name: str, measured: float, goal: float, unit: str, against: str = "") -> Figure:
    return name, f"{measured:,.2f} {unit}", against or f"at most {goal:g} {unit}", f"{measured / goal:.3f}"


def bytes_each() -> float:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    objectives = [Objective(f"api-{n}", objective=99.9, window_s=WINDOW_S, clock=CLOCK) for n in range(OBJECTIVES)]
    for objective in objectives:
        objective.record(True)
        objective.report()
    held = (tracemalloc.get_traced_memory()[0] - before) / OBJECTIVES
    tracemalloc.stop()
    return held


def build_engine() -> SLOEngine:
    return SLOEngine(clock=CLOCK, events=EventBus(CLOCK), alerting=AlertingSettings())


def resident_bytes() -> int:
    """Of this process, from Linux' own books."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def many_resident() -> tuple[float, float]:
    """Return the bytes that many objectives take, each with samples, and the seconds to evaluate them all once."""
    before = resident_bytes()
    engine = build_engine()
    for number in range(MANY):
        engine.watch_service(f"api-{number}", latency_ms=500, availability=99.9, window_days=30)
    for tracker in engine.trackers.values():
        tracker.record(True, value=1.0)
        tracker.record(False, value=2.0)
    took = microseconds(engine.evaluate, 1) / 1e6
    engine.reports()
    return resident_bytes() - before, took


def in_a_fresh_process() -> tuple[float, float]:
    code = f"import runpy; print(*runpy.run_path({__file__!r})['many_resident']())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    held, took = out.stdout.split()
    return float(held), float(took)


def engine_figures() -> list[Figure]:
    engine = build_engine()
    engine.define("plain", ObjectiveSettings(indicator=_LATENCY, objective=99.9))
    plain = microseconds(lambda: engine.observe_metric("latency", 0.1), 50_000)
    windows = (
        CalendarWindowSettings(kind="calendar", unit="month", time_zone="Europe/Berlin"),
        RollingWindowSettings(kind="rolling", days=30),
    )
    engine.define("month", ObjectiveSettings(indicator=_LATENCY, objective=99.9, windows=windows))
    slices = RatioTimeslicesSettings(kind="ratio_timeslices", slice_s=60)
    engine.define("slices", ObjectiveSettings(indicator=_LATENCY, objective=99.9, method=slices))
    three = microseconds(lambda: engine.observe_metric("latency", 0.1), 20_000)
    held, took = in_a_fresh_process()
    return [
        figure("SLO engine: one sample for one objective", plain, 2, "us"),
        figure("SLO engine: one sample for three, calendar and slices", three, 6, "us"),
        *(
            figure(f"SLO engine: report of {name!r}", microseconds(lambda n=name: engine.report(n), 3_000), 50, "us")
            for name in engine.names
        ),
        figure("SLO engine: resident, 10,000 objectives", held / 1e6, 400, "MB"),
        figure("SLO engine: evaluate 10,000 objectives once", took, 1, "s", "a tenth of the time between"),
    ]


def main() -> list[Figure]:
    objective = Objective("api", objective=99.9, window_s=WINDOW_S, clock=CLOCK)
    record = microseconds(lambda: objective.record(True), 50_000)
    report = microseconds(objective.report, 3_000)
    collector = PrometheusCollector("bench", clock=CLOCK)
    labels = {"service": "api"}
    ours = microseconds(lambda: collector.record_metric("wait", 0.2, labels), 20_000)
    histogram = Histogram("wait", "peer", ["service"], registry=CollectorRegistry())
    theirs = microseconds(lambda: histogram.labels(**labels).observe(0.2), 20_000)
    return [
        figure("SLO: one record", record, 2, "us"),
        figure("SLO: report with all windows", report, 50, "us"),
        figure("SLO: memory of one over 30 days", bytes_each(), 40_000, "bytes"),
        *engine_figures(),
        figure("metrics: one labelled record", ours, theirs, "us", f"prometheus-client {theirs:.2f} us"),
    ]


if __name__ == "__main__":
    for row in main():
        print("{:<45} {:>18}  {:<30} {:>8}".format(*row))
