"""How many events of the last five minutes, or thirty days, were good: in constant memory and constant time.

Tiered rings, each of fixed size, finer ones for shorter windows. A ring holds running sums: entry ``k`` is how
many events there had ever been when its slot ``k`` began. A record adds to two counters, and a window is the
difference between now and the beginning of its oldest whole slot, whatever its length. Nothing older than
the window counts; at its trailing edge less than one slot is left out.

Pure: time is handed in as seconds on any steady scale. When it goes backward, events count in the newest
slot; when it leaps ahead, the slots in between are empty and the rings clear themselves.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

_TIERS = ((10.0, 360), (60.0, 360), (300.0, 864), (3600.0, 720))


def tiers_for(window_s: float) -> tuple[tuple[float, int], ...]:
    """Return the ``(slot seconds, slots)`` that serve windows up to ``window_s``, finest first.

    A window below an hour has one ring with finer slots; one above 30 days has coarser slots in its last ring.
    """
    finest_s, finest_slots = _TIERS[0]
    if window_s < finest_s * finest_slots:
        return ((window_s / finest_slots, finest_slots),)
    chosen: list[tuple[float, int]] = []
    for slot_s, slots in _TIERS:
        chosen.append((slot_s, slots))
        if slot_s * slots >= window_s:
            return tuple(chosen)
    slot_s, slots = chosen.pop()
    return (*chosen, (slot_s * math.ceil(window_s / (slot_s * slots)), slots))


class _Ring:
    """Running sums at the beginnings of the newest ``size`` slots; ``head`` is the number of the newest."""

    __slots__ = ("good", "head", "size", "slot_s", "total")

    def __init__(self, slot_s: float, size: int, now: float) -> None:
        self.slot_s = slot_s
        self.size = size
        self.head = int(now // slot_s)
        # Repeating allocates exactly this; growing from bytes would hold a sixteenth more.
        self.good = array("Q", (0,)) * size
        self.total = array("Q", (0,)) * size

    @property
    def oldest(self) -> int:
        return self.head - self.size + 1

    def advance(self, now: float, good: int, total: int) -> None:
        """Open the slots up to ``now`` with the sums as they stand."""
        head = int(now // self.slot_s)
        for slot in range(max(self.head + 1, head - self.size + 1), head + 1):
            self.good[slot % self.size] = good
            self.total[slot % self.size] = total
        self.head = max(self.head, head)

    def add_history(self, events: list[tuple[float, int, int]]) -> None:
        """Add ``(time, good, total)``, oldest first, to the sums of all later slots."""
        added_good = added_total = position = 0
        for slot in range(self.oldest, self.head + 1):
            while position < len(events) and events[position][0] // self.slot_s < slot:
                added_good += events[position][1]
                added_total += events[position][2]
                position += 1
            self.good[slot % self.size] += added_good
            self.total[slot % self.size] += added_total


class Windows:
    """Counts of good and all events over any window up to ``window_s`` seconds, beginning empty at ``now``."""

    __slots__ = ("_good", "_next", "_rings", "_total", "window_s")

    def __init__(self, window_s: float, now: float) -> None:
        self.window_s = window_s
        self._rings = tuple(_Ring(slot_s, size, now) for slot_s, size in tiers_for(window_s))
        self._good = self._total = 0
        self._next = self._finest_end()

    @property
    def sums(self) -> tuple[int, int]:
        """All (good, total) ever counted."""
        return self._good, self._total

    def slot_s(self, window_s: float) -> float:
        """Return the slot length of the ring that serves a window: its largest error."""
        return self._ring(window_s).slot_s

    def record(self, now: float, good: int, total: int = 1) -> None:
        """Count ``total`` events of which ``good`` were good."""
        if now >= self._next:
            self._advance(now)
        self._good += good
        self._total += total

    def read(self, now: float, window_s: float) -> tuple[int, int]:
        """Return (good, total) of the last ``window_s`` seconds; at least one slot, at most the longest window."""
        if now >= self._next:
            self._advance(now)
        ring = self._ring(window_s)
        # Once time has gone backward, windows end at the newest slot, where counting goes on.
        first = int((max(now, self._next - self._rings[0].slot_s) - window_s) // ring.slot_s) + 1
        index = min(max(first, ring.oldest), ring.head) % ring.size
        return self._good - ring.good[index], self._total - ring.total[index]

    def add_history(self, now: float, events: Iterable[tuple[float, int, int]]) -> None:
        """Count past ``(time, good, total)``; those after ``now`` are dropped."""
        self._advance(now)
        past = sorted(event for event in events if event[0] <= now)
        for ring in self._rings:
            ring.add_history(past)
        self._good += sum(good for _, good, _ in past)
        self._total += sum(total for _, _, total in past)

    def marks(self, since: float) -> list[tuple[float, int, int]]:
        """Return ``(time, good, total)`` sums at each slot's beginning after ``since``, as fine as they are kept."""
        found: list[tuple[float, int, int]] = []
        until = math.inf
        for ring in self._rings:
            first = max(int(since // ring.slot_s) + 1, ring.oldest)
            slots = range(first, ring.head + 1)
            found[:0] = [
                (slot * ring.slot_s, ring.good[slot % ring.size], ring.total[slot % ring.size])
                for slot in slots
                if slot * ring.slot_s < until
            ]
            until = ring.oldest * ring.slot_s
            if until <= since:
                break
        return found

    def _ring(self, window_s: float) -> _Ring:
        for ring in self._rings:
            if window_s <= ring.slot_s * ring.size:
                return ring
        return self._rings[-1]

    def _advance(self, now: float) -> None:
        for ring in self._rings:
            ring.advance(now, self._good, self._total)
        self._next = self._finest_end()

    def _finest_end(self) -> float:
        return (self._rings[0].head + 1) * self._rings[0].slot_s
