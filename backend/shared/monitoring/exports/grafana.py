"""A Grafana dashboard over the recorded series of ``prometheus_rules``.

One dashboard serves every objective: a variable picks it from the series themselves, so the dashboard stays as it
is when objectives come and go. Schema version 39 is read by Grafana 11 and later, and migrated by newer ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from backend.shared.monitoring.exports.objective import Export, ExportedObjective, by_name
from backend.shared.monitoring.exports.prometheus_rules import ALERT, prometheus_rules
from backend.shared.monitoring.exports.promql import duration
from modules.contracts.slo import AT_RISK_BELOW

_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PICKED = 'objective=~"$objective"'
_NONE_LEFT = {"color": "red", "value": None}
_WIDTH = 24


def grafana(objectives: Iterable[ExportedObjective]) -> Export:
    """Return the dashboard as JSON; what the rules cannot say is missing in it too."""
    known = by_name(objectives)
    rules = prometheus_rules(known.values())
    longest = max((window.length_s for each in known.values() for window in each.windows), default=86_400.0)
    dashboard = {
        "uid": "selfright-slo",
        "title": "Service-level objectives",
        "description": "Needs the recording rules that `run mode=export export.what=prometheus-rules` writes.",
        "tags": ["slo"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": f"now-{duration(min(longest, 7 * 86_400.0))}", "to": "now"},
        "templating": {"list": [_data_source(), _objective()]},
        "annotations": {"list": []},
        "panels": _placed(
            (_sli(), 8, 6),
            (_budget_left(), 8, 6),
            (_firing(), 8, 6),
            (_burn_rates(), _WIDTH, 9),
            (_budget_over_time(), _WIDTH, 9),
            (_alerts_over_time(), _WIDTH, 7),
        ),
    }
    return Export(json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n", rules.warnings)


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _objective() -> dict[str, Any]:
    query = "label_values(slo:objective:ratio, objective)"
    return {
        "name": "objective",
        "type": "query",
        "label": "Objective",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "objectives"},
        "refresh": 2,  # when the time range changes, as objectives come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(*panels: tuple[dict[str, Any], int, int]) -> list[dict[str, Any]]:
    """Number the panels and lay them out in rows from the left, given (panel, width, height)."""
    placed: list[dict[str, Any]] = []
    x = y = 0
    for number, (panel, width, height) in enumerate(panels, start=1):
        placed.append({"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x += width
        if x >= _WIDTH:
            x, y = 0, y + height
    return placed


def _panel(kind: str, title: str, description: str, *targets: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return a panel with its queries as (PromQL, legend)."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(targets)
        ],
        **more,
    }


def _field(unit: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": unit, **more}
    if steps:
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": list(steps)}}
    return {"defaults": defaults, "overrides": []}


_LEFT_STEPS = (_NONE_LEFT, {"color": "orange", "value": 0}, {"color": "green", "value": AT_RISK_BELOW / 100})


def _sli() -> dict[str, Any]:
    # The shortest period's remaining budget says its window; its share of bad events is budget x burn.
    burn = f"slo:burn_rate:ratio{{{_PICKED}}} and slo:period_error_budget_remaining:ratio{{{_PICKED}}}"
    return _panel(
        "stat",
        "SLI",
        "Share of good events in the window of the objective.",
        (
            f"1 - ({burn}) * on (objective) group_left () slo:error_budget:ratio{{{_PICKED}}}",
            "{{objective}} {{window}}",
        ),
        fieldConfig=_field("percentunit", decimals=3, noValue="no data"),
    )


def _budget_left() -> dict[str, Any]:
    return _panel(
        "stat",
        "Error budget left",
        "Share of the error budget of the window; negative when overspent.",
        (f"slo:period_error_budget_remaining:ratio{{{_PICKED}}}", "{{objective}} {{window}}"),
        fieldConfig=_field("percentunit", *_LEFT_STEPS, decimals=1, noValue="no data"),
    )


def _firing() -> dict[str, Any]:
    return _panel(
        "stat",
        "Alerts that fire",
        "Burn-rate alerts by severity.",
        (
            f'count by (objective, severity) (ALERTS{{alertname="{ALERT}",alertstate="firing",{_PICKED}}})',
            "{{objective}} {{severity}}",
        ),
        fieldConfig=_field("none", {"color": "red", "value": None}, noValue="none"),
    )


def _burn_rates() -> dict[str, Any]:
    return _panel(
        "timeseries",
        "Burn rate by window",
        "Speed at which the error budget is spent; at 1 it lasts exactly its window.",
        (f"slo:burn_rate:ratio{{{_PICKED}}}", "{{objective}} {{window}}"),
        fieldConfig=_field("none", min=0, custom={"thresholdsStyle": {"mode": "line"}}),
    )


def _budget_over_time() -> dict[str, Any]:
    return _panel(
        "timeseries",
        "Error budget left over time",
        "Share of the error budget of the window that ends at each moment.",
        (f"slo:period_error_budget_remaining:ratio{{{_PICKED}}}", "{{objective}} {{window}}"),
        fieldConfig=_field("percentunit", max=1),
    )


def _alerts_over_time() -> dict[str, Any]:
    return _panel(
        "state-timeline",
        "Alerts",
        "When each burn-rate alert was pending (0) or fired (1).",
        (
            f'max by (objective, severity, window) (ALERTS{{alertname="{ALERT}",alertstate="firing",{_PICKED}}})'
            f' or 0 * max by (objective, severity, window) (ALERTS{{alertname="{ALERT}",{_PICKED}}})',
            "{{objective}} {{severity}} {{window}}",
        ),
        fieldConfig=_field("none", {"color": "orange", "value": None}, {"color": "red", "value": 1}),
    )
