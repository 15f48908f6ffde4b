"""OpenSLO v1 documents (https://openslo.com) of the objectives: services, SLOs, and an alert policy a row of the table.

A metric of ours is named by ``metricSource: {type: selfright, spec: {metric: NAME}}``, without prefix, as it is
recorded. Checks are counted by the program itself, so their counters are given as Prometheus queries. What OpenSLO
v1 has no words for is left out and said: composites, windows that are no whole minutes, and the short window of an
alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backend.shared.monitoring.burn import BurnAlert
from backend.shared.monitoring.exports.objective import Export, ExportedObjective, by_name, window_text
from backend.shared.monitoring.exports.promql import selector
from backend.shared.monitoring.exports.text import comment, dump
from backend.shared.monitoring.settings import (
    AnyMethod,
    AnyWindow,
    CompositeIndicatorSettings,
    HealthIndicatorSettings,
    RatioIndicatorSettings,
    RawRatioIndicatorSettings,
    RollingWindowSettings,
    ThresholdIndicatorSettings,
)

Document = dict[str, Any]

_OPERATORS = {"<=": "lte", "<": "lt", ">=": "gte", ">": "gt"}
_METHODS = {"occurrences": "Occurrences", "timeslices": "Timeslices", "ratio_timeslices": "RatioTimeslices"}
_CALENDAR = {"day": "1d", "week": "1w", "month": "1M", "quarter": "1Q", "year": "1Y"}
_CALENDAR_START = "2024-01-01 00:00:00"
"""A Monday on which a year, a quarter and a month begin: it fits every unit."""
_UNITS_S = (("d", 86_400), ("h", 3600), ("m", 60))
_MAX_DESCRIPTION = 1050


def openslo(objectives: Iterable[ExportedObjective]) -> Export:
    """Return the documents as one YAML text. Raises ConfigurationError where two objectives have the same name."""
    known = by_name(objectives)
    warnings: list[str] = []
    slos: list[Document] = []
    policies: list[Document] = []
    for objective in known.values():
        of_objective = list(_slos(objective, warnings))
        if of_objective:
            rows = _policies(objective, warnings)
            for slo in of_objective[:1]:
                slo["spec"]["alertPolicies"] = [{"alertPolicyRef": row["metadata"]["name"]} for row in rows]
            slos += of_objective
            policies += rows
    if policies:
        warnings.append(
            "alerts are written with their long windows alone: an OpenSLO condition has one window, and no least number"
            " of bad events"
        )
    services = sorted({slo["spec"]["service"] for slo in slos})
    documents = [*(_document("Service", name, {}) for name in services), *slos, *policies]
    head = comment(["OpenSLO v1 documents of the configured objectives.", *warnings])
    return Export(head + dump(*documents), tuple(warnings))


def _slos(objective: ExportedObjective, warnings: list[str]) -> Iterator[Document]:
    """Yield an SLO a window; OpenSLO allows one window in each."""
    indicator = _indicator(objective)
    if indicator is None:
        warnings.append(f"objective {objective.name!r} is left out: OpenSLO v1 has no composites")
        return
    if len(objective.description) > _MAX_DESCRIPTION:
        warnings.append(
            f"objective {objective.name!r}: its description is cut to the {_MAX_DESCRIPTION} characters of OpenSLO"
        )
    for index, window in enumerate(objective.windows):
        time_window = _time_window(window)
        target = _target(objective)
        if time_window is None or target is None:
            what = window_text(window) if time_window is None else f"slice of {_slice_s(objective.method):g} s"
            warnings.append(
                f"objective {objective.name!r}, {window_text(window)}, is left out: OpenSLO writes durations in whole"
                f" minutes, which its {what} is not"
            )
            continue
        name = objective.name if index == 0 else f"{objective.name}-{time_window['duration']}"
        yield _document(
            "SLO",
            name,
            {
                **({"description": objective.description[:_MAX_DESCRIPTION]} if objective.description else {}),
                "service": objective.service or objective.name,
                "indicator": {"metadata": {"name": objective.name}, "spec": indicator},
                "timeWindow": [time_window],
                "budgetingMethod": _METHODS[objective.method.kind],
                "objectives": [target],
            },
        )


def _indicator(objective: ExportedObjective) -> Document | None:
    match objective.indicator:
        case HealthIndicatorSettings():
            counters = objective.counters
            labels = dict([counters.label])
            return {
                "ratioMetric": {
                    "counter": True,
                    "good": _source("prometheus", query=selector(counters.part, labels)),
                    "total": _source("prometheus", query=selector(counters.total, labels)),
                }
            }
        case ThresholdIndicatorSettings(metric=metric):
            return {"thresholdMetric": _source("selfright", metric=metric)}
        case RatioIndicatorSettings(total=total, good=good, bad=bad):
            part = {"good": _source("selfright", metric=good)} if good else {"bad": _source("selfright", metric=bad)}
            return {"ratioMetric": {"counter": True, **part, "total": _source("selfright", metric=total)}}
        case RawRatioIndicatorSettings(metric=metric, of=of):
            return {"ratioMetric": {"counter": False, "rawType": of, "raw": _source("selfright", metric=metric)}}
        case CompositeIndicatorSettings():
            return None


def _source(kind: str, **spec: str | None) -> Document:
    return {"metricSource": {"type": kind, "spec": spec}}


def _target(objective: ExportedObjective) -> Document | None:
    """Return the objective's threshold, or None when its slices are no whole minutes."""
    target: Document = {"targetPercent": objective.objective}
    if isinstance(objective.indicator, ThresholdIndicatorSettings):
        target |= {"op": _OPERATORS[objective.indicator.comparison], "value": objective.indicator.threshold}
    method = objective.method
    if method.kind != "occurrences":
        slice_window = _duration(method.slice_s)
        if slice_window is None:
            return None
        target["timeSliceWindow"] = slice_window
        if method.kind == "timeslices":
            target["timeSliceTarget"] = round(method.slice_objective / 100, 12)
    return target


