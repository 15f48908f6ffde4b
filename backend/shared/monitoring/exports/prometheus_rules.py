"""Recording and alert rules of objectives, for a Prometheus server that scrapes /metrics.

Names follow what Sloth made customary (https://sloth.dev): ``slo:sli_error:ratio_rate5m`` and the like, so that
dashboards for it work. The alerts are those of the engine, a rule a row of the table: the burn rate reaches the
row's factor over the long window and over the short one, which decides nothing while it has no events, and the long
window holds enough bad events. Factors are derived from budget share, period and long window.

Prometheus has no calendar and no slices of time, so what needs them is left out and said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backend.shared.monitoring.burn import WINDOWS, BurnAlert
from backend.shared.monitoring.exports.objective import Export, ExportedObjective, by_name, window_text
from backend.shared.monitoring.exports.promql import (
    Objectives,
    bad_events,
    bad_ratio,
    duration,
    number,
    selector,
)
from backend.shared.monitoring.exports.text import comment, dump
from backend.shared.monitoring.settings import CompositeIndicatorSettings, RollingWindowSettings

ALERT = "SLOErrorBudgetBurn"
"""The name of every alert; its labels say which objective, severity and window."""

_SCRAPES_A_WINDOW = 4
"""A rate needs two samples; with four in the shortest window one may be missed."""


def prometheus_rules(objectives: Iterable[ExportedObjective]) -> Export:
    """Return a rule file, a group an objective. Raises ConfigurationError where two have the same name."""
    known = by_name(objectives)
    groups, warnings = [], []
    for name, objective in known.items():
        if reason := _inexpressible(name, known):
            warnings.append(f"objective {name!r} is left out: {reason}")
            continue
        for window in objective.windows:
            if not isinstance(window, RollingWindowSettings):
                warnings.append(f"objective {name!r}: the budget of its {window_text(window)} is left out, as PromQL"
                                " knows no calendar; its burn rates and alerts are there")  # fmt: skip
        groups.append({"name": f"slo-{name}", "rules": list(_rules(objective, known))})
    head = comment(["Recording and alert rules of the configured objectives.", *_advice(known.values())])
    return Export(head + comment(warnings) + dump({"groups": groups}), tuple(warnings))


def _inexpressible(name: str, objectives: Objectives) -> str:
    """Return why an objective cannot be said in PromQL, or an empty text."""
    objective = objectives[name]
    if objective.method.kind != "occurrences":
        return f"its method, {objective.method.kind}, counts slices of time, which PromQL does not have"
    if isinstance(objective.indicator, CompositeIndicatorSettings):
        for member in objective.indicator.weights:
            if reason := _inexpressible(member, objectives):
                return f"it is made of {member!r}, and {reason}"
    return ""


def _rules(objective: ExportedObjective, known: Objectives) -> Iterator[dict[str, Any]]:
    """Yield the rules in the order in which they need each other; a group is evaluated from the top."""
    name, budget = objective.name, _budget(objective)
    labels = _labels(objective)
    alerts = objective.burn_alerts
    yield _record("slo:objective:ratio", f"vector({number(round(1 - budget, 12))})", labels)
    yield _record("slo:error_budget:ratio", f"vector({number(budget)})", labels)
    for window_s in _burn_windows_s(objective, alerts):
        window = duration(window_s)
        here = {**labels, "window": window}
        yield _record(f"slo:sli_error:ratio_rate{window}", bad_ratio(name, known, window), here)
        error = selector(f"slo:sli_error:ratio_rate{window}", here)
        yield _record("slo:burn_rate:ratio", f"{error} / {number(budget)}", here)
    for window_s in _periods_s(objective):
        window = duration(window_s)
        here = {**labels, "window": window}
        burn = selector("slo:burn_rate:ratio", here)
        yield _record("slo:period_error_budget_remaining:ratio", f"1 - {burn}", here)
    for long_s in sorted({alert.long_s for alert in alerts}):
        window = duration(long_s)
        yield _record(
            f"slo:error_events:increase{window}", bad_events(name, known, window), {**labels, "window": window}
        )
    for alert in alerts:
        yield _alert(objective, alert)


def _alert(objective: ExportedObjective, alert: BurnAlert) -> dict[str, Any]:
    labels, factor = _labels(objective), number(alert.factor)
    long, short = duration(alert.long_s), duration(alert.short_s)
    long_burn = selector("slo:burn_rate:ratio", {**labels, "window": long})
    short_burn = selector("slo:burn_rate:ratio", {**labels, "window": short})
    events = selector(f"slo:error_events:increase{long}", {**labels, "window": long})
    # increase() extrapolates, and by more than half an event only where there are hardly any samples.
    enough = number(objective.alerting.low_traffic.min_bad_events - 0.5)
    share = alert.factor * alert.long_s / objective.period_s
    described = f" {_untemplated(objective.description)}" if objective.description else ""
    rule: dict[str, Any] = {
        "alert": ALERT,
        "expr": f"(\n  {long_burn} >= {factor}\n  unless ignoring (window) {short_burn} < {factor}\n)\n"
        f"and {events} > {enough}\n",
    }
    if objective.alerting.pending_s:
        rule["for"] = duration(objective.alerting.pending_s)
    if objective.alerting.resolve_s:
        rule["keep_firing_for"] = duration(objective.alerting.resolve_s)
    return rule | {
        "labels": {"severity": alert.severity, **labels, "window": long},
        "annotations": {
            "summary": f"{_untemplated(objective.name)} burns its error budget"
            ' {{ $value | printf "%.1f" }} times too fast',
            "description": f"{number(objective.objective)} % are promised. At {alert.factor:.4g} times the sustainable"
            f" rate, over {long} and still over {short}, {100 * share:g} % of the budget go in {long}.{described}",
        },
    }


def _record(name: str, expression: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"record": name, "expr": expression, "labels": dict(labels)}


def _labels(objective: ExportedObjective) -> dict[str, str]:
    return {"objective": objective.name} | ({"service": objective.service} if objective.service else {})


def _budget(objective: ExportedObjective) -> float:
    """Return the share of events that may be bad, without the noise of 1 - 0.9999."""
    return round(1 - objective.objective / 100, 12)


def _periods_s(objective: ExportedObjective) -> list[float]:
    rolling = {window.length_s for window in objective.windows if isinstance(window, RollingWindowSettings)}
    return sorted(rolling)


def _burn_windows_s(objective: ExportedObjective, alerts: Iterable[BurnAlert]) -> list[float]:
    """Return every window over which a burn rate is recorded: the customary ones, the alerts' and the budgets'."""
    longest = objective.period_s
    of_alerts = {length for alert in alerts for length in (alert.long_s, alert.short_s)}
    return sorted({each for each in WINDOWS.values() if each <= longest} | of_alerts | set(_periods_s(objective)))


def _advice(objectives: Iterable[ExportedObjective]) -> Iterator[str]:
    """Say what the server must be set to; a rule that lacks samples is silent."""
    windows = [each for one in objectives for each in _burn_windows_s(one, one.burn_alerts)]
    if windows:
        yield f"Scrape every {duration(min(windows) / _SCRAPES_A_WINDOW)} or more often, and keep samples for"
        yield f"{duration(max(windows))} (--storage.tsdb.retention.time)."


def _untemplated(text: str) -> str:
    """Return a text as an annotation shows it: Prometheus expands templates there."""
    return text.replace("{{", '{{ "{{" }}')
