"""Budgeting by slices of time instead of events, as in OpenSLO: Timeslices and RatioTimeslices.

With Timeslices a slice counts once, as good when at least its objective of events was good; with RatioTimeslices it
counts once with the ratio of its good events. Quiet and busy slices then weigh the same. A slice without events
counts for nothing, and one counts only when it is over, in its last instant.
Source: https://github.com/OpenSLO/OpenSLO (budgetingMethod).

Pure: time is handed in as seconds on any steady scale; slices begin at its multiples of their length.
"""

from __future__ import annotations

from typing import NamedTuple


class Slice(NamedTuple):
    """A slice that is over: from ``start`` to ``end``, with its own share of good, 0..1, and its bad events."""

    start: float
    end: float
    good: float
    bad: float


class Slicer:
    """Gathers the events of the current slice.

    ``slice_objective`` is the percent of good events that makes a slice good; None counts its ratio.
    """

    __slots__ = ("_bad", "_good", "_number", "_total", "slice_objective", "slice_s")

    def __init__(self, slice_s: float, slice_objective: float | None) -> None:
        self.slice_s = slice_s
        self.slice_objective = slice_objective
        self._number = 0
        self._good: float = 0
        self._total: float = 0
        self._bad: float = 0

    def close(self, now: float) -> Slice | None:
        """Return the gathered slice when it is over at ``now`` and had events; it is then handed out once."""
        number = int(now // self.slice_s)
        if number <= self._number:
            return None
        ended, self._number = self._number, number
        good, total, bad = min(max(self._good, 0), self._total), self._total, self._bad
        self._good = self._total = self._bad = 0
        if not total:
            return None
        return Slice(ended * self.slice_s, (ended + 1) * self.slice_s, self._worth(good, total), bad)

    def add(self, good: float, total: float, bad: float) -> None:
        """Count events in the current slice; ``close`` comes before."""
        self._good += good
        self._total += total
        self._bad += bad

    def _worth(self, good: float, total: float) -> float:
        if self.slice_objective is None:
            return good / total
        # 100 - 99.9 is 0.09999999999999432; the rounding makes "exactly as many as promised" come out as good.
        return 1 if (total - good) * 100 <= round(100 - self.slice_objective, 9) * total * (1 + 1e-12) else 0
