"""An objective gives its verdict, its budget and its burn rates, and survives clocks and restarts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.objectives import Objective
from modules.contracts.errors import ConfigurationError
from modules.contracts.slo import SLOStatus

DAY = 86_400.0


class HandClock:
    """A clock that a test sets: ``steady`` and ``wall`` move apart when the wall clock is changed."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.wall = 1_700_000_040.0  # a whole minute

    def monotonic(self) -> float:
        return self.steady

    def time(self) -> float:
        return self.wall

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def make(clock: HandClock, objective: float = 99.0, window_s: float = 30 * DAY) -> Objective:
    return Objective("api", objective=objective, window_s=window_s, clock=clock)


def record(tracker: Objective, good: int, bad: int) -> None:
    for _ in range(good):
        tracker.record(True)
    for _ in range(bad):
        tracker.record(False)


@pytest.mark.parametrize(
    ("good", "bad", "left", "status"),
    [
        (0, 0, None, SLOStatus.NO_DATA),
        (10, 0, 100.0, SLOStatus.MET),
        (398, 2, 50.0, SLOStatus.MET),
        (397, 3, 25.0, SLOStatus.MET),
        (99, 1, 0.0, SLOStatus.VIOLATED),
        (98, 2, -100.0, SLOStatus.VIOLATED),
    ],
)
def test_the_status_follows_from_the_budget(
    clock: HandClock, good: int, bad: int, left: float | None, status: SLOStatus
) -> None:
    # A window of an hour has no burn-rate alerts, so the budget alone decides.
    tracker = make(clock, window_s=3600)
    record(tracker, good, bad)
    report = tracker.report()
    assert (report.good, report.total) == (good, good + bad)
    assert report.error_budget_remaining == left
    assert report.status is status


def test_under_a_quarter_of_the_budget_left_is_at_risk(clock: HandClock) -> None:
    tracker = make(clock, window_s=3600)
    record(tracker, 396, 4)  # all spent
    record(tracker, 110, 0)  # 4 of 5.1
    assert tracker.report().status is SLOStatus.AT_RISK


def test_a_burn_rate_alert_makes_it_at_risk_while_most_of_the_budget_is_left(clock: HandClock) -> None:
    tracker = make(clock, objective=99.9)
    for _ in range(1000):
        clock.advance(600)
        record(tracker, 100, 0)
    clock.advance(3600)
    record(tracker, 0, 10)
    report = tracker.report()
    assert report.error_budget_remaining is not None
    assert report.error_budget_remaining > 85
    assert report.burn_rates["1h"] == pytest.approx(1000)
    assert report.status is SLOStatus.AT_RISK
    clock.advance(4 * DAY)
    assert tracker.report().status is SLOStatus.MET


@pytest.mark.parametrize("objective", [50, 90, 99, 99.5, 99.9, 99.95, 99.99, 99.999])
def test_a_budget_that_is_spent_exactly_is_spent(clock: HandClock, objective: float) -> None:
    tracker = make(clock, objective=objective)
    events = round(100_000 / round(100 - objective, 6) * 100)
    tracker.restore({clock.wall: (events - 100_000, events)})
    report = tracker.report()
    assert report.error_budget_remaining == 0
    assert report.status is SLOStatus.VIOLATED


def test_burn_rates_are_given_for_windows_with_data_up_to_the_objectives_own(clock: HandClock) -> None:
    tracker = make(clock, window_s=7200)
    record(tracker, 98, 2)
    assert tracker.report().burn_rates == pytest.approx({"5m": 2, "30m": 2, "1h": 2, "2h": 2})
    clock.advance(1000)
    assert list(tracker.report().burn_rates) == ["30m", "1h", "2h"]


def test_events_leave_the_window_when_their_time_has_come(clock: HandClock) -> None:
    tracker = make(clock, window_s=60)
    record(tracker, 0, 5)
    clock.advance(59)
    assert tracker.report().total == 5
    clock.advance(1)
    assert tracker.report().status is SLOStatus.NO_DATA


