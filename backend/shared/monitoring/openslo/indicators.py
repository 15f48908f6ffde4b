"""OpenSLO's service level indicators, over metrics of ours.

A metric source is taken when it is of type ``selfright`` and names a metric as it is recorded, or of type
``prometheus`` and its query is nothing but the name of one of our series. Anything else would have to be asked
of another system, which an engine inside the process does not do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from backend.shared.monitoring.openslo.fields import Field
from backend.shared.monitoring.settings import (
    METRIC_NAME,
    AnyIndicator,
    RatioIndicatorSettings,
    RawRatioIndicatorSettings,
    ThresholdIndicatorSettings,
)

_OPERATORS: Mapping[str, Literal["<=", "<", ">=", ">"]] = {"lte": "<=", "lt": "<", "gte": ">=", "gt": ">"}
_RAW_TYPES: Mapping[str, Literal["success", "failure"]] = {"success": "success", "failure": "failure"}
_SOURCES = "type: selfright with spec.metric, or type: prometheus with spec.query, a bare metric name"
# What the exposition adds to the name of a recorded metric, and cannot be told from it again.
_ADDED = ("_seconds", "_bytes", "_ratio", "_bucket", "_count", "_sum", "_created")
_DESCRIPTION = 1050


@dataclass(frozen=True, slots=True)
class Thresholded:
    """A metric of raw samples; the objective says what they are compared with."""

    metric: str


Indicator = Thresholded | RatioIndicatorSettings | RawRatioIndicatorSettings


class IndicatorReader:
    """Reads indicators. ``prefix`` is that of our metrics, ``sources`` are the types of the DataSources by name."""

    def __init__(self, prefix: str, sources: Mapping[str, str | None]) -> None:
        self._prefix = prefix
        self._sources = sources

    def read(self, spec: Field) -> Indicator | None:
        """Read the ``spec`` of an SLI."""
        given = spec.fields((), ("description", "thresholdMetric", "ratioMetric"))
        read_description(given)
        threshold, ratio = given.get("thresholdMetric"), given.get("ratioMetric")
        if threshold is not None and ratio is None:
            metric = self._metric(threshold)
            return None if metric is None else Thresholded(metric)
        if ratio is not None and threshold is None:
            return self._ratio(ratio)
        spec.refuse("needs exactly one of thresholdMetric and ratioMetric")
        return None

    def _ratio(self, field: Field) -> Indicator | None:
        given = field.fields((), ("counter", "good", "bad", "total", "raw", "rawType"))
        counter = given["counter"].flag() if "counter" in given else None
        metrics = {name: self._metric(given[name]) for name in ("good", "bad", "total", "raw") if name in given}
        if "raw" in metrics:
            return self._raw(field, given, metrics["raw"])
        if "rawType" in given:
            given["rawType"].refuse("is of no use without raw", hint="remove it")
        if counter is False:
            allowed = "true: what is added to two counters is counted"
            given["counter"].refuse("is false: the two metrics would be gauges", allowed)
        if ("good" in metrics) == ("bad" in metrics) or "total" not in metrics:
            field.refuse("needs total, and exactly one of good and bad; or else raw")
            return None
        if None in metrics.values():
            return None
        return field.build(RatioIndicatorSettings, kind="ratio", **metrics)

    def _raw(self, field: Field, given: Mapping[str, Field], metric: str | None) -> Indicator | None:
        for name in ("good", "bad", "total"):
            if name in given:
                given[name].refuse("cannot stand together with raw", hint="keep one of them")
        if "rawType" not in given:
            field.refuse("rawType is missing", ", ".join(_RAW_TYPES))
            return None
        of = given["rawType"].choice(_RAW_TYPES)
        if of is None or metric is None:
            return None
        return given["raw"].build(RawRatioIndicatorSettings, kind="raw_ratio", metric=metric, of=of)

    def _metric(self, holder: Field) -> str | None:
        """Return the recorded name of the metric that a ``metricSource`` stands for."""
        source = holder.fields(("metricSource",)).get("metricSource")
        if source is None:
            return None
        given = source.fields(("spec",), ("type", "metricSourceRef"))
        kind = self._type(source, given)
        spec = given.get("spec")
        if kind is None or spec is None:
            return None
        match kind.lower():
            case "selfright":
                return _named(spec)
            case "prometheus":
                return self._queried(spec)
        given.get("type", source).refuse(f"metrics of type {kind!r} cannot be read", _SOURCES)
        return None

    def _type(self, source: Field, given: Mapping[str, Field]) -> str | None:
        reference = given.get("metricSourceRef")
        named = reference.text() if reference else None
        if reference is not None and named is not None and "type" not in given:
            if named not in self._sources:
                allowed = ", ".join(self._sources) or "none is imported"
                reference.refuse(f"there is no DataSource {named!r}", allowed, "give the metricSource a type")
            return self._sources.get(named)
        if "type" not in given:
            source.refuse("type is missing", _SOURCES)
            return None
        return given["type"].text()

    def _queried(self, spec: Field) -> str | None:
        """From the name of a series to the name under which it is recorded: without prefix, and ``_total``."""
        query = spec.fields(("query",)).get("query")
        text = query.text() if query else None
        if query is None or text is None:
            return None
        own = f"{self._prefix}_"
        name = text.strip().removeprefix(own).removesuffix("_total")
        hint = "name the metric as it is recorded: type: selfright, spec: {metric: NAME}"
        if not text.strip().startswith(own) or not re.fullmatch(METRIC_NAME, name):
            query.refuse(f"{query} cannot be evaluated here", f"the bare name of a metric, {own}NAME", hint)
            return None
        if name.endswith(_ADDED):
            found = f"from {query} the recorded metric cannot be told, as units and parts are added to its name"
            query.refuse(found, hint=hint)
            return None
        return name


def _named(spec: Field) -> str | None:
    name = spec.fields(("metric",)).get("metric")
    metric = name.text() if name else None
    if name is None or metric is None:
        return None
    if not re.fullmatch(METRIC_NAME, metric):
        name.refuse(f"found {metric!r}", "the name as it is recorded: lower-case letters, digits and underscores")
        return None
    return metric


def with_threshold(indicator: Indicator, objective: Mapping[str, Field], around: Field) -> AnyIndicator | None:
    """Return an indicator as one objective uses it: ``op`` and ``value`` go with raw samples alone."""
    op, value = objective.get("op"), objective.get("value")
    if isinstance(indicator, Thresholded):
        if op is None or value is None:
            missing = " and ".join(name for name in ("op", "value") if name not in objective)
            around.refuse(f"{missing} missing", hint="an objective on a thresholdMetric needs op and value")
            return None
        comparison, threshold = op.choice(_OPERATORS), value.number()
        if comparison is None or threshold is None:
            return None
        return value.build(
            ThresholdIndicatorSettings,
            kind="threshold",
            metric=indicator.metric,
            comparison=comparison,
            threshold=threshold,
        )
    if value is not None:
        value.refuse("is of no use with a ratioMetric", hint="remove it; the target says how much must be good")
    # OpenSLO's own example writes ``op: gt`` beside a ratio, for: above the target.
    if op is not None and op.choice(_OPERATORS) in ("<=", "<"):
        op.refuse("a good ratio is not below its target", "gte, gt, or nothing")
    return indicator


def read_source_type(spec: Field) -> str | None:
    """Return the type of a DataSource; how to connect to it is nothing to us."""
    given = spec.fields(("type",), ("description", "connectionDetails"))
    return given["type"].text() if "type" in given else None


def read_description(given: Mapping[str, Field]) -> str:
    """Return the description of a ``spec``, empty when there is none."""
    if "description" not in given:
        return ""
    text = given["description"].text() or ""
    if len(text) > _DESCRIPTION:
        given["description"].refuse(f"has {len(text)} characters", f"at most {_DESCRIPTION}")
    return text
