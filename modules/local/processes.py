"""Supervised processes: started in order, watched, restarted on demand, stopped in reverse, never orphaned.

Supervision as in Erlang/OTP's supervisors and s6, without a policy: an exit is published at once, whether
to restart is repair's decision. Each child leads a process group; a group never outlives its leader, its
leader never outlives this program (prctl, see ``child``), and a guardian process (see ``guardian``) ends
what is left of all groups when this program is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ProcessError, UnknownServiceError
from modules.contracts.events import ComponentFailed, EventBus, ProcessExited, ProcessStarted
from modules.contracts.health import ProcessSpec, ProcessStatus
from modules.local.child import Child, Tail, spawn

_GUARDIAN = Path(__file__).with_name("guardian.py")


@dataclass(slots=True, eq=False)
class _Service:
    """What is known of one supervised process."""

    name: str
    spec: ProcessSpec
    tail: Tail = field(default_factory=Tail)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    child: Child | None = None
    restart: asyncio.Task[None] | None = None
    starts: int = 0
    started_at: float | None = None
    exit_code: int | None = None


class ProcessSupervisor:
    """The processes of a deployment, by service name: a Component and a ProcessControl.

    ``order`` is the start order, such as ``DependencyGraph.order``: names without a process are passed over,
    processes that it does not name come last. Must live in one event loop.
    """

    def __init__(
        self,
        specs: Mapping[str, ProcessSpec],
        *,
        clock: Clock,
        events: EventBus,
        order: Sequence[str] | None = None,
    ) -> None:
        self._clock = clock
        self._events = events
        ordered = dict.fromkeys([*(name for name in order or () if name in specs), *specs])
        self._services = {name: _Service(name, specs[name]) for name in ordered}
        self._guardian = _Guardian(clock, events)
        self._state = ComponentState.CREATED

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
                env={**os.environ, **spec.env},
                cwd=spec.cwd,
                output="pipe" if spec.log == "tail" else spec.log,
            )
        except ProcessError as error:
            raise ProcessError(f"process {name!r} ({' '.join(spec.command)}) did not start: {error}") from error
        self._guardian.add(process.pid)
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
        self._events.publish(ProcessExited(service=service.name, pid=child.pid, exit_code=code, expected=child.ending))


class _Guardian:
    """This program's end of the guardian process; begun anew when somebody kills it."""

    def __init__(self, clock: Clock, events: EventBus) -> None:
        self._clock = clock
        self._events = events
        self._child: Child | None = None
        self._began = 0.0
        self._groups: set[int] = set()
        self.lost = False

    def ensure(self) -> None:
        """Start it unless it runs; without it the children still run, and still die with their parent."""
        if self._child is not None:
            return
        try:
            process = spawn(
                [sys.executable, "-I", "-S", str(_GUARDIAN)],
                env=os.environ,
                cwd="/",
                output="discard",
                stdin="pipe",
                tied=False,
            )
        except ProcessError as error:
            self.lost = True
            self._events.publish(ComponentFailed(component="process guardian", detail=str(error)))
            return
        self._child = Child(process, tail=None, on_exit=self._exited)
        os.set_blocking(self._child.stdin, False)
        self._began = self._clock.monotonic()
        self.lost = False
        for group in self._groups:
            self._tell(f"add {group}\n")

    def add(self, group: int) -> None:
        self._groups.add(group)
        self._tell(f"add {group}\n")

    def drop(self, group: int) -> None:
        self._groups.discard(group)
        self._tell(f"drop {group}\n")

    async def stop(self) -> None:
        """End it; it kills what was not dropped. Safe twice."""
        if self._child is not None:
            child, self._child = self._child, None
            child.ending = True
            child.close_stdin()
            if not await child.gone_within(self._clock, 2.0):
                await child.end(self._clock, 0)

    def _tell(self, line: str) -> None:
        if self._child is None:
            return
        try:
            os.write(self._child.stdin, line.encode())  # shorter than PIPE_BUF: whole or not at all
        except BlockingIOError:  # it does not read: replace it
            self._child.signal_group(signal.SIGKILL)
        except OSError:
            pass  # it has died, and its exit is about to be noticed

    def _exited(self, child: Child, code: int) -> None:
        if child.ending:
            return
        self._child = None
        self.lost = True
        self._events.publish(
            ComponentFailed(component="process guardian", detail=f"process {child.pid} ended with code {code}")
        )
        if self._clock.monotonic() - self._began >= 1.0:  # one that cannot live waits for the next start
            self.ensure()
