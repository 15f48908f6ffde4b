"""Which checks count for an objective, and what the SLO engine and the error budget policy promise to others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from modules.contracts.component import Component
from modules.contracts.events import BudgetStepChanged
from modules.contracts.health import HealthCheckResult, HealthStatus, ProbeOutcome
from modules.contracts.slo import ObjectiveReport, SLOTracker


class CountedChecks:
    """Says which checks count: not the prober's own error, not what ``in_maintenance`` covers, and not the failure of
    a service that starts and has not passed yet, for a start is waited for. Asking twice gives the same answer."""

    def __init__(self, in_maintenance: Callable[[str], bool]) -> None:
        self._in_maintenance = in_maintenance
        self._seen_up: set[str] = set()

    def counts(self, result: HealthCheckResult) -> bool:
        """Whether a result says something of its service."""
        if result.healthy:
            self._seen_up.add(result.service)
        elif result.status is HealthStatus.STARTING and result.service not in self._seen_up:
            return False
        return result.outcome is not ProbeOutcome.ERROR and not self._in_maintenance(result.service)

    def forget(self, service: str) -> None:
        """A service is gone; one of the same name starts anew."""
        self._seen_up.discard(service)


class ObjectiveEngine(Component, Protocol):
    """Keeps every objective of a deployment: counts, judges, and publishes what changes of status and alerts."""

    def define(self, name: str, settings: Any) -> None:
        """Keep an objective, as its settings model says. Raises ConfigurationError, and then changes nothing."""
        ...

    def watch_service(
        self,
        name: str,
        *,
        latency_ms: float,
        availability: float,
        window_days: float,
        tracker: SLOTracker | None = None,
    ) -> None:
        """Keep the objective of a service's checks; a ``tracker`` that another module keeps is only read."""
        ...

    def observe_check(self, result: HealthCheckResult) -> None:
        """Count a check. A monitor's listener."""
        ...

    def observe_metric(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Count a sample of a metric. A collector's observer."""
        ...

    @property
    def trackers(self) -> Mapping[str, SLOTracker]:
        """What counts here, by objective: to be persisted and restored."""
        ...

    @property
    def counted(self) -> Mapping[str, tuple[float, float]]:
        """(good, total) that were counted by this program since its start, by objective."""
        ...

    def report(self, name: str) -> ObjectiveReport:
        """Return an objective as it stands now. Raises UnknownObjectiveError."""
        ...

    def reports(self) -> Mapping[str, ObjectiveReport]:
        """Return every objective by name."""
        ...


class BudgetSteps(Component, Protocol):
    """Says which steps of the error budget policy are in force."""

    @property
    def in_force(self) -> Mapping[str, tuple[str, ...]]:
        """The steps in force by objective; objectives without any are left out."""
        ...

    def for_service(self, service: str) -> tuple[str, ...]:
        """Return the steps that any objective of the service has brought into force."""
        ...

    def subscribe(self, callback: Callable[[BudgetStepChanged], None]) -> Callable[[], None]:
        """Call ``callback`` with each change from now on; the returned function ends that."""
        ...
