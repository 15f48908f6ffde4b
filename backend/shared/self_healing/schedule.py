"""When each service is checked next: phases spread over the interval, no drift, no burst after a delay.

Each service has its own grid ``origin + phase + k * interval``. Phases follow the golden-ratio (Weyl) sequence,
which keeps any number of services, joining at any time, nearly evenly apart. A check that comes late skips
the grid points that it missed; a quick re-probe is a single date off the grid. All times are monotonic
seconds, so a jump of the wall clock moves nothing.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

_GOLDEN = (math.sqrt(5) - 1) / 2
_START_SPACING_S = 0.001


@dataclass(slots=True)
class _Entry:
    anchor: float
    interval: float
    due: float | None = None


class Schedule:
    """The next due time of every service.

    ``offset`` in 0..1 shifts all phases alike, so that several runtimes do not probe in step.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self._offset = offset
        self._added = 0
        self._entries: dict[str, _Entry] = {}
        # Entries whose due time has changed stay in the heap and are passed over when they come up.
        self._heap: list[tuple[float, str]] = []

    def add(self, name: str, interval: float, now: float, *, first: float | None = None) -> None:
        """Schedule a service on its grid; its first check is due at ``first``.

        Without ``first`` services begin a millisecond apart, in the order in which they are added, so that
        something is soon known of each without all being checked at once.
        """
        phase = math.modf(self._offset + self._added * _GOLDEN)[0] * interval
        if first is None:
            first = now + min(len(self._entries) * _START_SPACING_S, interval)
        self._added += 1
        self._entries[name] = _Entry(now + phase, interval)
        self.at(name, first)

    def remove(self, name: str) -> None:
        """Forget a service; nothing happens when it is not scheduled."""
        self._entries.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def at(self, name: str, due: float) -> None:
        """Make the service due at ``due`` instead."""
        self._entries[name].due = due
        heapq.heappush(self._heap, (due, name))

    def on_grid(self, name: str, now: float) -> float:
        """Make the service due at the next point of its grid after ``now`` and return it."""
        entry = self._entries[name]
        steps = math.floor((now - entry.anchor) / entry.interval) + 1
        due = entry.anchor + steps * entry.interval
        if due <= now:  # the division was rounded down across a grid point
            due = max(entry.anchor + (steps + 1) * entry.interval, math.nextafter(now, math.inf))
        self.at(name, due)
        return due

    def take_due(self, now: float) -> list[str]:
        """Return what is due by ``now``, the earliest first; each must be scheduled anew afterwards."""
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            entry = self._entries.get(name)
            if entry is not None and entry.due == at:
                entry.due = None
                due.append(name)
        return due

    def next_due(self) -> float | None:
        """When the next check is due, or None when there is none."""
        while self._heap:
            at, name = self._heap[0]
            entry = self._entries.get(name)
            if entry is not None and entry.due == at:
                return at
            heapq.heappop(self._heap)
        return None
