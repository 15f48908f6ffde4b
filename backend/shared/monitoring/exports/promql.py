"""The few PromQL expressions of which all rules and panels are made.

The share of bad events is a ratio of sums over series and time, never a mean of ratios, and it is absent, not 0 or
NaN, where nothing happened. ``rate`` extrapolates both counters alike, so the ratio is that of the counted events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from backend.shared.monitoring.exports.objective import ExportedObjective
from backend.shared.monitoring.settings import CompositeIndicatorSettings

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))

Objectives = Mapping[str, ExportedObjective]


def duration(seconds: float) -> str:
    """Return Prometheus' shortest text for a duration, exact to a millisecond: ``"5m"``, ``"30d"``, ``"1h30m"``."""
    left = round(seconds * 1000)
    text = ""
    for unit, length in _UNITS_MS:
        count, left = divmod(left, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def number(value: float) -> str:
    """Return a number with all its digits, a whole one without a point."""
    return repr(int(value)) if value == int(value) else repr(float(value))


def selector(metric: str, labels: Mapping[str, str]) -> str:
    """Return ``metric{label="value"}``, values quoted as PromQL reads them."""
    pairs = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    return f"{metric}{{{pairs}}}"


def bad_ratio(name: str, objectives: Objectives, window: str) -> str:
    """Return the share of bad events, 0..1, over ``window``; a composite's is the weighted mean of its members'."""
    indicator = objectives[name].indicator
    if isinstance(indicator, CompositeIndicatorSettings):
        shares = _members(indicator, lambda member: bad_ratio(member, objectives, window), "{weight} * ({value})")
        weights = _members(indicator, lambda member: bad_ratio(member, objectives, window), "{weight} + 0 * ({value})")
        return f"sum({shares})\n/\nsum({weights})"
    total, _ = _series(objectives[name])
    return f"({_bad('rate', objectives[name], window)})\n/\n(sum(rate({total}[{window}])) > 0)"


def bad_events(name: str, objectives: Objectives, window: str) -> str:
    """Return how many bad events there were in ``window``; a composite's are all of its members'."""
    indicator = objectives[name].indicator
    if isinstance(indicator, CompositeIndicatorSettings):
        return f"sum({_members(indicator, lambda member: bad_events(member, objectives, window), '{value}')})"
    return _bad("increase", objectives[name], window)


def _members(indicator: CompositeIndicatorSettings, value: Callable[[str], str], term: str) -> str:
    """Join what each member has; a label keeps them apart, and a member without data is not there."""
    return "\nor ".join(
        f'label_replace({term.format(weight=number(weight), value=value(member))}, "member", "m{index}", "", "")'
        for index, (member, weight) in enumerate(sorted(indicator.weights.items()))
    )


def _bad(function: str, objective: ExportedObjective, window: str) -> str:
    total, part = _series(objective)
    if objective.counters.part_is_bad:
        return f"sum({function}({part}[{window}]))"
    return f"sum({function}({total}[{window}])) - sum({function}({part}[{window}]))"


def _series(objective: ExportedObjective) -> tuple[str, str]:
    counters = objective.counters
    labels = dict([counters.label])
    return selector(counters.total, labels), selector(counters.part, labels)
