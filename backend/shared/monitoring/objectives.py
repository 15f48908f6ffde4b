"""One service-level objective: what was promised, what was kept, how fast the budget burns.

A thin shell around the windows (``windows``, ``calendar_windows``), the slices (``timeslices``) and the alert
arithmetic (``burn``): it reads the clock, and hands out and takes back what must outlive a restart. Rolling windows
and slices run on the steady clock, so a wall clock that is set forward or back neither clears nor stretches them;
only calendar windows and persisted slots bear wall-clock time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from zoneinfo import ZoneInfo

from backend.shared.monitoring.burn import WINDOWS, alerts_firing, burn_alerts
from backend.shared.monitoring.calendar_windows import LONGEST_S, CalendarCounts, CalendarKey
from backend.shared.monitoring.timeslices import Slicer
from backend.shared.monitoring.windows import FRACTION, WHOLE, Windows
from modules.contracts.clock import Clock
from modules.contracts.slo import SLOReport, burn_rate, check_objective, summarize

SLOT_S = 60.0
"""Length of the slots in which samples are persisted, in seconds."""
MILLIONTHS = 1_000_000
"""Fractions are persisted in whole millionths."""
_LAST_INSTANT_S = 0.001
"""A slice counts so long before its end, and is so persisted in a slot of the period that it measured."""


class Objective:
    """An ``SLOTracker``: ``objective`` percent of all events of the last ``window_s`` seconds shall be good.

    ``calendars`` count beside, with ``slicer`` slices are counted in place of events, and ``types`` is that of
    ``Windows``. Raises ConfigurationError when the objective is not in (0, 100), the window not in (0, 366 days],
    or the name cannot be used. To be used from one thread.
    """

    __slots__ = (
        "_calendars",
        "_clock",
        "_drained",
        "_name",
        "_objective",
        "_offset",
        "_owed",
        "_restored",
        "_slicer",
        "_unit",
        "_value",
        "_window_s",
        "_windows",
    )

    def __init__(
        self,
        name: str,
        *,
        objective: float,
        window_s: float,
        clock: Clock,
        calendars: Collection[CalendarKey] = (),
        slicer: Slicer | None = None,
        types: str = WHOLE * 2,
    ) -> None:
        check_objective(name, objective, window_s)
        self._name = name
        self._objective = float(objective)
        self._window_s = float(window_s)
        self._clock = clock
        self._calendars = {key: CalendarCounts(key[0], ZoneInfo(key[1])) for key in calendars}
        self._slicer = slicer
        self._unit = MILLIONTHS if FRACTION in types else 1
        self._value: float | None = None
        # Steady time, on the scale of unix seconds so that its slots begin where persisted ones do.
        self._offset = clock.time() - clock.monotonic()
        now = self._now()
        self._windows = Windows(self._window_s, now, types)
        self._drained: tuple[float, float, float] = (now, 0, 0)
        self._owed: dict[float, tuple[int, int]] = {}
        self._restored: tuple[float, float] = (0, 0)

    @property
    def name(self) -> str:
        return self._name

    @property
    def objective(self) -> float:
        """Percent of good events that is promised."""
        return self._objective

    @property
    def window_s(self) -> float:
        """Length of the window in seconds."""
        return self._window_s

    @property
    def history_s(self) -> float:
        """How far back samples are of use to ``restore``, in seconds."""
        return max(self._window_s, *(LONGEST_S[unit] for unit, _ in self._calendars), 0)

    @property
    def calendars(self) -> Collection[CalendarKey]:
        """The calendar windows that are kept."""
        return self._calendars.keys()

    @property
    def value(self) -> float | None:
        """The newest sample, or None."""
        return self._value

    @property
    def counted(self) -> tuple[float, float]:
        """(good, total) that were counted by this program, without what was restored."""
        good, total = self._windows.sums
        return good - self._restored[0], total - self._restored[1]

    def record(self, good: bool, *, value: float | None = None) -> None:
        """Count one event now. ``value`` is kept as the newest sample."""
        if value is not None:
            self._value = value
        if self._slicer is None and not self._calendars:
            self._windows.record(self._clock.monotonic() + self._offset, 1 if good else 0)
        else:
            self.add(1 if good else 0, 1, 0 if good else 1)

    def add(self, good: float, total: float, bad: float, *, value: float | None = None) -> None:
        """Count ``total`` events now, ``good`` of them good and ``bad`` not, which need not add up in one call."""
        if value is not None:
            self._value = value
        if self._slicer is not None:
            self._settle()
            self._slicer.add(good, total, bad)
            return
        self._windows.record(self._now(), good, total, bad)
        for calendar in self._calendars.values():
            calendar.record(self._clock.time(), good, total)

    def read(self, window_s: float) -> tuple[float, float]:
        """Return (good, total) of the last ``window_s`` seconds, good in 0..total."""
        return self.read_all((window_s,))[0]

    def read_all(self, windows_s: Iterable[float]) -> list[tuple[float, float]]:
        """Return (good, total) of each of these lengths, as ``read`` does."""
        now, read = self._settle(), self._windows.read
        counts = [read(now, window_s) for window_s in windows_s]
        # Between the two counters of a ratio one may run ahead of the other.
        return [count if 0 <= count[0] <= count[1] else (min(max(count[0], 0), count[1]), count[1]) for count in counts]

    def bad_events(self, window_s: float) -> float:
        """Return how many events of the last ``window_s`` seconds were bad, also where slices are counted."""
        return self._windows.bad(self._settle(), window_s)

    def read_calendar(self, key: CalendarKey) -> tuple[float, float, float, float]:
        """Return (good, total, beginning, end) of the current period of one of ``calendars``, in unix seconds."""
        self._settle()
        good, total, start, end = self._calendars[key].read(self._clock.time())
        return min(max(good, 0), total), total, start, end

    def report(self) -> SLOReport:
        """Return the state of the objective now."""
        lengths = [length for length in WINDOWS.values() if length <= self._window_s]
        counts = dict(zip(lengths, self.read_all(lengths), strict=True))
        rates: dict[str, float] = {}
        for label, length in zip(WINDOWS, lengths, strict=False):
            rate = burn_rate(self._objective, *counts[length])
            if rate is not None:
                rates[label] = rate
        good, total = self.read(self._window_s)
        alerts = burn_alerts(self._objective, self._window_s)
        return summarize(
            self._name,
            self._objective,
            self._window_s,
            (round(good), round(total)),
            burn_rates=rates,
            alerting=bool(alerts_firing(alerts, self._objective, counts)),
            value=self._value,
        )

    def restore(self, samples: Mapping[float, tuple[int, int]]) -> None:
        """Take back ``{slot start, unix seconds: (good, total)}`` from an earlier run; future slots are dropped."""
        # What was counted before this call is still to be drained; what is restored never is.
        self._owed = self.drain()
        now, shift, wall = self._now(), self._shift(), self._clock.time()
        past: list[tuple[float, float, float]] = [(start, good, total) for start, (good, total) in samples.items()]
        if self._unit != 1:
            past = [(start, good / self._unit, total / self._unit) for start, good, total in past]
        good, total = self._windows.sums
        self._windows.add_history(now, ((start - shift, good, total) for start, good, total in past))
        self._drained = (now, *self._windows.sums)
        more_good, more_total = self._windows.sums
        self._restored = (self._restored[0] + more_good - good, self._restored[1] + more_total - total)
        for calendar in self._calendars.values():
            calendar.add_history(wall, past)

    def drain(self) -> dict[float, tuple[int, int]]:
        """Return ``{60-s slot start, unix seconds: (good, total)}`` recorded since the last drain.

        Not drained for long, the older slots come as coarse as the windows keep them. Slices come in the slot in
        which they ended, fractions in millionths.
        """
        slots, self._owed = self._owed, {}
        since, good, total = self._drained
        now = self._settle()
        newest = self._windows.sums
        if newest != (good, total):
            shift = self._shift()
            for at, good_then, total_then in [*self._windows.marks(since), (now, *newest)]:
                if (good_then, total_then) != (good, total):
                    slot = (since + shift) // SLOT_S * SLOT_S
                    kept_good, kept_total = slots.get(slot, (0, 0))
                    slots[slot] = (
                        kept_good + round((good_then - good) * self._unit),
                        kept_total + round((total_then - total) * self._unit),
                    )
                since, good, total = at, good_then, total_then
        self._drained = (max(now, since), *newest)
        return slots

    def _settle(self) -> float:
        """Count the slice that is over, and return the steady time."""
        now = self._now()
        if self._slicer is not None and (ended := self._slicer.close(now)) is not None:
            self._windows.record(ended.end - _LAST_INSTANT_S, ended.good, 1, round(ended.bad))
            for calendar in self._calendars.values():
                calendar.record(ended.start + self._shift(), ended.good, 1)
        return now

    def _now(self) -> float:
        return self._clock.monotonic() + self._offset

    def _shift(self) -> float:
        """How far the wall clock was set since the start, in whole seconds: less is drift and rounding."""
        return float(round(self._clock.time() - self._now()))
