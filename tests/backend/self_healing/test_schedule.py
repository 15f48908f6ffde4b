import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.self_healing.schedule import Schedule


def drain(schedule, until):
    """Walk the schedule as a monitor that is always in time, and return (time, name) of each check."""
    checks = []
    while (due := schedule.next_due()) is not None and due <= until:
        for name in schedule.take_due(due):
            checks.append((due, name))
            schedule.on_grid(name, due)
    return checks


def test_checks_of_a_service_lie_exactly_one_interval_apart_for_ever():
    schedule = Schedule(0.37)
    schedule.add("a", 0.3, 1000.1, first=1000.1)
    times = [at for at, _ in drain(schedule, 1000.1 + 3000)][1:]
    assert len(times) in (9999, 10000, 10001)
    assert times[-1] - times[0] == pytest.approx((len(times) - 1) * 0.3, abs=1e-6)


@given(st.integers(2, 400), st.floats(0, 1, exclude_max=True))
def test_phases_are_spread_over_the_interval(count, offset):
    schedule = Schedule(offset)
    for number in range(count):
        schedule.add(str(number), 10.0, 0.0)
    for number in range(count):
        schedule.on_grid(str(number), 20.0)
    due = sorted(at for at, _ in drain(schedule, 30.0))
    assert len(due) == count
    # Three-gap theorem: no gap of a golden-ratio sequence is wider than the golden ratio squared over the count.
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert max(gaps) <= 10.0 * 2.62 / count + 1e-9


def test_first_checks_begin_at_once_and_a_millisecond_apart():
    schedule = Schedule()
    for number in range(100):
        schedule.add(str(number), 5.0, 7.0)
    assert schedule.next_due() == 7.0
    assert len(schedule.take_due(7.0505)) == 51


def test_a_late_check_skips_what_it_missed_instead_of_catching_up():
    schedule = Schedule()
    schedule.add("a", 1.0, 0.0, first=0.0)
    assert schedule.take_due(0.0) == ["a"]
    schedule.on_grid("a", 0.0)
    assert schedule.take_due(100.5) == ["a"]
    due = schedule.on_grid("a", 100.5)
    assert 100.5 < due <= 101.5
    assert due == pytest.approx(round(due))
    assert schedule.take_due(due - 0.001) == []


@given(st.floats(0.001, 1e4), st.floats(0, 1e9), st.floats(0, 1e6))
def test_the_next_grid_point_lies_after_now_and_within_an_interval(interval, start, later):
    schedule = Schedule(0.5)
    schedule.add("a", interval, start)
    now = start + later
    due = schedule.on_grid("a", now)
    assert now < due <= now + interval * (1 + 1e-6) + 1e-6


def test_a_quick_re_probe_does_not_shift_the_grid():
    schedule = Schedule()
    schedule.add("a", 5.0, 0.0, first=0.0)
    schedule.take_due(0.0)
    schedule.at("a", 0.25)
    assert schedule.take_due(0.25) == ["a"]
    assert schedule.on_grid("a", 0.25) == pytest.approx(5.0)


def test_a_removed_service_is_never_due_and_one_that_returns_is_due_once():
    schedule = Schedule()
    schedule.add("a", 1.0, 0.0, first=0.5)
    schedule.remove("a")
    assert schedule.next_due() is None
    schedule.add("a", 1.0, 0.0, first=0.5)
    assert schedule.take_due(10.0) == ["a"]
    assert schedule.take_due(10.0) == []


def test_a_date_that_was_replaced_is_never_kept():
    schedule = Schedule()
    schedule.add("a", 5.0, 0.0, first=3.0)
    schedule.at("a", 1.0)
    schedule.at("a", 4.0)
    assert schedule.take_due(3.5) == []
    assert schedule.next_due() == 4.0
    assert schedule.take_due(4.0) == ["a"]
