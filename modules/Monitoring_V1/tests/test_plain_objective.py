"""An objective of the standard library: one window, within a 120th of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.contracts.clock import LoopClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.slo import SLOStatus
from modules.local.slo import SLOTS, LocalObjective
from runtime.simulation.loop import run_in_virtual_time, virtual_time

DAY = 86_400.0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([60.0, 3600.0, 30 * DAY]),
    st.lists(st.tuples(st.floats(0, 1.5), st.booleans()), max_size=40),
    st.floats(0, 1.5),
)
def test_a_window_misses_nothing_and_holds_less_than_one_slot_too_much(
    window_s: float, stream: list[tuple[float, bool]], last: float
) -> None:
    async def run() -> None:
        clock = LoopClock()
        tracker = LocalObjective("api", objective=99, window_s=window_s, clock=clock)
        times = []
        for gap, good in stream:
            await clock.sleep(gap * window_s / 4)
            tracker.record(good)
            times.append((clock.monotonic(), good))
        await clock.sleep(last * window_s)
        now, report = clock.monotonic(), tracker.report()
        slack = window_s / SLOTS + 1e-6
        inside = [good for at, good in times if at > now - window_s + 1e-6]
        nearly = [good for at, good in times if at > now - window_s - slack]
        assert len(inside) <= report.total <= len(nearly)
        assert sum(inside) <= report.good <= sum(nearly)
        assert len(tracker._slots) <= SLOTS + 1

    run_in_virtual_time(run)


@virtual_time
async def test_an_event_leaves_between_the_end_of_the_window_and_one_slot_later() -> None:
    clock = LoopClock()
    tracker = LocalObjective("api", objective=99, window_s=SLOTS, clock=clock)
    await clock.sleep(0.5)
    tracker.record(True)
    await clock.sleep(SLOTS - 0.1)
    assert tracker.report().total == 1
    await clock.sleep(0.7)
    assert tracker.report().total == 0


@virtual_time
async def test_the_status_follows_from_the_budget() -> None:
    tracker = LocalObjective("api", objective=90, window_s=3600, clock=LoopClock())
    found = [tracker.report().status]
    for good, status in ((True, 18), (False, 1), (True, 1), (False, 1)):
        for _ in range(status):
            tracker.record(good)
        found.append(tracker.report().status)
    assert found == [SLOStatus.NO_DATA, SLOStatus.MET, SLOStatus.MET, SLOStatus.MET, SLOStatus.AT_RISK]
    tracker.record(False)
    assert tracker.report().status is SLOStatus.VIOLATED


@virtual_time
async def test_what_is_drained_can_be_restored() -> None:
    clock = LoopClock()
    first = LocalObjective("api", objective=99, window_s=DAY, clock=clock)
    kept: dict[float, tuple[int, int]] = {}
    for _ in range(10):
        first.record(True)
        first.record(False)
        kept |= first.drain()
        await clock.sleep(600)
    assert first.drain() == {}
    assert all(start % 60 == 0 for start in kept)
    second = LocalObjective("api", objective=99, window_s=DAY, clock=clock)
    second.record(True)
    second.restore({**kept, clock.time() + 60: (0, 50)})
    report = second.report()
    assert (report.good, report.total) == (11, 21)
    assert sum(total for _, total in second.drain().values()) == 1
    await clock.sleep(2 * DAY)
    assert second.report().total == 0


@virtual_time
async def test_an_objective_that_nobody_drains_stays_small() -> None:
    clock = LoopClock()
    tracker = LocalObjective("api", objective=99, window_s=30 * DAY, clock=clock)
    for _ in range(2000):
        tracker.record(True)
        await clock.sleep(60)
    assert tracker.report().total == 2000
    assert len(tracker.drain()) == 1440


def test_what_cannot_be_promised_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="objective of api"):
        LocalObjective("api", objective=100, window_s=60, clock=LoopClock())
