"""Flap detection: does a service change its mind too often to be believed?

Nagios' rule: of the last 21 results, the 20 changes between neighbours are weighted from 0.80 for the oldest,
rising by 0.02, and their share of the greatest possible sum is compared with two thresholds, so that the
verdict itself does not flap (Nagios Core manual, "Detection and Handling of State Flapping").
"""

from __future__ import annotations

from collections import deque

RESULTS = 21
_CHANGES = RESULTS - 1

# Weights in units of 0.02, so that the running sum stays an exact integer: 40, 41, ... 59.
_OLDEST = 40
_NEWEST = _OLDEST + _CHANGES - 1
_GREATEST = sum(range(_OLDEST, _NEWEST + 1))


class FlapDetector:
    """Takes one result at a time, in constant time and memory.

    ``high`` and ``low`` are shares in 0..1 at which flapping begins and ends. Results that are not there yet
    count as unchanged, so a young service does not flap.
    """

    def __init__(self, high: float, low: float) -> None:
        self._high = high
        self._low = low
        self._last: bool | None = None
        self._changes: deque[bool] = deque([False] * _CHANGES, maxlen=_CHANGES)
        self._count = 0
        self._weighted = 0
        self.flapping = False
        """Whether the service flaps now."""

    @property
    def share(self) -> float:
        """The weighted share of changes, in 0..1."""
        return self._weighted / _GREATEST

    def observe(self, passed: bool) -> bool:
        """Take the newest result and return whether the verdict changed."""
        changed = self._last is not None and passed is not self._last
        self._last = passed
        dropped = self._changes[0]
        self._changes.append(changed)
        # The oldest change leaves with the lowest weight, every other one grows older by one unit.
        self._count -= dropped
        self._weighted += changed * _NEWEST - dropped * _OLDEST - self._count
        self._count += changed
        before = self.flapping
        self.flapping = self.share > self._low if before else self.share >= self._high
        return self.flapping is not before
