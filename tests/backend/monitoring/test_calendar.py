"""Calendar windows begin at midnight of their zone, whatever its clocks do, and count by the wall clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.calendar_windows import LONGEST_S, CalendarCounts, period

HOUR, DAY = 3600.0, 86_400.0
UNITS = ("day", "week", "month", "quarter", "year")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # midnight did not exist on the first day of summer time
    "America/St_Johns",  # set back at 00:01, so the last minutes of an evening came twice
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Pacific/Apia",  # had no 30 December 2011
    "Africa/Cairo",
)


def unix(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


moments = st.floats(unix("1990-01-01"), unix("2036-01-01"))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(UNITS), st.sampled_from(ZONES), moments)
def test_every_moment_is_in_its_period_and_periods_follow_each_other(unit: str, zone: str, at: float) -> None:
    start, end = period(unit, ZoneInfo(zone), at)
    assert start <= at < end <= start + LONGEST_S[unit]
    assert period(unit, ZoneInfo(zone), end)[0] == end
    assert period(unit, ZoneInfo(zone), start) == (start, end)
    assert period(unit, ZoneInfo(zone), start - 1)[1] == start


def dates_between(start: float, end: float, zone: str) -> set[date]:
    """The local dates of a period, looked up minute by minute at its edges and hour by hour inside."""
    seconds = [*range(int(start), int(start) + 7200, 60), *range(int(end) - 7200, int(end), 60)]
    seconds += range(int(start), int(end), 3600)
    return {datetime.fromtimestamp(s, UTC).astimezone(ZoneInfo(zone)).date() for s in seconds if start <= s < end}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(UNITS), st.sampled_from([zone for zone in ZONES if zone != "America/St_Johns"]), moments)
def test_a_period_holds_exactly_the_dates_of_its_unit(unit: str, zone: str, at: float) -> None:
    start, end = period(unit, ZoneInfo(zone), at)
    days = dates_between(start, end, zone)
    same = {
        "day": lambda day: day,
        "week": lambda day: day.isocalendar()[:2],
        "month": lambda day: (day.year, day.month),
        "quarter": lambda day: (day.year, (day.month + 2) // 3),
        "year": lambda day: day.year,
    }[unit]
    assert len({same(day) for day in days}) == 1
    before = datetime.fromtimestamp(start - 60, UTC).astimezone(ZoneInfo(zone)).date()
    after = datetime.fromtimestamp(end, UTC).astimezone(ZoneInfo(zone)).date()
    assert same(before) not in {same(day) for day in days}
    assert same(after) not in {same(day) for day in days}


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-03-28", 24), ("2026-10-26", 24)]
)
def test_a_day_is_an_hour_shorter_or_longer_when_the_clocks_change(day: str, hours: int) -> None:
    start, end = period("day", ZoneInfo("Europe/Berlin"), unix(f"{day}T12:00", "Europe/Berlin"))
    assert (end - start) / HOUR == hours
    assert start == unix(day, "Europe/Berlin")


@pytest.mark.parametrize(
    ("unit", "at", "start", "end"),
    [
        ("week", "2026-01-01T10:00", "2025-12-29", "2026-01-05"),
        ("month", "2028-02-29T23:59:59", "2028-02-01", "2028-03-01"),
        ("quarter", "2026-06-30T23:59:59", "2026-04-01", "2026-07-01"),
        ("quarter", "2026-10-01", "2026-10-01", "2027-01-01"),
        ("year", "2028-12-31T23:59:59", "2028-01-01", "2029-01-01"),
    ],
)
def test_periods_have_the_bounds_of_the_calendar(unit: str, at: str, start: str, end: str) -> None:
    assert period(unit, ZoneInfo("Asia/Tokyo"), unix(at, "Asia/Tokyo")) == (
        unix(start, "Asia/Tokyo"),
        unix(end, "Asia/Tokyo"),
    )


def test_where_midnight_is_skipped_the_day_begins_with_the_first_instant_after_it() -> None:
    start, _ = period("day", ZoneInfo("America/Sao_Paulo"), unix("2018-11-04T12:00", "America/Sao_Paulo"))
    assert start == unix("2018-11-04T03:00")
    assert datetime.fromtimestamp(start, ZoneInfo("America/Sao_Paulo")).hour == 1


def test_an_evening_that_comes_twice_belongs_to_the_day_that_has_begun() -> None:
    zone = ZoneInfo("America/St_Johns")  # 2010-11-07 00:01 -02:30 became 2010-11-06 23:01 -03:30
    midnight = unix("2010-11-07T02:30")
    again = midnight + 60 + 1800
    assert datetime.fromtimestamp(again, zone).date() == date(2010, 11, 6)
    assert period("day", zone, again)[0] == midnight == period("day", zone, midnight)[0]


steps = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 2 * HOUR), st.floats(0, 40 * DAY)),
        st.one_of(st.just(0.0), st.just(0.0), st.floats(-3 * DAY, 3 * DAY)),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(UNITS), st.sampled_from(ZONES), moments, steps)
def test_what_is_counted_is_what_happened_while_the_clock_stood_in_this_period(
    unit: str, zone: str, wall: float, stream: list[tuple[float, float, int, int]]
) -> None:
    counts, events = CalendarCounts(unit, ZoneInfo(zone)), []
    visited: list[float] = []
    for gap, jump, good, bad in stream:
        wall += gap + jump
        counts.record(wall, good, good + bad)
        start = period(unit, ZoneInfo(zone), wall)[0]
        if start not in visited[-1:]:
            visited = [*[other for other in visited if other != start][-3:], start]
            events = [event for event in events if event[0] in visited]  # only the newest few periods are kept
        events.append((start, good, good + bad))
        here = [event for event in events if event[0] == start]
        assert counts.read(wall)[:2] == (sum(e[1] for e in here), sum(e[2] for e in here))
        assert counts.read(wall)[2:] == period(unit, ZoneInfo(zone), wall)


def test_a_clock_that_is_set_wrong_and_back_loses_nothing() -> None:
    counts, now = CalendarCounts("month", ZoneInfo("UTC")), unix("2026-11-23")
    counts.record(now, 8, 10)
    counts.record(now + 400 * DAY, 0, 5)
    counts.record(now - 60 * DAY, 0, 7)
    counts.record(now + 60, 1, 1)
    assert counts.read(now + 60)[:2] == (9, 11)


def test_however_many_periods_pass_a_few_are_kept() -> None:
    counts, now = CalendarCounts("day", ZoneInfo("UTC")), unix("2026-01-01")
    for day in range(500):
        counts.record(now + day * DAY, 1, 1)
    assert len(counts._kept) <= 32
    assert counts.read(now + 499 * DAY)[:2] == (1, 1)


def test_history_counts_in_the_current_period_only() -> None:
    counts, now = CalendarCounts("week", ZoneInfo("Europe/Berlin")), unix("2026-11-25T10:00", "Europe/Berlin")
    monday = unix("2026-11-23", "Europe/Berlin")
    counts.record(now, 1, 1)
    counts.add_history(now, [(monday - 60, 0, 50), (monday, 3, 4), (now + 60, 0, 70)])
    assert counts.read(now)[:2] == (4, 5)
    assert counts.read(now + timedelta(days=7).total_seconds())[:2] == (0, 0)
