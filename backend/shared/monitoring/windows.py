"""How many events of the last five minutes, or thirty days, were good: in constant memory and constant time.

Tiered rings, each of fixed size, finer ones for shorter windows. A ring holds running sums: entry ``k`` is how
many events there had ever been when its slot ``k`` began. A record adds to the sums, and a window is the
difference between now and the beginning of its oldest whole slot, whatever its length. Nothing older than
the window counts; at its trailing edge less than one slot is left out.

Pure: time is handed in as seconds on any steady scale. When it goes backward, events count in the newest
slot; when it leaps ahead, the slots in between are empty and the rings clear themselves.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Any, TypeAlias

_TIERS = ((10.0, 360), (60.0, 360), (300.0, 864), (3600.0, 720))
WHOLE, FRACTION = "i", "d"
"""What a column of sums holds: whole numbers, or fractions."""


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


Column: TypeAlias = "array[Any]"  # of int or float, as its type says; array is not subscriptable before 3.12


def _put(column: Column, slots: list[int], value: float) -> Column:
    """Write ``value`` at each of ``slots`` and return the column, widened to 64 bits once 32 are too few."""
    try:
        for slot in slots:
            column[slot] = value
    except OverflowError:
        return _put(array("q", column), slots, value)
    return column


class _Ring:
    """Running sums at the beginnings of the newest ``size`` slots; ``head`` is the number of the newest."""

    __slots__ = ("columns", "head", "size", "slot_s")

    def __init__(self, slot_s: float, size: int, now: float, types: str) -> None:
        self.slot_s = slot_s
        self.size = size
        self.head = int(now // slot_s)
        # Repeating allocates exactly this; growing from bytes would hold a sixteenth more.
        self.columns: list[Column] = [array(code, (0,)) * size for code in types]

    @property
    def oldest(self) -> int:
        return self.head - self.size + 1

    def advance(self, now: float, sums: Iterable[float]) -> None:
        """Open the slots up to ``now`` with the sums as they stand."""
        head = int(now // self.slot_s)
        if head > self.head:
            slots = [slot % self.size for slot in range(max(self.head + 1, head - self.size + 1), head + 1)]
            self.columns = [_put(column, slots, value) for column, value in zip(self.columns, sums, strict=True)]
            self.head = head

    def add_history(self, events: list[tuple[float, tuple[float, ...]]]) -> None:
        """Add ``(time, counts)``, oldest first, to the sums of all later slots."""
        added = [0.0 if column.typecode == FRACTION else 0 for column in self.columns]
        position = 0
        for slot in range(self.oldest, self.head + 1):
            while position < len(events) and events[position][0] // self.slot_s < slot:
                added = [sum_ + more for sum_, more in zip(added, events[position][1], strict=True)]
                position += 1
            at = slot % self.size
            self.columns = [
                _put(column, [at], column[at] + more) for column, more in zip(self.columns, added, strict=True)
            ]


class Windows:
    """Counts of good and all events over any window up to ``window_s`` seconds, beginning empty at ``now``.

    ``types`` says of the good and the total sum whether they are WHOLE or FRACTION; a third one is for bad events
    where they are not the difference, as with ratios.
    """

    __slots__ = ("_bad", "_good", "_next", "_rings", "_total", "window_s")

    def __init__(self, window_s: float, now: float, types: str = WHOLE * 2) -> None:
        self.window_s = window_s
        self._rings = tuple(_Ring(slot_s, size, now, types) for slot_s, size in tiers_for(window_s))
        self._good: float = 0
        self._total: float = 0
        self._bad: float | None = 0 if len(types) > len("gt") else None
        self._next = self._finest_end()

    @property
    def sums(self) -> tuple[float, float]:
        """All (good, total) ever counted."""
        return self._good, self._total

    def slot_s(self, window_s: float) -> float:
        """Return the slot length of the ring that serves a window: its largest error."""
        return self._ring(window_s).slot_s

    def record(self, now: float, good: float, total: float = 1, bad: float = 0) -> None:
        """Count ``total`` events of which ``good`` were good; ``bad`` is for the third sum, where there is one."""
        if now >= self._next:
            self._advance(now)
        self._good += good
        self._total += total
        if self._bad is not None:
            self._bad += bad

    def read(self, now: float, window_s: float) -> tuple[float, float]:
        """Return (good, total) of the last ``window_s`` seconds; at least one slot, at most the longest window."""
        ring, index = self._at(now, window_s)
        columns = ring.columns
        return self._good - columns[0][index], self._total - columns[1][index]

    def bad(self, now: float, window_s: float) -> float:
        """Return the bad events of the last ``window_s`` seconds."""
        ring, index = self._at(now, window_s)
        then: list[float] = [column[index] for column in ring.columns]
        if self._bad is not None:
            return self._bad - then[2]
        return (self._total - then[1]) - (self._good - then[0])

    def add_history(self, now: float, events: Iterable[tuple[float, float, float]]) -> None:
        """Count past ``(time, good, total)``, what is not good as bad; those after ``now`` are dropped."""
        self._advance(now)
        past = sorted(event for event in events if event[0] <= now)
        whole = [column.typecode != FRACTION for column in self._rings[0].columns]
        counts: list[tuple[float, tuple[float, ...]]] = [
            (at, tuple(round(n) if w else n for w, n in zip(whole, (good, total, total - good), strict=False)))
            for at, good, total in past
        ]
        for ring in self._rings:
            ring.add_history(counts)
        self._good += sum(values[0] for _, values in counts)
        self._total += sum(values[1] for _, values in counts)
        if self._bad is not None:
            self._bad += sum(values[2] for _, values in counts)

    def marks(self, since: float) -> list[tuple[float, float, float]]:
        """Return ``(time, good, total)`` sums at each slot's beginning after ``since``, as fine as they are kept."""
        found: list[tuple[float, float, float]] = []
        until = math.inf
        for ring in self._rings:
            first = max(int(since // ring.slot_s) + 1, ring.oldest)
            good, total = ring.columns[0], ring.columns[1]
            slots = range(first, ring.head + 1)
            found[:0] = [
                (slot * ring.slot_s, good[slot % ring.size], total[slot % ring.size])
                for slot in slots
                if slot * ring.slot_s < until
            ]
            until = ring.oldest * ring.slot_s
            if until <= since:
                break
        return found

    def _at(self, now: float, window_s: float) -> tuple[_Ring, int]:
        if now >= self._next:
            self._advance(now)
        ring = self._ring(window_s)
        # Once time has gone backward, windows end at the newest slot, where counting goes on.
        until = self._next - self._rings[0].slot_s
        slot = int(((now if now > until else until) - window_s) // ring.slot_s) + 1
        head, size = ring.head, ring.size
        slot = slot if slot < head else head
        return ring, (slot if slot > head - size else head - size + 1) % size

    def _ring(self, window_s: float) -> _Ring:
        for ring in self._rings:
            if window_s <= ring.slot_s * ring.size:
                return ring
        return self._rings[-1]

    def _advance(self, now: float) -> None:
        sums = (self._good, self._total) if self._bad is None else (self._good, self._total, self._bad)
        for ring in self._rings:
            ring.advance(now, sums)
        self._next = self._finest_end()

    def _finest_end(self) -> float:
        return (self._rings[0].head + 1) * self._rings[0].slot_s
