"""What objectives say of themselves at ``/metrics``, computed when it is asked for.

``slo_*`` are the objectives that a collector keeps on its own samples, ``objective_*`` those of the SLO engine.
Ratios lie in 0..1 (a budget below 0 is overspent); what has no data has no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from modules.contracts.metrics import Gauge
from modules.contracts.slo import ObjectiveReport, SLOReport, SLOStatus

SLO_GAUGES: Mapping[str, str] = {
    "slo_objective_ratio": "Share of good events that is promised.",
    "slo_sli_ratio": "Share of good events in the window of the objective.",
    "slo_error_budget_remaining_ratio": "Share of the error budget that is left; negative when overspent.",
    "slo_burn_rate": "Speed at which the error budget is spent; at 1 it lasts exactly its window.",
}
OBJECTIVE_GAUGES: Mapping[str, str] = {
    "objective_ratio": "Share of good events that an objective promises.",
    "objective_sli_ratio": "Share of good events in the first window of an objective.",
    "objective_error_budget_remaining_ratio": "Share of an objective's error budget left; negative when overspent.",
    "objective_burn_rate": "Speed at which an objective's budget is spent; at 1 it lasts exactly its window.",
    "objective_status": "1 for the status that an objective is in, 0 for the others.",
}

_Sample = tuple[str, Mapping[str, str], float]
R = TypeVar("R")


def slo_gauges(prefix: str, reports: Iterable[SLOReport]) -> list[Gauge]:
    """Return the gauges of a collector's own objectives."""
    return _gauges(prefix, SLO_GAUGES, reports, _slo_samples)


def objective_gauges(prefix: str, reports: Iterable[ObjectiveReport]) -> list[Gauge]:
    """Return the gauges of the SLO engine's objectives; ``service`` is empty where there is none."""
    return _gauges(prefix, OBJECTIVE_GAUGES, reports, _objective_samples)


def _gauges(
    prefix: str, helps: Mapping[str, str], reports: Iterable[R], samples_of: Callable[[R], Iterator[_Sample]]
) -> list[Gauge]:
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name in helps}
    for report in reports:
        for name, labels, value in samples_of(report):
            samples[name].append((labels, value))
    return [Gauge(f"{prefix}_{name}", help, tuple(samples[name])) for name, help in helps.items() if samples[name]]


def _slo_samples(report: SLOReport) -> Iterator[_Sample]:
    labels = {"slo": report.name}
    yield "slo_objective_ratio", labels, report.objective / 100
    if report.sli is not None:
        yield "slo_sli_ratio", labels, report.sli / 100
    if report.error_budget_remaining is not None:
        yield "slo_error_budget_remaining_ratio", labels, report.error_budget_remaining / 100
    for window, rate in report.burn_rates.items():
        yield "slo_burn_rate", {**labels, "window": window}, rate


def _objective_samples(report: ObjectiveReport) -> Iterator[_Sample]:
    name = {"objective": report.name}
    labels = {**name, "service": report.service or ""}
    yield "objective_ratio", labels, report.objective / 100
    if report.sli is not None:
        yield "objective_sli_ratio", labels, report.sli / 100
    if report.error_budget_remaining is not None:
        yield "objective_error_budget_remaining_ratio", labels, report.error_budget_remaining / 100
    for window, rate in report.burn_rates.items():
        yield "objective_burn_rate", {**name, "window": window}, rate
    for status in SLOStatus:
        yield "objective_status", {**name, "status": status.value}, float(status is report.status)
