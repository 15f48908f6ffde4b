"""Spans in which this program itself did not run: SIGSTOP, a suspended machine, something that blocked its loop.

A probe that timed out meanwhile, or a heartbeat that grew old, says nothing about the service. Whoever sleeps
says until when, and says when it woke; what lies between is lost time. Pure: time is handed in as monotonic
seconds.
"""

from __future__ import annotations

from collections import deque

LEAST_S = 0.25
"""Shorter than this is an ordinary delay of a busy loop."""


class Stalls:
    """The newest spans of lost time."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque(maxlen=16)
        self._until: float | None = None

    def sleeps(self, until: float) -> None:
        """The program means to wake at ``until`` at the latest."""
        self._until = until

    def wakes(self, now: float) -> None:
        """It has woken."""
        if self._until is not None and now - self._until >= LEAST_S:
            self._spans.append((self._until, now))
        self._until = None

    def lost(self, since: float, now: float) -> float:
        """Seconds between ``since`` and ``now`` that were lost, also when the sleeper has yet to notice."""
        spans = list(self._spans)
        if self._until is not None and now - self._until >= LEAST_S:
            spans.append((self._until, now))
        return sum(max(0.0, min(end, now) - max(begin, since)) for begin, end in spans)
