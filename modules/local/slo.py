"""An objective without the backend: one plain window, no burn rates.

A queue of at most ``SLOTS`` slots with running sums, so a record and a report cost the same whatever the window. At
the window's trailing edge up to one slot, a 120th of it, counts too long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from modules.contracts.clock import Clock
from modules.contracts.slo import SLOReport, check_objective, summarize

SLOTS = 120
_DRAIN_SLOT_S = 60.0
_UNDRAINED_SLOTS = 1440


class LocalObjective:
    """An ``SLOTracker``: ``objective`` percent of all events of the last ``window_s`` seconds shall be good.

    Raises ConfigurationError when the objective is not in (0, 100), the window not in (0, 366 days], or the
    name cannot be used.
    """

    def __init__(self, name: str, *, objective: float, window_s: float, clock: Clock) -> None:
        check_objective(name, objective, window_s)
        self._name = name
        self._objective = float(objective)
        self._window_s = float(window_s)
        self._clock = clock
        self._slot_s = self._window_s / SLOTS
        self._slots: deque[list[int]] = deque()  # [number, good, total], oldest first
        self._good = self._total = 0
        self._value: float | None = None
        self._undrained: dict[float, tuple[int, int]] = {}

    @property
    def name(self) -> str:
        return self._name

    def record(self, good: bool, *, value: float | None = None) -> None:
        """Count one event now. ``value`` is kept as the newest sample."""
        if value is not None:
            self._value = value
        passed = 1 if good else 0
        self._count(self._clock.monotonic(), passed, 1)
        start = self._clock.time() // _DRAIN_SLOT_S * _DRAIN_SLOT_S
        drained_good, drained_total = self._undrained.get(start, (0, 0))
        self._undrained[start] = (drained_good + passed, drained_total + 1)
        if len(self._undrained) > _UNDRAINED_SLOTS:
            del self._undrained[next(iter(self._undrained))]  # nobody drains: memory matters more

    def report(self) -> SLOReport:
        """Return the state of the objective now."""
        self._forget(self._clock.monotonic())
        counts = (self._good, self._total)
        return summarize(self._name, self._objective, self._window_s, counts, value=self._value)

    def restore(self, samples: Mapping[float, tuple[int, int]]) -> None:
        """Take back ``{slot start, unix seconds: (good, total)}`` from an earlier run; future slots are dropped."""
        now, wall = self._clock.monotonic(), self._clock.time()
        own = list(self._slots)
        self._slots.clear()
        self._good = self._total = 0
        for start, (good, total) in sorted(samples.items()):
            if start <= wall:
                self._count(now - (wall - start), good, total)
        for number, good, total in own:
            self._count(number * self._slot_s, good, total)

    def drain(self) -> dict[float, tuple[int, int]]:
        """Return ``{60-s slot start, unix seconds: (good, total)}`` of at most a day since the last drain."""
        drained, self._undrained = self._undrained, {}
        return drained

    def _count(self, at: float, good: int, total: int) -> None:
        number = math.floor(at / self._slot_s)
        if not self._slots or number > self._slots[-1][0]:
            self._slots.append([number, 0, 0])
            self._forget(at)
        newest = self._slots[-1]
        newest[1] += good
        newest[2] += total
        self._good += good
        self._total += total

    def _forget(self, now: float) -> None:
        oldest = math.floor(now / self._slot_s) - SLOTS
        while self._slots and self._slots[0][0] < oldest:
            _, good, total = self._slots.popleft()
            self._good -= good
            self._total -= total
