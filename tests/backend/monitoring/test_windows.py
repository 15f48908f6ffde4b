"""Windows count what lies inside them: no more, and less than one slot too little."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.windows import Windows, tiers_for

HOUR, DAY = 3600.0, 86_400.0
START = 1_700_000_000.0
LENGTHS = (300.0, 1800.0, HOUR, 2 * HOUR, 6 * HOUR, DAY, 3 * DAY, 30 * DAY)

gaps = st.one_of(
    st.floats(0, 30), st.floats(0, 2 * HOUR), st.floats(0, 40 * DAY), st.sampled_from([10.0, 60.0, 300.0, HOUR])
)
streams = st.lists(st.tuples(gaps, st.integers(0, 3), st.integers(0, 3)), max_size=40)


def sum_between(events: list[tuple[float, int, int]], after: float, until: float) -> tuple[int, int]:
    chosen = [event for event in events if after < event[0] <= until]
    return sum(good for _, good, _ in chosen), sum(total for _, _, total in chosen)


@settings(max_examples=150, deadline=None)
@given(streams, gaps, st.sampled_from(LENGTHS))
def test_a_window_holds_nothing_older_and_misses_less_than_one_slot(
    stream: list[tuple[float, int, int]], last_gap: float, length: float
) -> None:
    windows, events, now = Windows(30 * DAY, START), [], START
    for gap, good, bad in stream:
        now += gap
        windows.record(now, good, good + bad)
        events.append((now, good, good + bad))
    now += last_gap
    good, total = windows.read(now, length)
    least = sum_between(events, now - length + windows.slot_s(length), now)
    most = sum_between(events, now - length - 1e-6, now)
    assert least[0] <= good <= most[0]
    assert least[1] <= total <= most[1]


jumps = st.one_of(gaps, st.floats(-40 * DAY, 0))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(jumps, st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40), st.sampled_from(LENGTHS)
)
def test_events_after_a_backward_jump_count_in_the_newest_slot(
    stream: list[tuple[float, int, int]], length: float
) -> None:
    windows, events, now, newest = Windows(30 * DAY, START), [], START, START
    for jump, good, bad in stream:
        now += jump
        newest = max(newest, now)
        windows.record(now, good, good + bad)
        events.append((newest, good, good + bad))
    _, total = windows.read(newest, length)
    assert total >= sum_between(events, newest - length + windows.slot_s(length), newest)[1]
    assert total <= sum_between(events, newest - length - 1e-6, newest)[1]


def test_while_the_clock_is_behind_windows_end_at_the_newest_slot() -> None:
    windows = Windows(DAY, START)
    windows.record(START, 0, 3)
    windows.record(START + 1000, 0, 5)
    windows.record(START - 50_000, 1, 1)
    assert windows.read(START - 50_000, 300) == (1, 6)
    windows.add_history(START - 50_000, [(START - 50_100, 4, 4), (START, 8, 8)])
    assert windows.read(START + 1000, 300) == (1, 6)
    assert windows.read(START + 1000, DAY) == (5, 13)


def test_a_length_below_a_slot_or_above_the_longest_window_reads_the_nearest_there_is() -> None:
    windows = Windows(HOUR, START)
    windows.record(START, 0, 1)
    windows.record(START + HOUR - 5, 0, 2)
    assert windows.read(START + HOUR - 5, 1) == (0, 2)
    assert windows.read(START + HOUR - 15, 40.7 * HOUR) == (0, 3)
    assert windows.read(START + 2 * HOUR - 15, 40.7 * HOUR) == (0, 2)


def test_history_in_the_oldest_slot_of_a_window_is_inside() -> None:
    now = START - START % HOUR + 5
    windows = Windows(30 * DAY, now)
    windows.add_history(now, [(now - 295, 1, 1), (now - 305, 0, 1)])
    assert windows.read(now, 300) == (1, 1)
    assert windows.read(now, HOUR) == (1, 2)


@pytest.mark.parametrize("days", [31, 400, 1e9])
def test_a_leap_beyond_all_slots_clears_every_window(days: float) -> None:
    windows = Windows(30 * DAY, START)
    windows.record(START, 0, 7)
    leap = START + days * DAY
    assert [windows.read(leap, length) for length in LENGTHS] == [(0, 0)] * len(LENGTHS)
    windows.record(leap, 1, 1)
    assert [windows.read(leap, length) for length in LENGTHS] == [(1, 1)] * len(LENGTHS)


@pytest.mark.parametrize("window", [0.5, 6.0, 600.0, HOUR, 5 * HOUR, DAY, 28 * DAY, 30 * DAY, 90 * DAY, 366 * DAY])
def test_the_slots_of_any_window_reach_over_it_and_are_a_small_part_of_it(window: float) -> None:
    tiers = tiers_for(window)
    assert any(slot * slots >= window * (1 - 1e-12) for slot, slots in tiers)
    assert tiers[-1][0] <= window / 60
    assert [slot for slot, _ in tiers] == sorted(slot for slot, _ in tiers)


def test_a_window_of_a_year_counts_for_a_year() -> None:
    windows = Windows(366 * DAY, START)
    windows.record(START, 0, 1)
    assert windows.read(START + 365 * DAY, 366 * DAY) == (0, 1)
    assert windows.read(START + 366 * DAY, 366 * DAY) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(0, 40), st.sampled_from(LENGTHS))
def test_history_that_is_added_later_reads_as_if_recorded_in_time(
    stream: list[tuple[float, int, int]], split: int, length: float
) -> None:
    now, events = START, []
    for gap, good, bad in stream:
        now += gap
        events.append((now, good, good + bad))
    in_time, restored = Windows(30 * DAY, START), Windows(30 * DAY, now)
    for event in events:
        in_time.record(*event)
    restored.add_history(now, [*reversed(events[:split]), (now + 1, 9, 9)])
    restored.add_history(now, events[split:])
    assert restored.read(now, length) == in_time.read(now, length)


def test_memory_stays_the_same_however_much_is_recorded() -> None:
    windows = Windows(30 * DAY, START)
    before = held(windows)
    for step in range(20_000):
        windows.record(START + step * 997.0, 1)
    assert held(windows) == before <= 20_000


def held(windows: Windows) -> int:
    return sum(sys.getsizeof(column) for ring in windows._rings for column in ring.columns)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(0, 40))
def test_marks_divide_what_was_counted_without_loss(stream: list[tuple[float, int, int]], split: int) -> None:
    windows, now, since, sums = Windows(30 * DAY, START), START, START, (0, 0)
    for number, (gap, good, bad) in enumerate(stream):
        now += gap
        windows.record(now, good, good + bad)
        if number == split:
            since, sums = now, windows.sums
    marks = windows.marks(since)
    times = [at for at, _, _ in marks]
    assert times == sorted(set(times))
    assert all(since < at <= now for at in times)
    totals = [sums[1], *(total for _, _, total in marks), windows.sums[1]]
    assert all(later >= earlier for earlier, later in pairwise(totals))
    if times and now - since <= HOUR - 10:
        assert len(times) == math.floor(now / 10) - math.floor(since / 10)


def test_sums_beyond_32_bits_go_on_counting() -> None:
    windows, now = Windows(DAY, START), START
    for _ in range(5):
        windows.record(now, 2**30, 2**31)
        now += 10
    assert windows.read(now, 300) == (5 * 2**30, 5 * 2**31)
    windows.add_history(now, [(now - 2 * HOUR, 2**40, 2**41)])
    assert windows.read(now, DAY) == (5 * 2**30 + 2**40, 5 * 2**31 + 2**41)
    assert windows.read(now, 25) == (2 * 2**30, 2 * 2**31)
