"""How many events of this month were good: windows that begin at midnight of a calendar day, in a time zone.

A calendar window follows the wall clock: an event belongs to the period in which the clock stood when it happened.
The counts of the newest few periods are kept, so a clock that was set wrong and back again loses nothing. Over
daylight-saving changes a period is as long as the zone's own (a day has 23 to 25 hours); where midnight does not
exist it begins with the first instant after it, where it comes twice with the first (PEP 495, fold 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from backend.shared.monitoring.settings import CalendarWindowSettings

Unit = Literal["day", "week", "month", "quarter", "year"]

CalendarKey = tuple[Unit, str]
"""A calendar window: its unit, and the IANA name of its time zone."""

_DAY_S = 86_400.0
NOMINAL_S: Mapping[Unit, float] = {
    unit: CalendarWindowSettings(kind="calendar", unit=unit).length_s for unit in get_args(Unit)
}
"""The length by which burn factors are derived, in seconds, so that they are the same in every month."""
LONGEST_S: Mapping[Unit, float] = {
    "day": 2 * _DAY_S,
    "week": 8 * _DAY_S,
    "month": 32 * _DAY_S,
    "quarter": 93 * _DAY_S,
    "year": 366 * _DAY_S,
}
"""How far back a period's beginning may lie, in seconds, with room for a change of the zone's offset."""
_KEPT = 32
"""Periods whose counts are kept while the clock stands in another one."""


def _first_day(unit: Unit, day: date) -> date:
    match unit:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case "year":
            return day.replace(month=1, day=1)


_SOME_DAY_OF_THE_NEXT: Mapping[Unit, int] = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}


@lru_cache(maxsize=256)  # objectives share a handful of windows, and records in an earlier period would recompute
def _period(unit: Unit, zone: ZoneInfo, second: int) -> tuple[float, float]:
    first = _first_day(unit, datetime.fromtimestamp(second, zone).date())
    following = _following(unit, first)
    if second >= _midnight(following, zone):  # set back over midnight: this evening comes twice, the day began already
        first, following = following, _following(unit, following)
    return _midnight(first, zone), _midnight(following, zone)


def _following(unit: Unit, first: date) -> date:
    return _first_day(unit, first + timedelta(days=_SOME_DAY_OF_THE_NEXT[unit]))


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def period(unit: Unit, zone: ZoneInfo, at: float) -> tuple[float, float]:
    """Return beginning and end of the period around ``at``; all are unix seconds, the end is the next beginning."""
    return _period(unit, zone, math.floor(at))


class CalendarCounts:
    """Good and all events of the current period. Pure: the wall clock is handed in, in unix seconds."""

    __slots__ = ("_counts", "_end", "_kept", "_start", "_unit", "_zone")

    def __init__(self, unit: Unit, zone: ZoneInfo) -> None:
        self._unit: Unit = unit
        self._zone = zone
        self._kept: dict[float, list[float]] = {}
        self._start = self._end = 0.0
        self._counts: list[float] = [0, 0]

    def record(self, at: float, good: float, total: float) -> None:
        """Count events in the period around ``at``."""
        if not self._start <= at < self._end:
            self._turn(at)
        self._counts[0] += good
        self._counts[1] += total

    def add_history(self, now: float, events: Iterable[tuple[float, float, float]]) -> None:
        """Count past ``(time, good, total)`` of the period around ``now`` and up to it; others are dropped."""
        self.read(now)
        for at, good, total in events:
            if self._start <= at <= now:
                self._counts[0] += good
                self._counts[1] += total

    def read(self, now: float) -> tuple[float, float, float, float]:
        """Return (good, total, beginning, end) of the period around ``now``."""
        if not self._start <= now < self._end:
            self._turn(now)
        return self._counts[0], self._counts[1], self._start, self._end

    def _turn(self, at: float) -> None:
        start, end = period(self._unit, self._zone, at)
        counts = self._kept.pop(start, None) or [0, 0]
        self._kept[start] = counts  # the newest in use stands last
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        self._start, self._end, self._counts = start, end, counts
