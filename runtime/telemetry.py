"""Turns check results and events into metrics: the same story that status and audit trail tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from modules.contracts.catalog import full_name
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
from modules.contracts.metrics import Gauge, GaugeSource, MetricsCollector
from modules.contracts.objectives import CountedChecks
from modules.contracts.slo import SLOStatus
from modules.settings import ObjectiveSettings

SERVICE_EVENTS, SERVICE_GOOD_EVENTS = "slo_events", "slo_good_events"
"""Counters of the checks that count for a service's objective, by the label ``service``."""
OBJECTIVE_EVENTS = "objective_events"
OBJECTIVE_GOOD_EVENTS, OBJECTIVE_BAD_EVENTS = "objective_good_events", "objective_bad_events"
"""Counters of what counts for a declared objective, by the label ``objective``; see ``objective_counters``."""


def counts_bad(settings: ObjectiveSettings) -> bool:
    """Whether an objective's indicator counts its bad events, not its good ones."""
    return settings.indicator.kind == "ratio" and settings.indicator.bad is not None


def objective_counters(
    prefix: str, counted: Callable[[], Mapping[str, tuple[float, float]]], *, by_bad: Collection[str] = ()
) -> GaugeSource:
    """Return what adds the counters of declared objectives to a collector's exposition.

    ``counted`` gives (good, total) that were counted since the start, by objective. Those in ``by_bad`` are exposed by
    their bad events, as it is those that their indicator counts: a counter must never shrink.
    """

    def gauges() -> Iterator[Gauge]:
        found: dict[str, list[tuple[Mapping[str, str], float]]] = {
            OBJECTIVE_EVENTS: [],
            OBJECTIVE_GOOD_EVENTS: [],
            OBJECTIVE_BAD_EVENTS: [],
        }
        for name, (good, total) in counted().items():
            labels = {"objective": name}
            found[OBJECTIVE_EVENTS].append((labels, total))
            if name in by_bad:
                found[OBJECTIVE_BAD_EVENTS].append((labels, total - good))
            else:
                found[OBJECTIVE_GOOD_EVENTS].append((labels, good))
        for family, samples in found.items():
            if samples:
                help = "Events that were counted for an objective since the start, all, good or bad."
                yield Gauge(full_name(prefix, family, "counter", ""), help, tuple(samples))

    return gauges


class Telemetry:
    """Listens to a monitor and the bus, and records into a collector.

    ``latency_ms`` says by service how long a good check may take; services that are not in it have no objective.
    ``in_maintenance`` says of which services nothing counts now.
    """

    def __init__(
        self,
        collector: MetricsCollector,
        monitor: HealthMonitor,
        events: EventBus,
        *,
        latency_ms: Mapping[str, float] | None = None,
        in_maintenance: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._collector = collector
        self._open: dict[str, str] = {}
        self._latency_ms = latency_ms or {}
        self._counted = CountedChecks(in_maintenance)
        for service in self._latency_ms:
            # Of a counter that appears with its first event, Prometheus cannot tell that it grew.
            self._count_events(service, 0, 0)
        monitor.add_listener(self._on_result)
        events.listen(self._on_event)

    def _count(self, result: HealthCheckResult) -> None:
        """Count what the service's objective counts."""
        if not self._counted.counts(result):
            return
        good = result.healthy and result.latency_ms <= self._latency_ms[result.service]
        self._count_events(result.service, int(good), 1)

    def _count_events(self, service: str, good: int, total: int) -> None:
        record, labels = self._collector.record_metric, {"service": service}
        record(SERVICE_EVENTS, total, labels, kind="counter", help="Checks that count for a service's objective.")
        record(
            SERVICE_GOOD_EVENTS, good, labels, kind="counter", help="Checks that count for its objective and were good."
        )

    def _on_result(self, result: HealthCheckResult) -> None:
        if result.service in self._latency_ms:
            self._count(result)
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
