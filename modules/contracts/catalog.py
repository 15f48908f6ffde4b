"""Which metrics there are, what they are called, and how many series each may have.

Names follow the Prometheus conventions (https://prometheus.io/docs/practices/naming/): prefix, snake case, base
unit as a suffix, ``_total`` on counters alone. A metric keeps the kind, unit and label names of its first record.
Label values come from outside, so their number is capped: what exceeds it shares one series, ``"other"``.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, get_args

from modules.contracts.errors import ConfigurationError, did_you_mean
from modules.contracts.metrics import GaugeMode, MetricKind

_log = logging.getLogger(__name__)

MAX_SERIES = 1000
"""Series that a metric may have before further label values are counted as ``"other"``."""
OVERFLOW = "other"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
"""Upper bounds of every histogram, in the metric's own unit."""
BOUNDS = (*(repr(bound) for bound in BUCKETS), "+Inf")
"""The same as text, as the label ``le`` has it, with the last bucket's."""
MAX_EXEMPLAR = 128
"""Characters of an exemplar's label names and values together (OpenMetrics 1.0, "Exemplars")."""

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""What a metric's full name, or a prefix of it, may be."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_RESERVED_LABELS = ("le", "quantile")
_KINDS: tuple[str, ...] = get_args(MetricKind)
_MODES: tuple[str, ...] = get_args(GaugeMode)
_BASE_UNIT = {
    **dict.fromkeys(("ms", "millis", "milliseconds"), "seconds (value / 1000)"),
    **dict.fromkeys(("us", "microseconds", "ns", "nanoseconds", "s", "sec", "second"), "seconds"),
    **dict.fromkeys(("minutes", "hours", "days"), "seconds"),
    **dict.fromkeys(("byte", "kb", "kib", "kilobytes", "mb", "mib", "megabytes", "gb", "gib", "gigabytes"), "bytes"),
    **dict.fromkeys(("percent", "percentage", "pct"), "ratio (value / 100)"),
}
_ITS_OWN = "a metric of the collector itself"
_SUFFIXES = {"counter": ("_created",), "gauge": (), "histogram": ("_bucket", "_count", "_sum", "_created")}


class Series(Protocol):
    """The values of one metric with one set of label values."""

    @property
    def value(self) -> float | None:
        """The newest value of a gauge or histogram, the total of a counter."""
        ...

    def record(self, value: float) -> None: ...


S = TypeVar("S", bound=Series)


@dataclass(slots=True, eq=False)
class Family(Generic[S]):
    """A metric: ``name`` is its full one; ``series`` are by label values in the order of ``label_names``."""

    name: str
    kind: MetricKind
    unit: str
    help: str
    label_names: tuple[str, ...]
    gauge_mode: GaugeMode = "all"
    series: dict[tuple[str, ...], S] = field(default_factory=dict)
    overflowed: bool = False


