"""A health monitor that keeps an objective for each service: every result is counted, and says what it cost.

A check is good when it passed within the objective's latency. The monitor underneath does the checking; this
one listens to it, so a result is counted once, whoever asked for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentStatus
from modules.contracts.errors import ConfigurationError, UnknownServiceError
from modules.contracts.events import BudgetChanged, ComponentFailed, EventBus
from modules.contracts.health import (
    Check,
    HealthCheckResult,
    HealthMonitor,
    HealthStatus,
    Probe,
    ProbeOutcome,
    ResultListener,
    ServiceHealth,
    ServiceOptions,
)
from modules.contracts.objectives import CountedChecks
from modules.contracts.slo import SLOReport, SLOStatus, SLOTracker, TrackerFactory

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class ServiceObjective:
    """What one service promises; what is None comes from the monitor.

    Attributes:
        latency_ms: a slower check is not good; above 0.
        availability: percent of checks that must be good, above 0 and below 100.
        window_days: length of the window, above 0 and at most 366.
    """

    latency_ms: float | None = None
    availability: float | None = None
    window_days: float | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """An objective with nothing left open. Raises ConfigurationError that names each wrong argument."""

    latency_ms: float
    availability: float
    window_days: float

    def __post_init__(self) -> None:
        wrong = [
            f"slo_{key} must be above 0{limit}, found {value!r}"
            for key, value, limit, top in (
                ("latency_ms", self.latency_ms, " milliseconds and finite", sys.float_info.max),
                ("availability", self.availability, " and below 100 percent", math.nextafter(100, 0)),
                ("window_days", self.window_days, " and at most 366 days", 366.0),
            )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= top
        ]
        if wrong:
            raise ConfigurationError("; ".join(wrong))

    def but(self, own: ServiceObjective | None) -> Promise:
        """Return this promise with what ``own`` says otherwise."""
        if own is None:
            return self
        return Promise(
            latency_ms=self.latency_ms if own.latency_ms is None else own.latency_ms,
            availability=self.availability if own.availability is None else own.availability,
            window_days=self.window_days if own.window_days is None else own.window_days,
        )


class SLOHealthMonitor:
    """The contract's HealthMonitor over ``inner``, with ``slo_status`` and ``error_budget_remaining`` in each result.

    ``tracker`` builds the objective that counts; ``promise`` holds for every service that says nothing else.
    A prober's own error, what ``in_maintenance`` covers, and a failure of a service that starts and has not passed
    yet are not counted.
    """

    def __init__(
        self,
        inner: HealthMonitor,
        *,
        tracker: TrackerFactory,
        promise: Promise,
        clock: Clock,
        events: EventBus,
        in_maintenance: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._inner = inner
        self._tracker = tracker
        self._promise = promise
        self._clock = clock
        self._events = events
        self._promises: dict[str, Promise] = {}
        self._trackers: dict[str, SLOTracker] = {}
        self._reported: dict[str, SLOStatus] = {}
        self._last: dict[str, HealthCheckResult] = {}
        self._listeners: list[ResultListener] = []
        self._counted = CountedChecks(in_maintenance)
        inner.add_listener(self._count)

    @property
    def _local(self) -> SLOHealthMonitor:
        """The monitor that serves in this process: this one, so that what is registered on it has its objective."""
        return self

    def register_service(
        self,
        name: str,
        check: Check | Probe,
        *,
        startup: Check | Probe | None = None,
        readiness: Check | Probe | None = None,
        options: ServiceOptions | None = None,
        slo: ServiceObjective | None = None,
    ) -> None:
        """Watch a service and count its checks; ``slo`` says what it promises other than the monitor's default."""
        promise = self._promise.but(slo)
        tracker = self._tracker(
            name, objective=promise.availability, window_s=promise.window_days * _DAY_S, clock=self._clock
        )
        self._inner.register_service(name, check, startup=startup, readiness=readiness, options=options)
        self._promises[name] = promise
        self._trackers[name] = tracker
        self._reported[name] = SLOStatus.NO_DATA

    def unregister_service(self, name: str) -> None:
        self._inner.unregister_service(name)
        for known in (self._promises, self._trackers, self._reported, self._last):
            known.pop(name, None)
        self._counted.forget(name)

    @property
    def services(self) -> tuple[str, ...]:
        return self._inner.services

    @property
    def trackers(self) -> Mapping[str, SLOTracker]:
        """The objective of each service, by its name."""
        return dict(self._trackers)

    def get_slo_status(self) -> Mapping[str, SLOReport]:
        """Return the objective of each service as it stands now."""
        return {name: tracker.report() for name, tracker in self._trackers.items()}

    def get_slo_report(self, name: str) -> SLOReport | None:
        """Return one service's objective as it stands now, or None when it has none."""
        tracker = self._trackers.get(name)
        return tracker.report() if tracker else None

    def get_options(self, name: str) -> ServiceOptions:
        return self._inner.get_options(name)

    async def check_health(self, name: str) -> HealthCheckResult:
        """Check now. A name that is not registered is no error: its health is UNKNOWN, and its detail says so."""
        if name not in self._inner.services:
            return HealthCheckResult(
                service=name,
                healthy=False,
                outcome=ProbeOutcome.ERROR,
                status=HealthStatus.UNKNOWN,
                latency_ms=0.0,
                detail=str(UnknownServiceError(name, self._inner.services)),
                checked_at=self._clock.time(),
            )
        return self._annotated(await self._inner.check_health(name))

    async def check_all(self) -> Mapping[str, HealthCheckResult]:
        return {name: self._annotated(result) for name, result in (await self._inner.check_all()).items()}

    def get_status(self, name: str) -> ServiceHealth:
        health = self._inner.get_status(name)
        return replace(health, last=self._last.get(name, health.last))

    def add_listener(self, listener: ResultListener) -> None:
        self._listeners.append(listener)

    def expect_restart(self, name: str) -> None:
        self._inner.expect_restart(name)

    def pause(self, name: str) -> None:
        self._inner.pause(name)

    def resume(self, name: str) -> None:
        self._inner.resume(name)

    @property
    def status(self) -> ComponentStatus:
        return self._inner.status

    async def start(self) -> None:
        await self._inner.start()

    async def stop(self) -> None:
        await self._inner.stop()

    def _good(self, result: HealthCheckResult) -> bool:
        return result.healthy and result.latency_ms <= self._promises[result.service].latency_ms

    def _count(self, result: HealthCheckResult) -> None:
        """Take one result from the monitor underneath, and hand it on as annotated."""
        tracker = self._trackers.get(result.service)
        if tracker is not None:
            if self._counted.counts(result):
                tracker.record(self._good(result), value=result.latency_ms)
            report = tracker.report()
            self._tell(result.service, report)
            result = self._annotated(result, report)
            self._last[result.service] = result
        for listener in list(self._listeners):
            try:
                listener(result)
            except Exception as error:  # a listener's fault must not keep the result from the others
                detail = f"{type(error).__name__}: {error}"
                self._events.publish(
                    ComponentFailed(component=f"a listener to the results of {result.service}", detail=detail)
                )

    def _annotated(self, result: HealthCheckResult, report: SLOReport | None = None) -> HealthCheckResult:
        report = report or self.get_slo_report(result.service)
        if report is None:
            return result
        bad = self._counted.counts(result) and not self._good(result)
        return replace(
            result,
            slo_status=SLOStatus.VIOLATED if bad else report.status,
            error_budget_remaining=report.error_budget_remaining,
        )

    def _tell(self, name: str, report: SLOReport) -> None:
        previous, self._reported[name] = self._reported[name], report.status
        if report.status is not previous:
            self._events.publish(
                BudgetChanged(
                    service=name,
                    previous=previous.value,
                    current=report.status.value,
                    error_budget_remaining=report.error_budget_remaining,
                )
            )