@pytest.mark.parametrize("jump", [-400 * DAY, -3600, 3600, 400 * DAY])
def test_a_wall_clock_that_is_set_changes_no_window(clock: HandClock, jump: float) -> None:
    tracker = make(clock)
    record(tracker, 90, 10)
    clock.wall += jump
    record(tracker, 90, 10)
    clock.advance(100)
    report = tracker.report()
    assert (report.good, report.total) == (180, 200)
    assert report.burn_rates["5m"] == pytest.approx(10)


def test_the_newest_sample_is_the_value(clock: HandClock) -> None:
    tracker = make(clock)
    tracker.record(True, value=3.0)
    tracker.record(False, value=7.5)
    tracker.record(True)
    assert tracker.report().value == 7.5


def test_drain_gives_each_minute_once(clock: HandClock) -> None:
    tracker, start = make(clock), clock.wall
    record(tracker, 2, 1)
    clock.advance(59)
    record(tracker, 1, 0)
    assert tracker.drain() == {start: (3, 4)}
    assert tracker.drain() == {}
    record(tracker, 1, 0)
    clock.advance(1)
    record(tracker, 0, 1)
    clock.advance(125)
    record(tracker, 5, 0)
    assert tracker.drain() == {start: (1, 1), start + 60: (0, 1), start + 180: (5, 5)}


def test_drain_names_slots_by_the_wall_clock_as_it_is_now(clock: HandClock) -> None:
    tracker = make(clock)
    clock.wall += 7200
    record(tracker, 1, 0)
    assert tracker.drain() == {1_700_000_040.0 + 7200: (1, 1)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5000), st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans()), max_size=30
    )
)
def test_nothing_is_lost_or_kept_twice_over_drains_and_restores(
    steps: list[tuple[float, int, int, bool, bool]],
) -> None:
    clock = HandClock()
    tracker, kept = make(clock), {}
    good_all = total_all = 0

    def keep() -> None:
        for start, (good, total) in tracker.drain().items():
            assert start % 60 == 0
            assert 0 <= good <= total
            assert total > 0
            kept_good, kept_total = kept.get(start, (0, 0))
            kept[start] = (kept_good + good, kept_total + total)

    for gap, good, bad, drains, restarts in steps:
        clock.advance(gap)
        record(tracker, good, bad)
        good_all, total_all = good_all + good, total_all + good + bad
        if drains or restarts:
            keep()
        if restarts:
            tracker = make(clock)
            tracker.restore(kept)
    report = tracker.report()
    assert (report.good, report.total) == (good_all, total_all)
    keep()
    assert (sum(g for g, _ in kept.values()), sum(t for _, t in kept.values())) == (good_all, total_all)


def test_restore_drops_the_future_and_keeps_what_was_counted_before_it(clock: HandClock) -> None:
    tracker = make(clock)
    record(tracker, 1, 0)
    tracker.restore({clock.wall - 3600: (8, 10), clock.wall + 3600: (0, 99)})
    report = tracker.report()
    assert (report.good, report.total) == (9, 11)
    assert report.burn_rates["5m"] == 0
    assert tracker.drain() == {clock.wall: (1, 1)}


@pytest.mark.parametrize("objective", [0, 100, -1, 101, float("nan"), float("inf"), "99", True, None])
def test_an_objective_outside_of_0_to_100_is_refused(clock: HandClock, objective: float) -> None:
    with pytest.raises(ConfigurationError, match=r"objective of api: .*above 0 and below 100"):
        make(clock, objective=objective)


@pytest.mark.parametrize("window_s", [0, -5, 366 * DAY + 1, float("nan"), "60"])
def test_a_window_that_is_empty_or_above_a_year_is_refused(clock: HandClock, window_s: float) -> None:
    with pytest.raises(ConfigurationError, match=r"window of api: .*366 days"):
        make(clock, window_s=window_s)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800", None])
def test_a_name_that_cannot_be_shown_is_refused(clock: HandClock, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of an objective"):
        Objective(name, objective=99, window_s=60, clock=clock)
