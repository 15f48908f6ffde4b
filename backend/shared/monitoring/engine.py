"""The SLO engine: every objective of a deployment in one place.

Samples come in by ``observe_check`` and ``observe_metric``; each is counted in constant time and memory by the
trackers that its objectives hold (``indicators``, ``objectives``). Every few seconds all objectives are evaluated
(``evaluation``), and what changed of their status and of their burn-rate alerts is published.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping

from backend.shared.monitoring.burn import Change
from backend.shared.monitoring.composite import Composite, TrackerSource, check_covers, order
from backend.shared.monitoring.evaluation import Evaluation, terms_of
from backend.shared.monitoring.indicators import MetricIndicator, metric_indicators, new_tracker
from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.settings import (
    AlertingSettings,
    CompositeIndicatorSettings,
    HealthIndicatorSettings,
    ObjectiveSettings,
    RollingWindowSettings,
)
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import ComponentFailed, EventBus, SLOAlertChanged, SLOStatusChanged
from modules.contracts.health import HealthCheckResult
from modules.contracts.objectives import CountedChecks
from modules.contracts.slo import (
    BurnAlertState,
    ObjectiveReport,
    SLOTracker,
    UnknownObjectiveError,
    check_objective,
)

_log = logging.getLogger(__name__)

_DAY_S = 86_400.0
_AT_ONCE = 50
"""Objectives that are evaluated before other tasks have their turn: about a millisecond."""


class SLOEngine:
    """A component. Objectives are defined at any time; what they count needs no start, what they publish does.

    ``alerting`` holds for objectives without their own; what ``in_maintenance`` covers (asked with an objective's
    service, or its name when it has none) is not counted. To be used from the loop's thread.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        events: EventBus,
        alerting: AlertingSettings,
        in_maintenance: Callable[[str], bool] = lambda name: False,
        evaluate_s: float = 10.0,
    ) -> None:
        if not 0 < evaluate_s < math.inf:
            raise ConfigurationError(f"evaluate_s of the SLO engine must be above 0 and finite, found {evaluate_s!r}")
        self._clock = clock
        self._events = events
        self._alerting = alerting
        self._in_maintenance = in_maintenance
        self._evaluate_s = evaluate_s
        self._evaluations: dict[str, Evaluation] = {}
        self._trackers: dict[str, Objective] = {}
        self._checks: dict[str, list[tuple[Objective, float]]] = {}
        self._metrics: dict[str, list[tuple[str, MetricIndicator]]] = {}
        self._unresolved = False
        self._counted = CountedChecks(in_maintenance)
        self._ignored: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._state = ComponentState.CREATED
        self._task: asyncio.Task[None] | None = None

    # --- what is promised ---

    def define(self, name: str, settings: ObjectiveSettings) -> None:
        """Keep an objective from now on. Raises ConfigurationError, and then changes nothing.

        The members of a composite may come later, but by ``start`` all must be there.
        """
        evaluation = self._prepare(name, settings)
        indicator = settings.indicator
        if isinstance(indicator, CompositeIndicatorSettings):
            self._evaluations[name] = evaluation
            self._unresolved = True
            if self._task is not None:
                try:
                    self._resolve()
                except ConfigurationError:
                    del self._evaluations[name]
                    self._unresolved = False
                    raise
            return
        tracker = new_tracker(name, settings, window_s=evaluation.terms.longest_s, clock=self._clock)
        self._evaluations[name] = evaluation
        self._trackers[name] = tracker
        evaluation.source = tracker
        if isinstance(indicator, HealthIndicatorSettings):
            slowest = math.inf if indicator.latency_ms is None else indicator.latency_ms
            self._checks.setdefault(indicator.service, []).append((tracker, slowest))
        for metric, counters in metric_indicators(settings, tracker).items():
            self._metrics.setdefault(metric, []).extend((evaluation.service or name, counter) for counter in counters)

    def watch_service(
        self,
        name: str,
        *,
        latency_ms: float,
        availability: float,
        window_days: float,
        tracker: SLOTracker | None = None,
    ) -> None:
        """Keep the objective of a service's checks: ``availability`` percent passed within ``latency_ms``.

        A ``tracker`` that another module keeps is only read; without one the results are counted here. Raises
        ConfigurationError, and then changes nothing.
        """
        check_objective(name, availability, window_days * _DAY_S)
        if not isinstance(latency_ms, int | float) or not 0 < latency_ms < math.inf:
            raise ConfigurationError(
                f"latency_ms of {name}: must be above 0 milliseconds and finite, found {latency_ms!r}"
            )
        settings = ObjectiveSettings(
            service=name,
            indicator=HealthIndicatorSettings(kind="health", service=name, latency_ms=latency_ms),
            objective=availability,
            windows=(RollingWindowSettings(kind="rolling", days=window_days),),
        )
        if tracker is None:
            self.define(name, settings)
            return
        evaluation = self._prepare(name, settings)
        evaluation.source = tracker if isinstance(tracker, Objective) else TrackerSource(tracker)
        self._evaluations[name] = evaluation

    # --- what is counted ---

    def observe_check(self, result: HealthCheckResult) -> None:
        """Count a check. A monitor's listener.

        A prober's own error and what is in maintenance are not counted, nor is a failure of a service that starts
        and has not passed yet.
        """
        service = result.service
        watching = self._checks.get(service)
        if watching is None:
            return
        if not self._counted.counts(result):
            return
        latency_ms = result.latency_ms
        for tracker, slowest in watching:
            tracker.record(result.healthy and latency_ms <= slowest, value=latency_ms)

    def observe_metric(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Count a sample of a metric, whatever its ``labels``; of a counter, what is added. A collector's observer.

        What cannot be counted (NaN, infinite, negative for a counter, outside of 0..1 for a ratio) is ignored:
        the first of each metric is logged, and the status says how many there were.
        """
        counted = True
        for service, indicator in self._metrics.get(name, ()):
            if not self._in_maintenance(service):
                counted = indicator.observe(value) and counted
        if not counted:
            if name not in self._ignored:
                _log.warning("metric %s: its sample %r cannot be counted for an objective, and is ignored", name, value)
            self._ignored[name] = self._ignored.get(name, 0) + 1

    @property
    def trackers(self) -> Mapping[str, SLOTracker]:
        """What counts here, by objective: its samples are to be persisted and restored."""
        return dict(self._trackers)

    @property
    def counted(self) -> Mapping[str, tuple[float, float]]:
        """(good, total) that were counted by this program since its start, by objective."""
        return {name: tracker.counted for name, tracker in self._trackers.items()}

    # --- what they say ---

    @property
    def names(self) -> tuple[str, ...]:
        """All objectives, in the order of their definition."""
        return tuple(self._evaluations)

    def report(self, name: str) -> ObjectiveReport:
        """Return an objective as it stands now. Raises UnknownObjectiveError."""
        evaluation = self._evaluations.get(name)
        if evaluation is None:
            raise UnknownObjectiveError(name, self._evaluations)
        self._resolve()
        return evaluation.report()

    def reports(self) -> Mapping[str, ObjectiveReport]:
        """Return every objective by name."""
        self._resolve()
        return {name: evaluation.report() for name, evaluation in self._evaluations.items()}

    def firing(self) -> tuple[BurnAlertState, ...]:
        """Return the alerts that fire, as last evaluated."""
        return tuple(
            alert
            for evaluation in self._evaluations.values()
            if evaluation.rows.firing
            for alert in evaluation.alerts()
            if alert.state == "firing"
        )

    def evaluate(self) -> None:
        """Evaluate every objective now, and publish what changed."""
        self._resolve()
        for evaluation in list(self._evaluations.values()):
            self._evaluate(evaluation)

    # --- life ---

    @property
    def status(self) -> ComponentStatus:
        if self._state is ComponentState.RUNNING and self._faults:
            return ComponentStatus(ComponentState.DEGRADED, "; ".join(self._faults.values()))
        ignored = "".join(f"; {count} samples of {name} ignored" for name, count in self._ignored.items())
        return ComponentStatus(
            self._state, f"{len(self._evaluations)} objectives, {len(self.firing())} alerts{ignored}"
        )

    async def start(self) -> None:
        """Evaluate from now on. Raises ConfigurationError for a composite whose members cannot be had."""
        if self._task is not None:
            return
        self._resolve()
        self._task = asyncio.create_task(self._run(), name="slo engine")
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._state = ComponentState.STOPPED

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._evaluate_s)
            for number, (name, evaluation) in enumerate(list(self._evaluations.items()), start=1):
                try:
                    self._evaluate(evaluation)
                    self._faults.pop(name, None)
                except Exception as error:  # one objective's fault must not keep the others from alerting
                    if name not in self._faults:
                        self._faults[name] = detail = f"objective {name}: {type(error).__name__}: {error}"
                        self._events.publish(ComponentFailed(component="slo", detail=detail))
                if number % _AT_ONCE == 0:
                    await self._clock.sleep(0)

    def _evaluate(self, evaluation: Evaluation) -> None:
        changes, verdict, previous = evaluation.evaluate()
        for change in changes:
            self._tell(evaluation, change)
        if verdict.status is not previous:
            self._events.publish(
                SLOStatusChanged(
                    service=evaluation.service,
                    objective=evaluation.name,
                    previous=previous.value,
                    current=verdict.status.value,
                    error_budget_remaining=verdict.error_budget_remaining,
                )
            )

    def _tell(self, evaluation: Evaluation, change: Change) -> None:
        alert = change.alert
        burn = evaluation.burn_over(alert.long_s)
        how = "no data" if burn is None else f"{burn:.3g} x"
        self._events.publish(
            SLOAlertChanged(
                service=evaluation.service,
                objective=evaluation.name,
                severity=alert.severity,
                state=change.state,
                window=alert.window,
                factor=alert.factor,
                burn_rate=burn or 0.0,
                summary=f"error budget of {evaluation.name} burns at {how} over {alert.window}"
                f" (alert at {alert.factor:.4g} x, objective {evaluation.settings.objective:g} %)",
            )
        )

    def _prepare(self, name: str, settings: ObjectiveSettings) -> Evaluation:
        if name in self._evaluations:
            raise ConfigurationError(f"objective {name!r} is defined already; choose another name")
        alerting = settings.alerting or self._alerting
        return Evaluation(name, settings, terms_of(name, settings, alerting), alerting, self._clock)

    # --- composites ---

    def _resolve(self) -> None:
        """Give every composite its members. Raises ConfigurationError."""
        if not self._unresolved:
            return
        composites = {
            name: evaluation.settings.indicator.weights
            for name, evaluation in self._evaluations.items()
            if isinstance(evaluation.settings.indicator, CompositeIndicatorSettings)
        }
        for name in order(composites, self._evaluations):
            evaluation = self._evaluations[name]
            members = [(part, weight, self._evaluations[part].source) for part, weight in composites[name].items()]
            for part, _, source in members:
                check_covers(name, part, source, evaluation.settings.windows, evaluation.terms.longest_s)
            evaluation.members = members
            evaluation.source = Composite([(source, weight) for _, weight, source in members])
        self._unresolved = False
