"""One service-level objective: what was promised, what was kept, how fast the budget burns.

A thin shell around the windows (``windows``) and the alert arithmetic (``burn``): it reads the clock, gives the
verdict, and hands out and takes back what must outlive a restart. Windows run on the steady clock, so a wall
clock that is set forward or back neither clears nor stretches them; only persisted slots bear wall-clock time.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.shared.monitoring.burn import WINDOWS, alerts_firing, burn_alerts
from backend.shared.monitoring.windows import Windows
from modules.contracts.clock import Clock
from modules.contracts.slo import SLOReport, burn_rate, check_objective, summarize

SLOT_S = 60.0
"""Length of the slots in which samples are persisted, in seconds."""


class Objective:
    """An ``SLOTracker``: ``objective`` percent of all events of the last ``window_s`` seconds shall be good.

    Raises ConfigurationError when the objective is not in (0, 100), the window not in (0, 366 days], or the
    name cannot be used. To be used from one thread.
    """

    __slots__ = (
        "_alerts",
        "_clock",
        "_drained",
        "_name",
        "_named",
        "_objective",
        "_offset",
        "_owed",
        "_value",
        "_window_s",
        "_windows",
    )

    def __init__(self, name: str, *, objective: float, window_s: float, clock: Clock) -> None:
        check_objective(name, objective, window_s)
        self._name = name
        self._objective = float(objective)
        self._window_s = float(window_s)
        self._clock = clock
        self._alerts = burn_alerts(self._objective, self._window_s)
        self._named = [(label, length) for label, length in WINDOWS.items() if length <= self._window_s]
        self._value: float | None = None
        # Steady time, on the scale of unix seconds so that its slots begin where persisted ones do.
        self._offset = clock.time() - clock.monotonic()
        now = self._now()
        self._windows = Windows(self._window_s, now)
        self._drained = (now, 0, 0)
        self._owed: dict[float, tuple[int, int]] = {}

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

    def record(self, good: bool, *, value: float | None = None) -> None:
        """Count one event now. ``value`` is kept as the newest sample."""
        if value is not None:
            self._value = value
        self._windows.record(self._clock.monotonic() + self._offset, 1 if good else 0)

    def report(self) -> SLOReport:
        """Return the state of the objective now."""
        now = self._now()
        read = self._windows.read
        counts = {length: read(now, length) for _, length in self._named}
        rates: dict[str, float] = {}
        for label, length in self._named:
            rate = burn_rate(self._objective, *counts[length])
            if rate is not None:
                rates[label] = rate
        return summarize(
            self._name,
            self._objective,
            self._window_s,
            read(now, self._window_s),
            burn_rates=rates,
            alerting=bool(alerts_firing(self._alerts, self._objective, counts)),
            value=self._value,
        )

    def restore(self, samples: Mapping[float, tuple[int, int]]) -> None:
        """Take back ``{slot start, unix seconds: (good, total)}`` from an earlier run; future slots are dropped."""
        # What was counted before this call is still to be drained; what is restored never is.
        self._owed = self.drain()
        now, shift = self._now(), self._shift()
        self._windows.add_history(now, ((start - shift, good, total) for start, (good, total) in samples.items()))
        self._drained = (now, *self._windows.sums)

    def drain(self) -> dict[float, tuple[int, int]]:
        """Return ``{60-s slot start, unix seconds: (good, total)}`` recorded since the last drain.

        Not drained for long, the older slots come as coarse as the windows keep them.
        """
        slots, self._owed = self._owed, {}
        since, good, total = self._drained
        now = self._now()
        newest = self._windows.sums
        if newest[1] != total:
            shift = self._shift()
            for at, good_then, total_then in [*self._windows.marks(since), (now, *newest)]:
                if total_then != total:
                    slot = (since + shift) // SLOT_S * SLOT_S
                    kept_good, kept_total = slots.get(slot, (0, 0))
                    slots[slot] = (kept_good + good_then - good, kept_total + total_then - total)
                since, good, total = at, good_then, total_then
        self._drained = (max(now, since), *newest)
        return slots

    def _now(self) -> float:
        return self._clock.monotonic() + self._offset

    def _shift(self) -> float:
        """How far the wall clock was set since the start, in whole seconds: less is drift and rounding."""
        return float(round(self._clock.time() - self._now()))