class MetricCatalog(Generic[S]):
    """All metrics of one collector. ``new_series`` is called once for each new set of label values."""

    def __init__(
        self,
        prefix: str,
        new_series: Callable[[Family[S], tuple[str, ...]], S],
        *,
        reserved: tuple[str, ...] = (),
        reserved_labels: tuple[str, ...] = (),
        max_series: int = MAX_SERIES,
    ) -> None:
        if not isinstance(prefix, str) or not NAME.fullmatch(prefix):
            raise ConfigurationError(
                f"prefix of metrics: found {prefix!r}; allowed are letters, digits and underscores, no digit first"
            )
        if max_series < 1:
            raise ConfigurationError(f"max_series of metrics must be at least 1, found {max_series!r}")
        self.prefix = prefix
        self._new_series = new_series
        self._max_series = max_series
        self._reserved_labels = (*_RESERVED_LABELS, *reserved_labels)
        self._families: dict[str, Family[S]] = {}
        self._taken = dict.fromkeys(reserved, _ITS_OWN)

    @property
    def families(self) -> tuple[Family[S], ...]:
        """All metrics, sorted by full name."""
        return tuple(sorted(self._families.values(), key=lambda family: family.name))

    def series(
        self,
        name: str,
        value: float,
        labels: Mapping[str, str] | None,
        *,
        kind: MetricKind,
        unit: str,
        help: str,
        gauge_mode: GaugeMode = "all",
        exemplar: Mapping[str, str] | None = None,
    ) -> S:
        """Return where ``value`` is to be recorded, declaring the metric when it is new.

        Raises ConfigurationError when it cannot be recorded so, and then declares nothing.
        """
        try:
            usable = math.isfinite(value) and (value >= 0 or kind != "counter")
        except (TypeError, OverflowError):
            usable = False
        if not usable:
            allowed = "a finite number of at least 0, as counters only grow" if kind == "counter" else "a finite number"
            raise ConfigurationError(f"metric {name}: found {value!r}; record {allowed}")
        if exemplar:
            _check_exemplar(name, kind, exemplar)
        family = self._families.get(name)
        if family is None:
            family = self._declare(name, labels or {}, kind=kind, unit=unit, help=help, gauge_mode=gauge_mode)
        elif family.kind != kind or family.unit != unit or family.gauge_mode != gauge_mode:
            raise ConfigurationError(
                f"metric {name} is {_described(family.kind, family.unit, family.gauge_mode)}, but this record says"
                f" {_described(kind, unit, gauge_mode)}; record it the same way everywhere, or choose another name"
            )
        key = self._key(name, family, labels or {})
        try:
            series = family.series.get(key)
        except TypeError:  # a label value that cannot be a key is no text either, which is said below
            series = None
        return self._add_series(name, family, key) if series is None else series

    def is_recorded(self, full: str) -> bool:
        """Whether a recorded metric is exposed under this full name, or has a sample of this name."""
        return full in self._taken and self._taken[full] != _ITS_OWN

    def value(self, name: str, labels: Mapping[str, str] | None) -> float | None:
        """Return a series' value, or None when there is no such series."""
        family = self._families.get(name)
        if family is None or set(labels or ()) != set(family.label_names):
            return None
        series = family.series.get(tuple(exposable((labels or {})[label]) for label in family.label_names))
        return series.value if series else None

    def _key(self, name: str, family: Family[S], labels: Mapping[str, str]) -> tuple[str, ...]:
        try:
            key = tuple([labels[label] for label in family.label_names])
        except KeyError:
            key = ()
        if len(labels) != len(family.label_names) or len(key) != len(labels):
            raise ConfigurationError(
                f"metric {name} has labels ({', '.join(family.label_names) or 'none'}), but this record has"
                f" ({', '.join(sorted(labels)) or 'none'}); a metric has the same labels in every record"
            )
        return key

    def _declare(
        self, name: str, labels: Mapping[str, str], *, kind: MetricKind, unit: str, help: str, gauge_mode: GaugeMode
    ) -> Family[S]:
        full = full_name(self.prefix, name, kind, unit)
        if gauge_mode not in _MODES or (gauge_mode != "all" and kind != "gauge"):
            raise ConfigurationError(
                f"metric {name}: found gauge_mode {gauge_mode!r} for a {kind}; allowed for a gauge: {', '.join(_MODES)}"
            )
        for label in labels:
            if not isinstance(label, str) or not _LABEL.fullmatch(label) or label in self._reserved_labels:
                raise ConfigurationError(
                    f"metric {name}: label name {label!r}; allowed are letters, digits and underscores, a letter first,"
                    f" and not {' or '.join(self._reserved_labels)}"
                )
        _check_label_values(name, labels)
        base = full.removesuffix("_total") if kind == "counter" else full
        samples = {full, base, *(base + suffix for suffix in _SUFFIXES[kind])}
        for sample in sorted(samples):
            if sample in self._taken:
                raise ConfigurationError(
                    f"metric {name} would be exposed as {sample}, which is taken by {self._taken[sample]};"
                    " choose another name"
                )
        family: Family[S] = Family(full, kind, unit, exposable(help), tuple(sorted(labels)), gauge_mode)
        self._taken |= dict.fromkeys(samples, f"the {kind} {name}")
        self._families[name] = family
        return family

    def _add_series(self, name: str, family: Family[S], key: tuple[str, ...]) -> S:
        _check_label_values(name, dict(zip(family.label_names, key, strict=True)))
        key = tuple(exposable(value) for value in key)
        if key in family.series:
            return family.series[key]
        if len(family.series) >= self._max_series and family.label_names:
            if not family.overflowed:
                family.overflowed = True
                _log.warning(
                    "metric %s has %d series; further values of its labels (%s) count as %r; use labels with few",
                    name,
                    len(family.series),
                    ", ".join(family.label_names),
                    OVERFLOW,
                )
            key = (OVERFLOW,) * len(key)
            if key in family.series:
                return family.series[key]
        series = self._new_series(family, key)
        family.series[key] = series
        return series


