"""With slices of time a quiet one weighs as much as a busy one, and one without events nothing."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.timeslices import Slice, Slicer

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
START = 1_700_000_040.0  # a whole minute
NewClock = Callable[..., object]


def of(slicer: Slicer, *events: tuple[float, int, int]) -> list[Slice]:
    """Record (time, good, bad) and return the slices that were closed."""
    closed = []
    for at, good, bad in events:
        closed.append(slicer.close(at))
        slicer.add(good, good + bad, bad)
    return [ended for ended in closed if ended is not None]


@pytest.mark.parametrize(
    ("good", "bad", "slice_objective", "worth"),
    [(95, 5, 95, 1), (94, 6, 95, 0), (999, 1, 99.9, 1), (998, 2, 99.9, 0), (1, 0, 100, 1), (10**9, 1, 100, 0)],
)
def test_a_slice_is_good_when_its_objective_was_met_exactly(
    good: int, bad: int, slice_objective: float, worth: float
) -> None:
    slicer = Slicer(MINUTE, slice_objective)
    assert of(slicer, (START, good, bad), (START + MINUTE, 0, 0)) == [Slice(START, START + MINUTE, worth, bad)]


def test_with_ratios_a_slice_is_worth_its_share_of_good_events() -> None:
    assert of(Slicer(MINUTE, None), (START, 3, 1), (START + 59, 0, 4), (START + 60, 9, 0)) == [
        Slice(START, START + MINUTE, 3 / 8, 5)
    ]


def test_a_slice_counts_once_it_is_over_and_one_without_events_never() -> None:
    slicer = Slicer(MINUTE, 95)
    slicer.close(START)
    slicer.add(1, 1, 0)
    assert slicer.close(START + 59.9) is None
    assert slicer.close(START + 600) == Slice(START, START + MINUTE, 1, 0)
    assert slicer.close(START + 601) is None
    assert slicer.close(START + 6000) is None


gaps = st.one_of(st.floats(0, 50), st.floats(0, 2 * HOUR), st.floats(0, 2 * DAY), st.sampled_from([10.0, 60.0, HOUR]))
streams = st.lists(
    st.tuples(gaps, st.sampled_from([0.0, 0.0, -5 * DAY, 90.0, 40 * DAY]), st.integers(0, 9), st.integers(0, 9)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    streams,
    gaps,
    st.tuples(st.sampled_from([10.0, 60.0, 97.0, 300.0, HOUR]), st.sampled_from([300.0, HOUR, DAY, 3 * DAY, 30 * DAY])),
    st.sampled_from([None, 50.0, 95.0, 100.0]),
)
def test_slices_are_those_of_a_list_of_all_events(
    hand_clock: NewClock,
    stream: list[tuple[float, float, int, int]],
    last: float,
    lengths: tuple[float, float],
    slice_objective: float | None,
) -> None:
    clock, (slice_s, window_s) = hand_clock(), lengths
    types = "dii" if slice_objective is None else "iii"
    tracker = Objective(
        "api", objective=99, window_s=30 * DAY, clock=clock, slicer=Slicer(slice_s, slice_objective), types=types
    )
    offset = clock.wall - clock.steady
    events: dict[int, tuple[int, int]] = {}
    for gap, jump, good, bad in stream:
        clock.advance(gap)
        clock.wall += jump  # a wall clock that is set moves no slice
        tracker.add(good, good + bad, bad)
        if good + bad:
            number = floor((clock.steady + offset) / slice_s)
            before = events.get(number, (0, 0))
            events[number] = (before[0] + good, before[1] + good + bad)
        if good == 4:
            tracker.report()  # looking changes nothing
    clock.advance(last)
    now = clock.steady + offset

    slot = tracker._windows.slot_s(window_s)
    worth = {}
    for number, (good, total) in events.items():
        if slice_objective is None:
            worth[number] = good / total
        else:
            worth[number] = 1.0 if good / total * 100 >= slice_objective - 1e-9 else 0.0
    over = {number: (number + 1) * slice_s for number in events if (number + 1) * slice_s <= now}
    surely = [number for number, end in over.items() if end > now - window_s + slot + 0.01]
    at_most = [number for number, end in over.items() if end > now - window_s]
    good, total = tracker.read(window_s)
    assert len(surely) <= total <= len(at_most)
    assert sum(worth[n] for n in surely) - 1e-6 <= good <= sum(worth[n] for n in at_most) + 1e-6
    bad = {n: total - good for n, (good, total) in events.items()}
    assert sum(bad[n] for n in surely) <= tracker.bad_events(window_s) <= sum(bad[n] for n in at_most)


def test_a_slice_that_ends_at_midnight_belongs_to_the_day_that_it_measured(hand_clock: NewClock) -> None:
    clock = hand_clock(wall=1_764_028_770.0)  # half a minute before 2025-11-25 UTC
    key = ("day", "UTC")
    tracker = Objective(
        "api", objective=99, window_s=DAY, clock=clock, calendars=[key], slicer=Slicer(60, 95), types="iii"
    )
    tracker.record(False)
    clock.advance(-1)
    assert tracker.read_calendar(key)[:2] == (0, 0)
    clock.advance(60)
    assert tracker.read_calendar(key)[:2] == (0, 0)  # a new day
    assert tracker.read(HOUR) == (0, 1)
    (start,) = tracker.drain()
    assert start == 1_764_028_740.0  # and so is it persisted
    clock.wall -= 120
    assert tracker.read_calendar(key)[:2] == (0, 1)


@pytest.mark.parametrize(("slice_objective", "types", "unit"), [(95, "iii", 1), (None, "dii", 1_000_000)])
def test_slices_outlive_a_restart_in_whole_numbers(
    hand_clock: NewClock, slice_objective: float | None, types: str, unit: int
) -> None:
    clock, key = hand_clock(), ("month", "Europe/Berlin")

    def make() -> Objective:
        slicer = Slicer(60, slice_objective)
        return Objective("api", objective=99, window_s=DAY, clock=clock, calendars=[key], slicer=slicer, types=types)

    first = make()
    for good, bad in ((9, 1), (19, 1), (2, 1), (0, 0), (1, 1)):
        first.add(good, good + bad, bad)
        clock.advance(60)
    samples = first.drain()
    assert all(isinstance(n, int) for counts in samples.values() for n in counts)
    assert sum(total for _, total in samples.values()) == 4 * unit
    second = make()
    second.restore(samples)
    assert second.read(HOUR) == pytest.approx(first.read(HOUR), abs=1e-5)
    assert second.read_calendar(key) == pytest.approx(first.read_calendar(key), abs=1e-5)
    assert second.drain() == {}
