"""The exports of objectives: the door through which the runtime reaches them. They need pydantic and PyYAML."""

from __future__ import annotations

from backend.shared.monitoring.exports.grafana import grafana
from backend.shared.monitoring.exports.objective import (
    Counters,
    Export,
    ExportedObjective,
    declared_objective,
    service_objective,
)
from backend.shared.monitoring.exports.openslo import openslo
from backend.shared.monitoring.exports.prometheus_rules import prometheus_rules

__all__ = [
    "Counters",
    "Export",
    "ExportedObjective",
    "declared_objective",
    "grafana",
    "openslo",
    "prometheus_rules",
    "service_objective",
]
