"""OpenSLO's durations, time windows and budgeting methods.

The duration shorthand is a whole number and a letter, whose case counts: ``m`` is minutes, ``M`` months. As in the
project's own Go package, months are 30 days, quarters 90 and years 365.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time
from decimal import Decimal
from typing import Literal

from backend.shared.monitoring.openslo.fields import Field
from backend.shared.monitoring.settings import (
    AnyMethod,
    AnyWindow,
    CalendarWindowSettings,
    OccurrencesSettings,
    RatioTimeslicesSettings,
    RollingWindowSettings,
    TimeslicesSettings,
)

_DAY_S = 86_400.0
_SECONDS = {
    "m": 60.0,
    "h": 3600.0,
    "d": _DAY_S,
    "w": 7 * _DAY_S,
    "M": 30 * _DAY_S,
    "Q": 90 * _DAY_S,
    "Y": 365 * _DAY_S,
}
_ALLOWED = "a whole number and one of m (minutes), h, d, w, M (months), Q, Y, such as 4w"

_Unit = Literal["day", "week", "month", "quarter", "year"]
_UNITS: Mapping[str, _Unit] = {"1d": "day", "1w": "week", "1M": "month", "1Q": "quarter", "1Y": "year"}
_BEGINNINGS: Mapping[_Unit, str] = {
    "day": "at midnight",
    "week": "on a Monday at midnight",
    "month": "on the first of a month at midnight",
    "quarter": "on the first of January, April, July or October at midnight",
    "year": "on the first of January at midnight",
}

Method = Literal["occurrences", "timeslices", "ratio_timeslices"]
METHODS: Mapping[str, Method] = {
    "Occurrences": "occurrences",
    "Timeslices": "timeslices",
    "RatioTimeslices": "ratio_timeslices",
}


def read_seconds(field: Field, *, zero: bool = False) -> float | None:
    """Return the seconds of a duration in shorthand; ``zero`` allows one of length nought."""
    text = field.text()
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,7})([mhdwMQY])", text)
    if match is None or not (zero or int(match[1])):
        field.refuse(f"found {text!r}", _ALLOWED)
        return None
    return int(match[1]) * _SECONDS[match[2]]


def read_window(field: Field) -> AnyWindow | None:
    """Read ``timeWindow``: a list of one window."""
    entries = field.entries()
    if field.is_list and len(entries) != 1:
        field.refuse(f"found {len(entries)} windows", "exactly one", "write an SLO for each further window")
    if len(entries) != 1:
        return None
    given = entries[0].fields(("duration",), ("isRolling", "calendar"))
    if (duration := given.get("duration")) is None or (length_s := read_seconds(duration)) is None:
        return None
    calendar, rolling = given.get("calendar"), given.get("isRolling")
    if rolling is not None:  # not said, it follows from the calendar
        is_rolling = rolling.flag()
        if is_rolling is None:
            return None
        if is_rolling == (calendar is not None):
            what = "true, and there is a calendar" if is_rolling else "false, and there is no calendar"
            rolling.refuse(f"is {what}", "isRolling: true, or a calendar with startTime and timeZone")
            return None
    if calendar is None:
        return duration.build(RollingWindowSettings, kind="rolling", days=length_s / _DAY_S)
    return _calendar(duration, calendar)


def _calendar(duration: Field, calendar: Field) -> CalendarWindowSettings | None:
    unit = duration.choice(_UNITS)
    given = calendar.fields(("startTime", "timeZone"))
    if "startTime" in given and unit is not None:
        _check_beginning(given["startTime"], unit)
    zone = given.get("timeZone")
    name = zone.text() if zone else None
    if unit is None or zone is None or name is None:
        return None
    return zone.build(CalendarWindowSettings, kind="calendar", unit=unit, time_zone=name)


def _check_beginning(field: Field, unit: _Unit) -> None:
    """Our calendar windows begin where the calendar says; a start anywhere else cannot be kept."""
    text = field.written()
    if text is None:
        return
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        start = None
    if start is None or start.tzinfo is not None:
        field.refuse(f"found {text!r}", "a date and time without offset, such as 2024-01-01 00:00:00")
        return
    begins = (
        start.time() == time.min
        and {
            "day": True,
            "week": start.weekday() == 0,
            "month": start.day == 1,
            "quarter": start.day == 1 and start.month % 3 == 1,
            "year": start.day == 1 and start.month == 1,
        }[unit]
    )
    if not begins:
        field.refuse(f"found {text}, and the {unit} does not begin then", f"a start {_BEGINNINGS[unit]}")


def read_percent(field: Field, *, of: Literal[1, 100]) -> float | None:
    """Return a share (``of=1``) or percentage (``of=100``) as a percentage above 0 and at most 100."""
    value = field.number()
    if value is None:
        return None
    # In decimal digits: 0.29 * 100 is 28.999999999999996.
    percent = float(Decimal(str(value)) * (100 // of))
    if not 0 < percent <= 100:
        field.refuse(f"found {value:g}", f"a number above 0 and at most {of}")
        return None
    return percent


def read_method(method: Method, objective: Mapping[str, Field], around: Field) -> AnyMethod | None:
    """Read how an objective is budgeted; its slices stand in the objective itself."""
    needed = {
        "occurrences": (),
        "timeslices": ("timeSliceTarget", "timeSliceWindow"),
        "ratio_timeslices": ("timeSliceWindow",),
    }[method]
    for name in ("timeSliceTarget", "timeSliceWindow"):
        if name in objective and name not in needed:
            objective[name].refuse("is of no use with this budgetingMethod", hint="remove it")
        elif name in needed and name not in objective:
            around.refuse(f"{name} is missing", hint="this budgetingMethod needs it")
    if any(name not in objective for name in needed):
        return None
    if method == "occurrences":
        return OccurrencesSettings(kind=method)
    window = objective["timeSliceWindow"]
    slice_s = _slice_seconds(window)
    if method == "ratio_timeslices":
        return None if slice_s is None else window.build(RatioTimeslicesSettings, kind=method, slice_s=slice_s)
    target = read_percent(objective["timeSliceTarget"], of=1)
    if slice_s is None or target is None:
        return None
    share = 100 if target == 100 else target
    return window.build(TimeslicesSettings, kind=method, slice_s=slice_s, slice_objective=share)


def _slice_seconds(field: Field) -> float | None:
    """A bare number is minutes."""
    if not field.is_number:
        return read_seconds(field)
    minutes = field.number()
    return None if minutes is None else minutes * 60