def _slice_s(method: AnyMethod) -> float:
    return 0.0 if method.kind == "occurrences" else method.slice_s


def _time_window(window: AnyWindow) -> Document | None:
    if not isinstance(window, RollingWindowSettings):
        calendar = {"startTime": _CALENDAR_START, "timeZone": window.time_zone}
        return {"duration": _CALENDAR[window.unit], "isRolling": False, "calendar": calendar}
    length = _duration(window.length_s)
    return None if length is None else {"duration": length, "isRolling": True}


def _duration(seconds: float) -> str | None:
    """Return OpenSLO's shorthand for whole minutes, in the largest unit that fits; ``m`` is minutes."""
    return next((f"{seconds / unit_s:.0f}{unit}" for unit, unit_s in _UNITS_S if seconds % unit_s == 0), None)


def _policies(objective: ExportedObjective, warnings: list[str]) -> list[Document]:
    found: list[Document] = []
    for row in objective.burn_alerts:
        lookback, after = _duration(row.long_s), _duration(objective.alerting.pending_s)
        if lookback is None or after is None:
            warnings.append(
                f"objective {objective.name!r}: its {row.severity} alert over {row.long_s:g} s is left out: OpenSLO"
                " writes durations in whole minutes"
            )
            continue
        found.append(_policy(objective, row, lookback, "0m" if after == "0d" else after))
    return found


def _policy(objective: ExportedObjective, row: BurnAlert, lookback: str, after: str) -> Document:
    name = f"{objective.name}-{row.severity}-{lookback}"
    condition: Mapping[str, Any] = {
        "kind": "burnrate",
        "op": "gte",
        "threshold": round(row.factor, 9),
        "lookbackWindow": lookback,
        "alertAfter": after,
    }
    return _document(
        "AlertPolicy",
        name,
        {
            "alertWhenBreaching": True,
            "alertWhenResolved": True,
            "alertWhenNoData": False,
            "conditions": [
                {
                    "kind": "AlertCondition",
                    "metadata": {"name": name},
                    "spec": {"severity": row.severity, "condition": condition},
                }
            ],
            "notificationTargets": [],
        },
    )


def _document(kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": "openslo/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
