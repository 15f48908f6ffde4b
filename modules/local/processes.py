"""Supervised processes: started in order, watched, restarted on demand, stopped in reverse, never orphaned.

Supervision as in Erlang/OTP's supervisors and s6, without a policy: an exit is published at once, whether
to restart is repair's decision. Each child leads a process group; a group never outlives its leader, its
leader never outlives this program (prctl, see ``child``), and a guardian process (see ``guardian``) ends
what is left of all groups when this program is killed. What left its group is found by its mark, see there.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ProcessError, UnknownServiceError
from modules.contracts.events import ComponentFailed, EventBus, ProcessExited, ProcessStarted
from modules.contracts.health import GroupGuard, ProcessSpec, ProcessStatus
from modules.local.child import Child, Tail, spawn
from modules.local.guard import Guard
from modules.local.guardian import MARK, end_marked


@dataclass(slots=True, eq=False)
class _Service:
    """What is known of one supervised process."""

    name: str
    spec: ProcessSpec
    mark: str
    tail: Tail = field(default_factory=Tail)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    child: Child | None = None
    restart: asyncio.Task[None] | None = None
    starts: int = 0
    written_before: int = 0
    """What earlier starts had written to the tail."""
    started_at: float | None = None
    exit_code: int | None = None


class ProcessSupervisor:
    """The processes of a deployment, by service name: a Component and a ProcessControl.

    ``order`` is the start order, such as ``DependencyGraph.order``: names without a process are passed over,
    processes that it does not name come last. ``environment`` is asked at each start for variables that every
    process gets below its own ``env``. Must live in one event loop.
    """

    def __init__(
        self,
        specs: Mapping[str, ProcessSpec],
        *,
        clock: Clock,
        events: EventBus,
        order: Sequence[str] | None = None,
        environment: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._clock = clock
        self._events = events
        ordered = dict.fromkeys([*(name for name in order or () if name in specs), *specs])
        self._run = f"{secrets.token_hex(8)}/"
        self._services = {
            name: _Service(name, specs[name], f"{self._run}{number}/") for number, name in enumerate(ordered)
        }
        self._environment = environment
        self._guardian = Guard(clock, events, self._run)
        self._strays: set[str] = set()
        self._sweep: asyncio.Task[None] | None = None
        self._state = ComponentState.CREATED

    @property
    def guard(self) -> GroupGuard:
        """Who ends the process groups of commands when this program dies. Until ``stop`` has returned."""
        return self._guardian

    @property
    def names(self) -> tuple[str, ...]:
        """The services that have a process, in start order."""
        return tuple(self._services)

    @property
    def status(self) -> ComponentStatus:
        running = sum(1 for service in self._services.values() if service.child)
        detail = f"{running} of {len(self._services)} processes run"
        if self._state is ComponentState.RUNNING and self._guardian.lost:
            return ComponentStatus(ComponentState.DEGRADED, f"{detail}; the process guardian does not run")
        return ComponentStatus(self._state, detail)

    def get_status(self, name: str) -> ProcessStatus:
        """Return the process as it stands. Raises UnknownServiceError."""
        service = self._get(name)
        return ProcessStatus(
            name=name,
            running=service.child is not None,
            pid=service.child.pid if service.child else None,
            started_at=service.started_at,
            restarts=max(0, service.starts - 1),
            exit_code=service.exit_code,
        )

    def tail(self, name: str) -> str:
        """Return the newest 64 KiB that the service wrote, over all its restarts. Raises UnknownServiceError."""
        return self._get(name).tail.text()

    async def start(self) -> None:
        """Start every process in order. Raises ProcessError, with nothing left running."""
        if self._state is ComponentState.RUNNING:
            return
        self._state = ComponentState.RUNNING
        self._guardian.open()
        try:
            for name in self._services:
                await self.start_process(name)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every process in reverse order; cancelled meanwhile, kill them all at once.

        Raises ProcessError when a process could not be ended even by SIGKILL, after trying all others.
        """
        self._state = ComponentState.STOPPED
        stuck: list[str] = []
        try:
            for service in reversed(self._services.values()):
                try:
                    await self.stop_process(service.name)
                except ProcessError as error:
                    stuck.append(str(error))
            restarts = [service.restart for service in self._services.values() if service.restart]
            await asyncio.gather(*restarts, return_exceptions=True)
        finally:
            left = [service.child for service in self._services.values() if service.child]
            await asyncio.gather(*(child.end(self._clock, 0) for child in left), return_exceptions=True)
            await self._end_strays(self._run)
            await self._guardian.stop()
        if stuck:
            raise ProcessError("; ".join(stuck))

    async def start_process(self, name: str) -> None:
        """Start the process unless it runs. Raises ProcessError or UnknownServiceError."""
        service = self._get(name)
        async with service.lock:
            if service.child is None:
                self._spawn(service)

    async def stop_process(self, name: str) -> None:
        """End the process if it runs. Raises ProcessError or UnknownServiceError."""
        service = self._get(name)
        async with service.lock:
            await self._end(service)
            await self._end_strays_of(service)

    async def restart(self, name: str) -> None:
        """End the process if it runs and start it anew. Raises ProcessError or UnknownServiceError.

        Joins a restart that is under way. A restart once begun is finished even when the caller is
        cancelled: a process half way between stop and start would be of no use to anybody.
        """
        service = self._get(name)
        if service.restart is None or service.restart.done():
            service.restart = asyncio.create_task(self._restart(service), name=f"restart-{name}")
        restart = service.restart
        try:
            await asyncio.shield(restart)
        except asyncio.CancelledError:
            restart.add_done_callback(partial(self._report_unheard, name))
            raise

    async def _restart(self, service: _Service) -> None:
        async with service.lock:
            await self._end(service)
            await self._end_strays_of(service)
            self._spawn(service)

    def _report_unheard(self, name: str, restart: asyncio.Task[None]) -> None:
        if not restart.cancelled() and (error := restart.exception()):
            self._events.publish(
                ComponentFailed(service=name, component="processes", detail=f"restart of {name}: {error}")
            )

    def _get(self, name: str) -> _Service:
        try:
            return self._services[name]
        except KeyError:
            raise UnknownServiceError(name, self._services) from None

    def _spawn(self, service: _Service) -> None:
        spec, name = service.spec, service.name
        if self._state is ComponentState.STOPPED:
            raise ProcessError(f"process {name!r} is not started, because the runtime stops; start the runtime first")
        self._guardian.ensure()
        command = [part.replace("{python}", sys.executable) for part in spec.command]
        try:
            process = spawn(
                command,
                env={**os.environ, **self._environment(), **spec.env, MARK: service.mark},
                cwd=spec.cwd,
                output="pipe" if spec.log == "tail" else spec.log,
            )
        except ProcessError as error:
            raise ProcessError(f"process {name!r} ({' '.join(spec.command)}) did not start: {error}") from error
        self._guardian.add(process.pid)
        service.written_before = service.tail.written
        service.child = Child(process, tail=service.tail, on_exit=partial(self._exited, service))
        service.starts += 1
        service.started_at = self._clock.time()
        self._events.publish(ProcessStarted(service=name, pid=process.pid))

    async def _end(self, service: _Service) -> None:
        if service.child is None:
            return
        try:
            await service.child.end(self._clock, service.spec.stop_timeout_s)
        except ProcessError as error:
            raise ProcessError(f"process {service.name!r} did not end: {error}") from error

    def _exited(self, service: _Service, child: Child, code: int) -> None:
        service.child = None
        service.exit_code = code
        self._guardian.drop(child.pid)
        self._events.publish(
            ProcessExited(
                service=service.name,
                pid=child.pid,
                exit_code=code,
                expected=child.ending,
                output=service.tail.last_line(service.written_before),
            )
        )
        if not child.ending:  # an end that was asked for is followed by this anyway
            self._sweep_soon(service.mark)

    async def _end_strays_of(self, service: _Service) -> None:
        """End what left the service's group; at a stop of everything once for all."""
        if service.starts and self._state is not ComponentState.STOPPED:
            await self._end_strays(service.mark)

    async def _end_strays(self, mark: str) -> None:
        await asyncio.wait({self._sweep_soon(mark)})

    def _sweep_soon(self, mark: str) -> asyncio.Task[None]:
        """Look for strays of ``mark``; many that are asked for at once are found by one look."""
        self._strays.add(mark)
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._sweep_all(), name="end strays")
        return self._sweep

    async def _sweep_all(self) -> None:
        while self._strays:  # what is asked for meanwhile gets a look of its own
            marks, self._strays = self._strays, set()
            try:
                for _ in end_marked(marks):
                    await asyncio.sleep(0)
            except Exception as error:  # it must neither hold up a restart nor be lost
                detail = f"looking for strays: {type(error).__name__}: {error}"
                self._events.publish(ComponentFailed(component="processes", detail=detail))
