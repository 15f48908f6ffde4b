"""A health monitor from the standard library: one task a service, thresholds, dependencies, no flap detection.

It keeps every promise of the contract for some hundred services; the backend's scheduler serves thousands.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import (
    ConfigurationError,
    DependencyError,
    DuplicateServiceError,
    UnknownServiceError,
)
from modules.contracts.events import ComponentFailed, Event, EventBus, HealthChanged, ProbeErred, ProcessExited
from modules.contracts.health import (
    Check,
    HealthCheckResult,
    HealthStatus,
    Probe,
    ProbeOutcome,
    ProbeResult,
    ResultListener,
    Role,
    ServiceHealth,
    ServiceOptions,
)
from modules.local.probes import FunctionProbe, is_async
from modules.local.verdict import Verdict

_ALIVE = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
_DOWN = (HealthStatus.UNHEALTHY, HealthStatus.STARTING)
_FIRST_CHECKS_S = 1.0
"""The first checks are spread over at most so long."""


@dataclass(slots=True)
class _Service:
    name: str
    probes: Mapping[Role, Probe]
    options: ServiceOptions
    verdict: Verdict
    since: float
    last: HealthCheckResult | None = None
    down: bool = False
    erring: bool = False
    paused: bool = False
    epoch: int = 0
    check: asyncio.Task[HealthCheckResult] | None = None
    watch: asyncio.Task[None] | None = None


class LocalHealthMonitor:
    """The contract's HealthMonitor. ``rng`` spreads the first checks."""

    def __init__(self, *, clock: Clock, events: EventBus, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._events = events
        self._rng = rng or random.Random()  # noqa: S311  phases, not secrets
        self._services: dict[str, _Service] = {}
        self._listeners: list[ResultListener] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._graph = DependencyGraph({})
        self._state = ComponentState.CREATED
        self._deafen: Callable[[], None] | None = None

    # --- the services ---

    def register_service(
        self,
        name: str,
        check: Check | Probe,
        *,
        startup: Check | Probe | None = None,
        readiness: Check | Probe | None = None,
        options: ServiceOptions | None = None,
    ) -> None:
        options = options or ServiceOptions()
        _refuse_bad_options(name, options)
        if name in self._services:
            raise DuplicateServiceError(f"a service named {name!r} is registered already; unregister it first")
        given = {Role.STARTUP: startup, Role.LIVENESS: check, Role.READINESS: readiness}
        probes = {role: _as_probe(name, role, look) for role, look in given.items() if look is not None}
        if Role.LIVENESS not in probes:
            raise ConfigurationError(f"service {name!r} has no check; give an async function or a Probe")
        if self._running:
            DependencyGraph(self._needs() | {name: options.depends_on})
        verdict = Verdict(options, self._clock.monotonic(), has_startup=startup is not None)
        service = _Service(name, probes, options, verdict, self._clock.time())
        self._services[name] = service
        self._graph = self._known_graph()
        self._watch_from(service, 0.0)

    def unregister_service(self, name: str) -> None:
        service = self._service(name)
        del self._services[name]
        self._graph = self._known_graph()
        if service.check or service.watch:
            self._spawn(self._retire(service), f"retire {name}")

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._services)

    def get_options(self, name: str) -> ServiceOptions:
        return self._service(name).options

    def get_status(self, name: str) -> ServiceHealth:
        service = self._service(name)
        return ServiceHealth(
            name=name,
            status=service.verdict.status,
            since=service.since,
            ready=service.verdict.ready,
            last=service.last,
            depends_on=service.options.depends_on,
            affected_by=self._affected_by(name),
            flapping=False,
            paused=service.paused,
            consecutive_passes=service.verdict.passes,
            consecutive_failures=service.verdict.failures,
        )

    def add_listener(self, listener: ResultListener) -> None:
        self._listeners.append(listener)

    def expect_restart(self, name: str) -> None:
        service = self._service(name)
        before = service.verdict.status
        service.epoch += 1
        service.verdict.begin(self._clock.monotonic())
        self._changed(service, before, "a restart was ordered")
        self._watch_from(service, service.options.reprobe_s)

    def pause(self, name: str) -> None:
        service = self._service(name)
        service.paused = True
        if service.watch:
            service.watch.cancel()

    def resume(self, name: str) -> None:
        service = self._service(name)
        if service.paused:
            service.paused = False
            self._watch_from(service, 0.0)

    # --- checks ---

    async def check_health(self, name: str) -> HealthCheckResult:
        check = self._checking(self._service(name))
        try:
            return await asyncio.shield(check)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if check.cancelled() and name not in self._services and not (task and task.cancelling()):
                raise UnknownServiceError(name, self._services) from None
            raise

    async def check_all(self) -> Mapping[str, HealthCheckResult]:
        names = self.services
        results = await asyncio.gather(*(self.check_health(name) for name in names))
        return dict(zip(names, results, strict=True))

    def _checking(self, service: _Service) -> asyncio.Task[HealthCheckResult]:
        """Return the check that is under way, or begin one."""
        if service.check is None or service.check.done():
            service.check = self._spawn(self._check(service), f"check {service.name}")
        return service.check

    async def _check(self, service: _Service) -> HealthCheckResult:
        epoch = service.epoch
        began = self._clock.monotonic()
        role, answer = await self._ask(service)
        now = self._clock.monotonic()
        checked_at = self._clock.time()
        if service.verdict.would_fall(role, answer.outcome, now):
            await self._conclude_dependencies(service)
        # What began before a restart or a dependency's recovery, or outlived its service, is no longer true.
        counts = epoch == service.epoch and self._services.get(service.name) is service
        before = service.verdict.status
        too_early = answer.outcome is ProbeOutcome.ERROR and answer.wait is not None
        status = service.verdict.observe(role, answer.outcome, now) if counts and not too_early else before
        result = HealthCheckResult(
            service=service.name,
            healthy=answer.passed,
            outcome=answer.outcome,
            status=status,
            latency_ms=(now - began) * 1000,
            detail=answer.detail,
            checked_at=checked_at,
            role=role,
        )
        if not counts:
            return result
        self._changed(service, before, answer.detail)
        result = replace(result, affected_by=self._affected_by(service.name))
        service.last = result
        erring = answer.outcome is ProbeOutcome.ERROR and not too_early and status is not HealthStatus.STARTING
        if erring and not service.erring:
            self._events.publish(ProbeErred(service=service.name, detail=answer.detail))
        service.erring = erring
        for listener in list(self._listeners):
            try:
                listener(result)
            except Exception as error:  # a listener's fault must not reach the checks or the other listeners
                self._report(f"a listener to the results of {service.name}", error)
        return result

    async def _ask(self, service: _Service) -> tuple[Role, ProbeResult]:
        """Ask the probes in their order, and return the one that decides."""
        if service.verdict.asks_startup:
            answer = await self._probe(service, Role.STARTUP)
            if not answer.passed:
                return Role.STARTUP, answer
            service.verdict.observe(Role.STARTUP, answer.outcome, self._clock.monotonic())
        answer = await self._probe(service, Role.LIVENESS)
        if not answer.passed or Role.READINESS not in service.probes:
            return Role.LIVENESS, answer
        return Role.READINESS, await self._probe(service, Role.READINESS)

    async def _probe(self, service: _Service, role: Role) -> ProbeResult:
        timeout_s = service.options.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await service.probes[role].probe()
        except TimeoutError:
            return ProbeResult(ProbeOutcome.FAIL, f"no verdict within {timeout_s * 1000:g} ms")
        except Exception as error:  # a probe promises not to raise; one that does must not end the schedule
            return ProbeResult(ProbeOutcome.FAIL, f"the probe itself failed: {type(error).__name__}: {error}")

    async def _conclude_dependencies(self, service: _Service) -> None:
        """Look at what the service needs before it is called unhealthy, so that the root of a fault is known."""
        for name in self._graph.dependencies(service.name):
            need = self._services.get(name)
            for _ in range(0 if need is None or need.paused else need.options.fall):
                assert need is not None  # noqa: S101  the range is empty otherwise
                await asyncio.shield(self._checking(need))
                if not 0 < need.verdict.failures < need.options.fall:
                    break
                await self._clock.sleep(need.options.reprobe_s)

    # --- the schedule ---

    @property
    def status(self) -> ComponentStatus:
        return ComponentStatus(self._state, f"{len(self._services)} services, watched locally")

    async def start(self) -> None:
        if self._running:
            return
        DependencyGraph(self._needs())
        self._state = ComponentState.RUNNING
        self._deafen = self._events.listen(self._heard)
        for service in self._services.values():
            if service.verdict.status is HealthStatus.STARTING:
                service.verdict.begin(self._clock.monotonic())  # the grace is meant to begin with the watching
            self._watch_from(service, self._rng.uniform(0, min(service.options.interval_s, _FIRST_CHECKS_S)))

    async def stop(self) -> None:
        if self._running:
            self._state = ComponentState.STOPPED
        if self._deafen:
            self._deafen()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for service in self._services.values():
            for probe in service.probes.values():
                await probe.close()

    @property
    def _running(self) -> bool:
        return self._state is ComponentState.RUNNING

    def _watch_from(self, service: _Service, delay_s: float) -> None:
        """Check on schedule, first after ``delay_s``; what was scheduled before is forgotten."""
        if service.watch:
            service.watch.cancel()
        if self._running and not service.paused:
            service.watch = self._spawn(self._watch(service, delay_s), f"watch {service.name}")

    async def _watch(self, service: _Service, delay_s: float) -> None:
        options = service.options
        due = self._clock.monotonic() + delay_s
        while True:
            await self._clock.sleep(due - self._clock.monotonic())
            try:
                await asyncio.shield(self._checking(service))
            except Exception as error:  # the schedule must go on
                self._report(f"the check of {service.name}", error)
            now = self._clock.monotonic()
            # After a late check the next one is due at once, not once for each that was missed.
            due = max(due + options.interval_s, now)
            if service.verdict.pending:
                due = min(due, now + options.reprobe_s)

    def _heard(self, event: Event) -> None:
        service = self._services.get(event.service or "")
        if service and isinstance(event, ProcessExited) and not event.expected:
            self._watch_from(service, 0.0)

    async def _retire(self, service: _Service) -> None:
        tasks = [task for task in (service.watch, service.check) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for probe in service.probes.values():
            await probe.close()

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- what follows from a result ---

    def _changed(self, service: _Service, before: HealthStatus, detail: str) -> None:
        status = service.verdict.status
        if status is before:
            return
        service.since = self._clock.time()
        if status in _DOWN:
            service.down = True
        elif status in _ALIVE:
            if service.down:  # what suffered from it is looked at soon, and what was seen before does not count
                for name in self._graph.dependents(service.name):
                    other = self._services[name]
                    other.epoch += 1
                    if other.verdict.status is not HealthStatus.HEALTHY or other.verdict.failures:
                        self._watch_from(other, other.options.reprobe_s)
            service.down = False
        self._events.publish(
            HealthChanged(
                service=service.name,
                previous=before.value,
                current=status.value,
                detail=detail,
                affected_by=() if status is HealthStatus.HEALTHY else self._affected_by(service.name),
            )
        )

    def _affected_by(self, name: str) -> tuple[str, ...]:
        return self._graph.failed_roots(name, {other.name for other in self._services.values() if other.down})

    def _needs(self) -> dict[str, tuple[str, ...]]:
        return {name: service.options.depends_on for name, service in self._services.items()}

    def _known_graph(self) -> DependencyGraph:
        """The graph as far as it is known; until ``start`` has refused a cycle, nobody is anybody's root in it."""
        known = {name: tuple(n for n in needs if n in self._services) for name, needs in self._needs().items()}
        try:
            return DependencyGraph(known)
        except DependencyError:
            return DependencyGraph(dict.fromkeys(known, ()))

    def _report(self, what: str, error: Exception) -> None:
        self._events.publish(ComponentFailed(component=what, detail=f"{type(error).__name__}: {error}"))

    def _service(self, name: str) -> _Service:
        try:
            return self._services[name]
        except KeyError:
            raise UnknownServiceError(name, self._services) from None


def _as_probe(name: str, role: Role, look: Check | Probe) -> Probe:
    if is_async(look):
        return FunctionProbe(look)
    if is_async(getattr(look, "probe", None)):
        return cast(Probe, look)
    raise ConfigurationError(
        f"service {name!r}: its {role.value} check is {look!r}; give an async function ('async def') or a Probe"
    )


def _refuse_bad_options(name: object, options: ServiceOptions) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a service's name must be a text that is not empty, found {name!r}")
    positive = {"interval_s": options.interval_s, "timeout_s": options.timeout_s, "reprobe_s": options.reprobe_s}
    for key, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"service {name!r}: {key} must be above 0 seconds, found {value!r}")
    if not (math.isfinite(options.startup_grace_s) and options.startup_grace_s >= 0):
        raise ConfigurationError(
            f"service {name!r}: startup_grace_s must be 0 seconds or more, found {options.startup_grace_s!r}"
        )
    for key, value in {"rise": options.rise, "fall": options.fall}.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"service {name!r}: {key} must be a whole number from 1 on, found {value!r}")
    if name in options.depends_on:
        raise DependencyError(f"service {name!r} depends on itself; remove that from its depends_on")
