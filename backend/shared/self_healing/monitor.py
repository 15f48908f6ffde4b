"""Watches services: registers them, checks them on schedule and on demand, and answers for their health.

One task walks the schedule and starts a task per check. Everything that decides stands beside this file:
``schedule`` (when), ``checks`` (one check), ``state`` and ``flapping`` (what is believed), ``dependencies`` (for
whose sake), ``stalls`` (whether this program itself ran meanwhile).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from backend.shared.self_healing.checks import Checks
from backend.shared.self_healing.schedule import Schedule
from backend.shared.self_healing.stalls import Stalls
from backend.shared.self_healing.timed import TimedProbe
from backend.shared.self_healing.watched import Watched, watch
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import DuplicateServiceError, SelfrightError, UnknownServiceError
from modules.contracts.events import Event, EventBus, ProcessExited
from modules.contracts.health import (
    Check,
    HealthCheckResult,
    HealthStatus,
    Probe,
    ResultListener,
    Role,
    ServiceHealth,
    ServiceOptions,
)

_LONGEST_SLEEP_S = 0.5
"""So finely is lost time measured."""


class HealthMonitor:
    """The full implementation of ``modules.contracts.health.HealthMonitor``; also a Component.

    ``rng`` shifts the phases of the schedule, so that several runtimes do not probe in step. Must live in one
    event loop.
    """

    def __init__(self, *, clock: Clock, events: EventBus, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._events = events
        self._services: dict[str, Watched] = {}
        self._stalls = Stalls()
        self._checks = Checks(
            self._services, clock=clock, events=events, stalls=self._stalls, ended=self._plan, soon=self._soon
        )
        self._dependencies = self._checks.dependencies
        self._schedule = Schedule(rng.random() if rng else 0.0)
        self._wake = asyncio.Event()
        self._sleeps_until: float | None = None
        self._walker: asyncio.Task[None] | None = None
        self._unclosed: list[TimedProbe] = []
        self._unlisten: Callable[[], None] | None = None
        self._state = ComponentState.CREATED
        self._lag_s = 0.0

    # --- what is watched --------------------------------------------------------------------------------

    def register_service(
        self,
        name: str,
        check: Check | Probe,
        *,
        startup: Check | Probe | None = None,
        readiness: Check | Probe | None = None,
        options: ServiceOptions | None = None,
    ) -> None:
        """Watch a service; once started, from now on.

        Raises DuplicateServiceError or ConfigurationError (once started also for its dependencies), and then
        changes nothing.
        """
        if name in self._services:
            raise DuplicateServiceError(f"a service named {name!r} is registered already; choose another name")
        roles = {Role.STARTUP: startup, Role.LIVENESS: check, Role.READINESS: readiness}
        now = self._clock.monotonic()
        service = watch(name, roles, options or ServiceOptions(), now=now, wall=self._clock.time())
        self._services[name] = service
        self._dependencies.changed()
        if self._state is ComponentState.RUNNING:
            try:
                self._dependencies.validate()
            except SelfrightError:
                del self._services[name]
                self._dependencies.changed()
                raise
            self._plan_now(service)
        self._dependencies.observe(name, service.state.status)

    def unregister_service(self, name: str) -> None:
        """Forget a service and end its check; whoever waits for that is told UnknownServiceError."""
        service = self._get(name)
        del self._services[name]
        self._schedule.remove(name)
        for task in (service.check, service.conclusion):
            if task is not None:
                task.cancel()
        self._dependencies.forget(name)
        probes = list(service.probes.values())
        if self._state is ComponentState.RUNNING:
            self._checks.spawn(self._close(probes), f"close {name}")
        else:
            self._unclosed += probes
        for other in self._services.values():
            if name in other.affected_by:
                self._checks.reassess(other)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._services)

    def get_options(self, name: str) -> ServiceOptions:
        """Return how a service is treated. Raises UnknownServiceError."""
        return self._get(name).options

    def get_status(self, name: str) -> ServiceHealth:
        """Return what is known without looking again. Raises UnknownServiceError."""
        return self._get(name).health()

    def add_listener(self, listener: ResultListener) -> None:
        """Call ``listener`` with each result; one that raises is reported and the others still hear."""
        self._checks.listeners.append(listener)

    # --- checks on demand and control -------------------------------------------------------------------

    async def check_health(self, name: str) -> HealthCheckResult:
        """Check now, or join the check under way, and return its result.

        Raises UnknownServiceError, also when the service is unregistered meanwhile, and SelfrightError when
        the monitor stops meanwhile.
        """
        service = self._get(name)
        check = self._checks.begin(service)
        # Waiting on the task from outside keeps a caller's cancellation away from the others that joined.
        await asyncio.wait((check,))
        if not check.cancelled():
            return check.result()
        if self._services.get(name) is not service:
            raise UnknownServiceError(name, self._services)
        raise SelfrightError(f"the check of {name!r} was ended because the monitor stops; check again if it matters")

    async def check_all(self) -> Mapping[str, HealthCheckResult]:
        """Check every service at once; one that is unregistered meanwhile is left out."""
        names = self.services
        results = await asyncio.gather(*(self.check_health(name) for name in names), return_exceptions=True)
        checked: dict[str, HealthCheckResult] = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, HealthCheckResult):
                checked[name] = result
            elif not isinstance(result, UnknownServiceError):
                raise result
        return checked

    def expect_restart(self, name: str) -> None:
        """Count from zero and begin the startup grace anew; a check that is under way does not count."""
        service = self._get(name)
        previous = service.state.status
        self._checks.restart(service)
        if service.check is None:
            self._soon(service, service.reprobe_s)
        else:
            service.again = True
        self._checks.tell(service, previous, "a restart was ordered")

    def pause(self, name: str) -> None:
        """Stop scheduled checks until ``resume``; checks on demand still work."""
        self._get(name).paused = True
        self._schedule.remove(name)

    def resume(self, name: str) -> None:
        """Check on schedule again, beginning now."""
        service = self._get(name)
        if service.paused:
            service.paused = False
            if self._state is ComponentState.RUNNING:
                self._plan_now(service)

    # --- life -------------------------------------------------------------------------------------------

    @property
    def status(self) -> ComponentStatus:
        detail = f"{len(self._services)} services; the newest scheduled check began {self._lag_s * 1000:.0f} ms late"
        return ComponentStatus(self._state, detail)

    async def start(self) -> None:
        """Begin scheduled checks. Raises DependencyError and then does nothing."""
        if self._state is ComponentState.RUNNING:
            return
        self._dependencies.validate()
        now = self._clock.monotonic()
        for service in self._services.values():
            if service.state.status is HealthStatus.STARTING:
                self._checks.restart(service)  # the grace was meant to begin with the watching
            if not service.paused:
                self._schedule.add(service.name, service.options.interval_s, now)
        self._state = ComponentState.RUNNING
        self._unlisten = self._events.listen(self._hear)
        self._walker = asyncio.create_task(self._walk(), name="health schedule")

    async def stop(self) -> None:
        """End every check and give back the probes' connections. Safe without a start, and twice."""
        if self._state is ComponentState.RUNNING:
            self._state = ComponentState.STOPPED
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        for name in self._services:
            self._schedule.remove(name)
        if self._walker is not None:
            walker, self._walker = self._walker, None
            walker.cancel()
            await asyncio.gather(walker, return_exceptions=True)
        await self._checks.stop()
        unclosed, self._unclosed = self._unclosed, []
        await self._close([*unclosed, *(probe for s in self._services.values() for probe in s.probes.values())])

    # --- the walk along the schedule --------------------------------------------------------------------

    async def _walk(self) -> None:
        while True:
            try:
                await self._step()
            except Exception as error:  # the schedule must go on whatever happens
                self._checks.report("the schedule of health checks", error)
                await self._clock.sleep(1.0)

    async def _step(self) -> None:
        now = self._clock.monotonic()
        due = self._schedule.next_due()
        if due is not None and due <= now:
            self._lag_s = now - due
            for name in self._schedule.take_due(now):
                self._checks.begin(self._services[name])
            due = self._schedule.next_due()
        self._wake.clear()
        self._sleeps_until = due
        now = self._clock.monotonic()
        delay = _LONGEST_SLEEP_S if due is None else min(max(0.0, due - now), _LONGEST_SLEEP_S)
        self._stalls.sleeps(now + delay)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()
        self._stalls.wakes(self._clock.monotonic())

    def _plan_now(self, service: Watched) -> None:
        """Put a service on the schedule, beginning now."""
        now = self._clock.monotonic()
        self._schedule.add(service.name, service.options.interval_s, now, first=now)
        self._wake_for(now)

    def _plan(self, service: Watched) -> None:
        """After a check: the next one is due at once, as a quick re-probe, or on the service's grid."""
        again, service.again = service.again, False
        if service.name not in self._schedule or self._services.get(service.name) is not service:
            return
        now = self._clock.monotonic()
        due = self._schedule.on_grid(service.name, now)
        delay = 0.0 if again else self._checks.next_delay(service)
        if delay is not None and now + delay < due:
            self._soon(service, delay)
        else:
            self._wake_for(due)

    def _soon(self, service: Watched, delay: float) -> None:
        """Make a scheduled service due in ``delay`` seconds."""
        if service.name in self._schedule:
            due = self._clock.monotonic() + delay
            self._schedule.at(service.name, due)
            self._wake_for(due)

    def _wake_for(self, due: float) -> None:
        if self._sleeps_until is None or due < self._sleeps_until:
            self._wake.set()

    def _hear(self, event: Event) -> None:
        """A supervised process that ended by itself is looked at at once."""
        if isinstance(event, ProcessExited) and not event.expected and event.service in self._services:
            service = self._services[event.service]
            if service.check is None:
                self._soon(service, 0.0)
            else:
                service.again = True

    # --- small parts ------------------------------------------------------------------------------------

    def _get(self, name: str) -> Watched:
        try:
            return self._services[name]
        except KeyError:
            raise UnknownServiceError(name, self._services) from None

    async def _close(self, probes: Iterable[TimedProbe]) -> None:
        for probe in probes:
            try:
                await probe.close()
            except Exception as error:  # the other probes must be closed all the same
                self._checks.report("closing a probe", error)
