"""Objectives of objectives: the SLI of a composite is the weighted mean of its members' SLIs.

A mean of ratios by weight, not by traffic, so that a quiet but vital part is heard beside a busy one. A member
without data in a window is left out of it; with none left there is no data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from backend.shared.monitoring.calendar_windows import CalendarKey
from backend.shared.monitoring.settings import AnyWindow, CalendarWindowSettings
from modules.contracts.errors import ConfigurationError, did_you_mean
from modules.contracts.slo import SLOTracker


class Source(Protocol):
    """Where an objective's counts come from; see ``Objective``."""

    @property
    def window_s(self) -> float: ...

    @property
    def calendars(self) -> Collection[CalendarKey]: ...

    @property
    def value(self) -> float | None: ...

    def read(self, window_s: float) -> tuple[float, float]: ...

    def read_all(self, windows_s: Sequence[float]) -> list[tuple[float, float]]: ...

    def bad_events(self, window_s: float) -> float: ...

    def read_calendar(self, key: CalendarKey) -> tuple[float, float, float, float]: ...


class TrackerSource:
    """A ``Source`` over a tracker that another module keeps and that can say its one window alone."""

    def __init__(self, tracker: SLOTracker) -> None:
        self._tracker = tracker
        self.window_s = tracker.report().window_s
        self.calendars: tuple[CalendarKey, ...] = ()

    @property
    def value(self) -> float | None:
        return self._tracker.report().value

    def read(self, window_s: float) -> tuple[float, float]:
        return self.read_all((window_s,))[0]

    def read_all(self, windows_s: Sequence[float]) -> list[tuple[float, float]]:
        report = self._tracker.report()
        return [(report.good, report.total) if length >= self.window_s else (0, 0) for length in windows_s]

    def bad_events(self, window_s: float) -> float:
        good, total = self.read(window_s)
        return total - good

    def read_calendar(self, key: CalendarKey) -> tuple[float, float, float, float]:
        raise ConfigurationError(f"{self._tracker.name} keeps no window of a calendar {key[0]}")


class Composite:
    """A ``Source`` over others: ``total`` is all their events, ``good`` the weighted share of it."""

    __slots__ = ("_members", "calendars", "value", "window_s")

    def __init__(self, members: Sequence[tuple[Source, float]]) -> None:
        self._members = tuple(members)
        self.window_s = min(source.window_s for source, _ in members)
        self.calendars: Collection[CalendarKey] = [
            key for key in members[0][0].calendars if all(key in source.calendars for source, _ in members)
        ]
        self.value: float | None = None

    def read(self, window_s: float) -> tuple[float, float]:
        """Return (good, total) of the last ``window_s`` seconds."""
        return self.read_all((window_s,))[0]

    def read_all(self, windows_s: Sequence[float]) -> list[tuple[float, float]]:
        """Return (good, total) of each of these lengths."""
        weights = [weight for _, weight in self._members]
        reads = zip(*(source.read_all(windows_s) for source, _ in self._members), strict=True)
        return [combine(zip(weights, *zip(*read, strict=True), strict=True)) for read in reads]

    def bad_events(self, window_s: float) -> float:
        """Return the bad events of all members in the last ``window_s`` seconds."""
        return sum(source.bad_events(window_s) for source, _ in self._members)

    def read_calendar(self, key: CalendarKey) -> tuple[float, float, float, float]:
        """Return (good, total, beginning, end) of the current period, in unix seconds."""
        reads = [(weight, source.read_calendar(key)) for source, weight in self._members]
        good, total = combine((weight, good, total) for weight, (good, total, _, _) in reads)
        return good, total, reads[0][1][2], reads[0][1][3]


def combine(parts: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """Return (good, total) of ``(weight, good, total)``: all events, and the weighted mean of the shares of it."""
    weights = share = events = 0.0
    for weight, good, total in parts:
        if total:
            weights += weight
            share += weight * good / total
            events += total
    return (events * share / weights, events) if weights else (0, 0)


def order(members: Mapping[str, Collection[str]], known: Collection[str]) -> list[str]:
    """Return the composites of ``members``, each after those it contains.

    Raises ConfigurationError for a member that is not ``known`` and for a circle, which it shows as a path.
    """
    for name, parts in members.items():
        for part in parts:
            if part not in known:
                raise ConfigurationError(
                    f"composite objective {name}: its member {part!r} is no objective{did_you_mean(part, known)};"
                    f" there are: {', '.join(sorted(set(known) - {name})) or 'none'}"
                )
    try:
        return [name for name in TopologicalSorter(members).static_order() if name in members]
    except CycleError as error:
        path = " -> ".join(reversed(error.args[1]))
        raise ConfigurationError(
            f"composite objectives contain each other in a circle: {path}; remove one of these members"
        ) from None


def check_covers(name: str, part: str, source: Source, windows: Sequence[AnyWindow], longest_s: float) -> None:
    """Raise ConfigurationError unless the windows of composite ``name`` can be read from its member ``part``.

    ``longest_s`` is the longest rolling window, with those of its alerts.
    """
    for window in windows:
        if isinstance(window, CalendarWindowSettings) and (window.unit, window.time_zone) not in source.calendars:
            raise ConfigurationError(
                f"composite objective {name}: its member {part} keeps no calendar window {window.unit} in"
                f" {window.time_zone}; give it one"
            )
    if longest_s > source.window_s:
        raise ConfigurationError(
            f"composite objective {name}: with its alerts it looks back {longest_s / 86_400:g} days, but its member"
            f" {part} keeps {source.window_s / 86_400:g} days; shorten its windows, or lengthen the member's"
        )
