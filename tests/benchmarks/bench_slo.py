"""What an SLO costs: a record, all windows of one objective, and its memory."""

from __future__ import annotations

import sys
import timeit
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from prometheus_client import CollectorRegistry, Histogram

from backend.shared.monitoring.metrics import PrometheusCollector
from backend.shared.monitoring.objectives import Objective
from modules.contracts.clock import SystemClock

CLOCK = SystemClock()
WINDOW_S = 30 * 86_400.0
OBJECTIVES = 200

Figure = tuple[str, str, str, str]


def microseconds(call: Callable[[], object], calls: int) -> float:
    """The best of seven rounds: what the call itself takes when nothing else disturbs it."""
    return min(timeit.repeat(call, number=calls, repeat=7)) / calls * 1e6


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
        figure("metrics: one labelled record", ours, theirs, "us", f"prometheus-client {theirs:.2f} us"),
    ]


if __name__ == "__main__":
    for row in main():
        print("{:<45} {:>18}  {:<30} {:>8}".format(*row))
