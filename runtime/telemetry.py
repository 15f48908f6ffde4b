"""Turns check results and events into metrics: the same story that status and audit trail tell."""

from __future__ import annotations

from modules.contracts.events import (
    AlertFired,
    Event,
    EventBus,
    IncidentClosed,
    IncidentOpened,
    ProcessExited,
    RepairEnded,
    RepairSkipped,
)
from modules.contracts.health import HealthCheckResult, HealthMonitor, HealthStatus
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import SLOStatus


class Telemetry:
    """Listens to a monitor and the bus, and records into a collector."""

    def __init__(self, collector: MetricsCollector, monitor: HealthMonitor, events: EventBus) -> None:
        self._collector = collector
        self._open: dict[str, str] = {}
        monitor.add_listener(self._on_result)
        events.listen(self._on_event)

    def _on_result(self, result: HealthCheckResult) -> None:
        labels = {"service": result.service}
        record = self._collector.record_metric
        record("checks", 1, {**labels, "outcome": result.outcome.value}, kind="counter", help="Checks by outcome.")
        record(
            "check_duration",
            result.latency_ms / 1000,
            labels,
            unit="seconds",
            help="Duration of the checks of a service.",
        )
        for status in HealthStatus:
            record(
                "service_status",
                float(status is result.status),
                {**labels, "status": status.value},
                kind="gauge",
                help="1 for the status that a service is in, 0 for the others.",
            )
        if result.slo_status is not SLOStatus.NO_DATA and result.error_budget_remaining is not None:
            record(
                "service_error_budget_remaining",
                result.error_budget_remaining / 100,
                labels,
                kind="gauge",
                unit="ratio",
                help="Share of a service's error budget that is left; negative when overspent.",
            )

    def _on_event(self, event: Event) -> None:
        record = self._collector.record_metric
        labels = {"service": event.service or ""}
        match event:
            case IncidentOpened():
                self._open[event.incident] = event.service
                record("incidents", 1, labels, kind="counter", help="Incidents that were opened.")
                self._record_open(event.service)
            case IncidentClosed():
                self._open.pop(event.incident, None)
                record("incident_duration", event.duration_s, labels, unit="seconds", help="From open to closed.")
                self._record_open(event.service)
            case RepairEnded():
                record(
                    "repairs",
                    1,
                    {**labels, "outcome": event.outcome},
                    kind="counter",
                    help="Repair actions that ended, by outcome.",
                )
            case RepairSkipped():
                record(
                    "repairs_skipped",
                    1,
                    {**labels, "rule": event.rule},
                    kind="counter",
                    help="Decisions not to repair, by rule.",
                )
            case ProcessExited():
                record(
                    "process_exits",
                    1,
                    {**labels, "expected": str(event.expected).lower()},
                    kind="counter",
                    help="Ends of supervised processes.",
                )
            case AlertFired():
                record("alerts", 1, {**labels, "severity": event.severity}, kind="counter", help="Alerts that fired.")
            case _:
                pass

    def _record_open(self, service: str) -> None:
        count = sum(1 for name in self._open.values() if name == service)
        self._collector.record_metric(
            "incidents_open", count, {"service": service}, kind="gauge", help="Incidents that are open now."
        )
