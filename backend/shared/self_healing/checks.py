"""One check of one service: look, count, say whose fault it is, tell.

Before a service is declared unhealthy, what it depends on is looked at until that is certain, so that the root
of a failure is known when it is told. Checks of one service never overlap; who asks meanwhile joins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from backend.shared.self_healing.dependencies import Dependencies
from backend.shared.self_healing.spans import end_probe, probe_span
from backend.shared.self_healing.stalls import Stalls
from backend.shared.self_healing.watched import Watched
from modules.contracts.clock import Clock
from modules.contracts.events import ComponentFailed, EventBus, FlappingChanged, HealthChanged, ProbeErred
from modules.contracts.health import (
    HealthCheckResult,
    HealthStatus,
    ProbeOutcome,
    ProbeResult,
    ResultListener,
    Role,
    Wait,
)


class Checks:
    """Runs checks and keeps their tasks.

    ``ended`` is called after each check, to plan the next one; ``soon(service, seconds)`` asks for a look out
    of turn.
    """

    def __init__(
        self,
        services: Mapping[str, Watched],
        *,
        clock: Clock,
        events: EventBus,
        stalls: Stalls,
        ended: Callable[[Watched], None],
        soon: Callable[[Watched, float], None],
    ) -> None:
        self._services = services
        self._clock = clock
        self._events = events
        self._stalls = stalls
        self._ended = ended
        self._soon = soon
        self._tasks: set[asyncio.Task[Any]] = set()
        self.listeners: list[ResultListener] = []
        self.dependencies = Dependencies(lambda: {s.name: s.options.depends_on for s in services.values()})

    def begin(self, service: Watched) -> asyncio.Task[HealthCheckResult]:
        """Begin a check, or return the one under way."""
        if service.check is None:
            service.check = self.spawn(self._check(service), f"check {service.name}")
            service.check.add_done_callback(lambda check: self._finish(service, check))
        return service.check

    def next_delay(self, service: Watched) -> float | None:
        """Seconds until a quick re-probe, or None when the next scheduled check is soon enough."""
        if service.affected_by and not self.dependencies.affected_by(service.name):
            # What it depends on is back: look often until its own verdict is certain.
            return service.reprobe_s
        if service.excused and service.state.errors < service.options.fall - 1:
            return service.reprobe_s
        return service.state.next_delay

    def restart(self, service: Watched) -> None:
        """Count from zero and close the startup gate; a check that is under way will not count."""
        now = self._clock.monotonic()
        service.restarted_at = now
        service.failing_since = float("inf")
        service.state.expect_restart(now)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that ``stop`` ends."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """End every check; safe twice."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def report(self, what: str, error: BaseException) -> None:
        """Say that a part of the monitor itself, or something that was handed to it, failed."""
        detail = f"{what}: {type(error).__name__}: {error}"
        self._events.publish(ComponentFailed(component="health monitor", detail=detail))

    def _finish(self, service: Watched, check: asyncio.Task[HealthCheckResult]) -> None:
        service.check = None
        if not check.cancelled() and (error := check.exception()):
            self.report(f"the check of {service.name}", error)
        self._ended(service)

    async def _check(self, service: Watched) -> HealthCheckResult:
        began = self._clock.monotonic()
        role, found = await self._look(service, began)
        found = self._excuse(service, found, began)
        latency_ms = (self._clock.monotonic() - began) * 1000
        state = service.state
        if found.outcome is ProbeOutcome.FAIL:
            service.failing_since = min(service.failing_since, began)
            if state.would_fall(role, found.outcome, self._clock.monotonic()):
                await self._conclude_dependencies(service)
        elif found.passed:
            service.failing_since = float("inf")
        service.looked_at = began
        previous = state.status
        too_early = found.outcome is ProbeOutcome.ERROR and found.wait is not None
        # What was seen of a process before its restart says nothing either.
        if began >= service.restarted_at and not too_early:
            state.observe(role, found.outcome, self._clock.monotonic())
            self._observe_flapping(service, found.outcome)
        roots = self.dependencies.affected_by(service.name)
        # Once its dependency is back, a service may fail ``fall`` times more before the fault is its own.
        if roots or state.status is not HealthStatus.UNHEALTHY or state.failures >= service.options.fall:
            service.affected_by = roots
        result = HealthCheckResult(
            service=service.name,
            healthy=found.passed,
            outcome=found.outcome,
            status=state.status,
            latency_ms=latency_ms,
            detail=found.detail,
            checked_at=self._clock.time(),
            affected_by=service.affected_by,
            role=role,
        )
        service.last = result
        self._tell_erring(service, found)
        self.tell(service, previous, found.detail)
        for listener in self.listeners:
            try:
                listener(result)
            except Exception as error:  # a listener's fault must not change a check's result
                self.report(f"a listener to the results of {service.name}", error)
        return result

    def _excuse(self, service: Watched, found: ProbeResult, began: float) -> ProbeResult:
        """Turn a failure for want of time into the prober's own error when it was this program that lost the time."""
        now = self._clock.monotonic()
        wait = found.wait
        if wait is None and now - began >= service.options.timeout_s:
            wait = Wait(now - began, service.options.timeout_s)
        service.excused = False
        if found.outcome is ProbeOutcome.FAIL and wait is not None:
            lost = self._stalls.lost(now - wait.spent_s, now)
            service.excused = lost > 0 and wait.spent_s - lost <= wait.allowed_s
            if service.excused:
                return ProbeResult(ProbeOutcome.ERROR, f"this program was stopped for {lost:.1f} s", found.facts)
        return found

    async def _look(self, service: Watched, began: float) -> tuple[Role, ProbeResult]:
        """Ask the probes in turn, and return the first that does not pass, or else the liveness probe's result."""
        if service.state.gated:
            startup = await self._probe(service, Role.STARTUP)
            if not startup.passed:
                return Role.STARTUP, startup
            if began >= service.restarted_at:
                service.state.observe(Role.STARTUP, startup.outcome, self._clock.monotonic())
        liveness = await self._probe(service, Role.LIVENESS)
        if not liveness.passed or Role.READINESS not in service.probes:
            return Role.LIVENESS, liveness
        readiness = await self._probe(service, Role.READINESS)
        return Role.READINESS, readiness

    async def _probe(self, service: Watched, role: Role) -> ProbeResult:
        probe = service.probes[role]
        with probe_span(service.name, role, probe.kind) as span:
            found = await probe.look()
            end_probe(span, found)
        return found

    def _observe_flapping(self, service: Watched, outcome: ProbeOutcome) -> None:
        state = service.state
        held_back = outcome is ProbeOutcome.FAIL and state.status is HealthStatus.STARTING
        if not service.options.flap_high or outcome is ProbeOutcome.ERROR or held_back:
            return
        if service.flaps.observe(outcome is ProbeOutcome.PASS):
            state.flapping = service.flaps.flapping
            state.settle()
            self._events.publish(
                FlappingChanged(service=service.name, flapping=state.flapping, share=service.flaps.share)
            )

    def _tell_erring(self, service: Watched, found: ProbeResult) -> None:
        """Say once, when errors have become as many as failures would have to be."""
        erring = service.state.errors >= service.options.fall
        if erring and not service.erring:
            self._events.publish(ProbeErred(service=service.name, detail=found.detail))
        service.erring = erring

    def tell(self, service: Watched, previous: HealthStatus, detail: str) -> None:
        """When a service's health has changed, work out who is affected, and publish it."""
        current = service.state.status
        if current is previous:
            return
        service.since = self._clock.time()
        if self.dependencies.observe(service.name, current):
            for name in self.dependencies.dependents(service.name):
                self.reassess(self._services[name])
        self._events.publish(
            HealthChanged(
                service=service.name,
                previous=previous.value,
                current=current.value,
                detail=detail,
                affected_by=() if current is HealthStatus.HEALTHY else service.affected_by,
            )
        )

    def reassess(self, service: Watched) -> None:
        """A dependency of the service went down, came back or was forgotten."""
        roots = self.dependencies.affected_by(service.name)
        was_affected, well = bool(service.affected_by), service.state.status is HealthStatus.HEALTHY
        if roots or well or not was_affected:
            service.affected_by = roots
        else:
            # It keeps the excuse until new results confirm or clear it, so that it is not repaired for a fault
            # that has just been repaired elsewhere.
            service.state.reconsider()
        if not roots and not well and service.check is None:
            self._soon(service, 0.0)

    async def _conclude_dependencies(self, service: Watched) -> None:
        """Look at all that the service needs until it is certain whether one of them is the cause."""
        waiting: list[asyncio.Task[None]] = []
        for name in self.dependencies.of(service.name):
            other = self._services[name]
            if other.paused or other.state.status is HealthStatus.UNHEALTHY:
                continue
            if other.looked_at >= service.failing_since and not other.state.pending:
                continue
            if other.conclusion is None or other.conclusion.done():
                other.conclusion = self.spawn(self._conclude(other, service.failing_since), f"conclude {name}")
            waiting.append(other.conclusion)
        if waiting:
            await asyncio.wait(waiting)

    async def _conclude(self, service: Watched, since: float) -> None:
        """Check until the verdict is certain and newer than ``since``; at most as often as could change it."""
        for _ in range(service.options.rise + service.options.fall):
            await asyncio.wait((self.begin(service),))
            if service.looked_at < since:  # that check had begun too early to see the fault
                continue
            if not service.state.pending or service.state.status is HealthStatus.STARTING:
                return
            await self._clock.sleep(service.reprobe_s)
