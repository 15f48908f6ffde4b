"""What is counted: from an objective's indicator to an object that takes samples and counts them.

Source of the words: https://github.com/OpenSLO/OpenSLO (ratioMetric, raw, thresholdMetric). A sample that cannot be
counted (NaN, infinite, a counter that falls, a ratio outside of 0..1) is refused by returning False, and counts
for nothing: what feeds an indicator must not fail for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Protocol

from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.settings import (
    CalendarWindowSettings,
    ObjectiveSettings,
    RatioIndicatorSettings,
    RatioTimeslicesSettings,
    RawRatioIndicatorSettings,
    ThresholdIndicatorSettings,
    TimeslicesSettings,
)
from backend.shared.monitoring.timeslices import Slicer
from backend.shared.monitoring.windows import FRACTION, WHOLE
from modules.contracts.clock import Clock

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<=": le, "<": lt, ">=": ge, ">": gt}
_LARGEST = 1e15
"""A counter that grows by more at once is no counter: beyond, doubles no longer hold every whole number."""
_INF = float("inf")


class MetricIndicator(Protocol):
    """Takes the samples of one metric."""

    def observe(self, value: float) -> bool:
        """Count a sample; False when it cannot be counted."""
        ...


class ThresholdIndicator:
    """Good is a sample that compares so with the threshold."""

    __slots__ = ("_satisfies", "_threshold", "_tracker")

    def __init__(self, tracker: Objective, settings: ThresholdIndicatorSettings) -> None:
        self._tracker = tracker
        self._satisfies = _COMPARE[settings.comparison]
        self._threshold = settings.threshold

    def observe(self, value: float) -> bool:
        if not -_INF < value < _INF:
            return False
        self._tracker.record(self._satisfies(value, self._threshold), value=value)
        return True


class CounterIndicator:
    """One counter of a ratio: each unit that it grows by changes good and total by so much."""

    __slots__ = ("_good", "_total", "_tracker")

    def __init__(self, tracker: Objective, *, good: int, total: int) -> None:
        self._tracker = tracker
        self._good = good
        self._total = total

    def observe(self, value: float) -> bool:
        if not 0 <= value <= _LARGEST:
            return False
        self._tracker.add(self._good * value, self._total * value, (self._total - self._good) * value)
        return True


class RawRatioIndicator:
    """Each sample is a ratio already. As a bad event counts one that falls short of the objective."""

    __slots__ = ("_of_success", "_tracker")

    def __init__(self, tracker: Objective, settings: RawRatioIndicatorSettings) -> None:
        self._tracker = tracker
        self._of_success = settings.of == "success"

    def observe(self, value: float) -> bool:
        if not 0 <= value <= 1:
            return False
        good = value if self._of_success else 1 - value
        self._tracker.add(good, 1, 1 if good * 100 < self._tracker.objective else 0, value=value)
        return True


def metric_indicators(settings: ObjectiveSettings, tracker: Objective) -> dict[str, list[MetricIndicator]]:
    """Return what counts the samples of each metric that the indicator names; nothing for checks and composites."""
    match settings.indicator:
        case ThresholdIndicatorSettings() as threshold:
            return {threshold.metric: [ThresholdIndicator(tracker, threshold)]}
        case RawRatioIndicatorSettings() as raw:
            return {raw.metric: [RawRatioIndicator(tracker, raw)]}
        case RatioIndicatorSettings() as ratio:
            # Without a counter of good ones all are good, until the other counter says that some were not.
            counted: dict[str, list[MetricIndicator]] = {
                ratio.total: [CounterIndicator(tracker, good=1 if ratio.bad else 0, total=1)]
            }
            part = ratio.bad or ratio.good or ""
            counted.setdefault(part, []).append(CounterIndicator(tracker, good=-1 if ratio.bad else 1, total=0))
            return counted
    return {}


def new_tracker(name: str, settings: ObjectiveSettings, *, window_s: float, clock: Clock) -> Objective:
    """Return what counts for an objective, over rolling windows up to ``window_s`` seconds and its calendar windows.

    Its name, under which samples are persisted, says what they are where they are not events.
    """
    slicer: Slicer | None = None
    ratios = isinstance(settings.indicator, RatioIndicatorSettings | RawRatioIndicatorSettings)
    match settings.method:
        case TimeslicesSettings() as method:
            slicer, types = Slicer(method.slice_s, method.slice_objective), WHOLE * 3
            stored = f"{name} [slices of {method.slice_s:g} s at {method.slice_objective:g} %]"
        case RatioTimeslicesSettings() as method:
            slicer, types = Slicer(method.slice_s, None), FRACTION + WHOLE * 2
            stored = f"{name} [ratios of {method.slice_s:g} s in millionths]"
        case _ if ratios:
            types = FRACTION * 2 if isinstance(settings.indicator, RatioIndicatorSettings) else FRACTION + WHOLE * 2
            stored = f"{name} [millionths]"
        case _:
            types, stored = WHOLE * 2, name
    return Objective(
        stored,
        objective=settings.objective,
        window_s=window_s,
        clock=clock,
        calendars=[(w.unit, w.time_zone) for w in settings.windows if isinstance(w, CalendarWindowSettings)],
        slicer=slicer,
        types=types,
    )