def full_name(prefix: str, name: str, kind: MetricKind, unit: str) -> str:
    """Return the name under which a metric is exposed. Raises ConfigurationError when a part cannot be used."""
    if kind not in _KINDS:
        raise ConfigurationError(f"metric {name}: found kind {kind!r}; allowed: {', '.join(_KINDS)}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        snake = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name))).strip("_").lower()
        raise ConfigurationError(
            f"metric name {name!r}: allowed are lower-case letters, digits and underscores, a letter first"
            f"{did_you_mean(str(name), [snake])}"
        )
    if unit in _BASE_UNIT:
        raise ConfigurationError(f"metric {name}: unit {unit!r} is no base unit; record {_BASE_UNIT[unit]} instead")
    if unit and not _NAME.fullmatch(unit):
        raise ConfigurationError(f"metric {name}: unit {unit!r}; a unit is a lower-case word such as seconds or bytes")
    if name.endswith("_total") and kind != "counter":
        raise ConfigurationError(f"metric {name} is a {kind}; only counters end in _total, choose another name")
    full = f"{prefix}_{name.removesuffix('_total')}"
    if unit and not full.endswith(f"_{unit}"):
        full += f"_{unit}"
    return f"{full}_total" if kind == "counter" else full


def _described(kind: MetricKind, unit: str, gauge_mode: GaugeMode) -> str:
    return f"a {kind} with unit {unit!r}" + (f" and gauge_mode {gauge_mode!r}" if gauge_mode != "all" else "")


def _check_exemplar(name: str, kind: MetricKind, exemplar: Mapping[str, str]) -> None:
    """Refuse what OpenMetrics does not allow: one bad exemplar would spoil the whole exposition."""
    if kind == "gauge":
        raise ConfigurationError(f"metric {name} is a gauge; only counters and histograms have exemplars")
    if not isinstance(exemplar, Mapping):
        raise ConfigurationError(f"metric {name}: found exemplar {exemplar!r}; give labels, as {{'trace_id': ...}}")
    for label in exemplar:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ConfigurationError(
                f"metric {name}: exemplar label {label!r}; allowed are letters, digits and underscores, a letter first"
            )
    _check_label_values(name, exemplar)
    size = sum(len(label) + len(exposable(value)) for label, value in exemplar.items())
    if size > MAX_EXEMPLAR:
        raise ConfigurationError(
            f"metric {name}: its exemplar ({', '.join(sorted(exemplar))}) has {size} characters, names and values"
            f" together; OpenMetrics allows {MAX_EXEMPLAR}, keep the trace id alone"
        )


def _check_label_values(name: str, labels: Mapping[str, str]) -> None:
    for label, value in labels.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"metric {name}: label {label} has the value {value!r}; label values are text, use str()"
            )


def exposable(value: str) -> str:
    """Return text that every exposition can hold: bytes that are no UTF-8 arrive here as lone surrogates."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
