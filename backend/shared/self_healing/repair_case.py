"""One service as its repairer sees it: its ladder, what its checks say for the ladder, and who waits for its repair."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.shared.self_healing.actions.timed import TimedRung
from backend.shared.self_healing.ladder import Ladder, Run
from modules.contracts.events import IncidentClosed, IncidentOpened, RepairEnded, RepairGaveUp, RepairStarted
from modules.contracts.health import (
    HealthCheckResult,
    HealthStatus,
    ProbeOutcome,
    RepairOptions,
    RepairReport,
    Role,
)

LOOK_FIRST_S = 0.25
LOOK_LONGEST_S = 2.0
"""Checks during verification begin close together and become rarer: each of them counts for the SLO."""

Milestone = IncidentOpened | RepairStarted | RepairEnded | RepairGaveUp | IncidentClosed
"""What is told of an incident and must not be lost."""

_ALIVE = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)


@dataclass(slots=True, eq=False)
class Case:
    """The repair of one service. Times are monotonic seconds."""

    name: str
    rungs: tuple[TimedRung, ...]
    options: RepairOptions
    ladder: Ladder
    paused: bool = False
    until_healthy: bool = False
    """Whether the incident was opened for a service that is degraded or flaps, so that being alive does not end it."""
    settles_until: float = 0.0
    """The rung of another service has restarted it: until then its failures are those of a start."""
    untold: Milestone | None = None
    """What is being written and told, or was written by an earlier run and perhaps not told."""
    affected: bool = False
    """Whether it was last seen failing for the sake of a dependency."""
    interrupted: Run | None = None
    """The run that was under way when the program ended last time, until that is told."""
    done: list[str] = field(default_factory=list)
    """What was done in this incident, in words."""
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    waiters: list[asyncio.Future[RepairReport]] = field(default_factory=list)
    look_at: float = 0.0
    _look_delay: float = LOOK_FIRST_S
    _passed: bool = False
    _told: set[str] = field(default_factory=set)

    def observe(self, result: HealthCheckResult, now: float) -> None:
        """Tell the ladder what a check means for it.

        What was opened for a failed service is over when it is alive, for readiness asks for no repair; what
        was opened for a degraded or flapping one, when it is healthy. A prober's error and a start under way say
        nothing, and no more does what is seen while a rung is at work that should have ended.
        """
        if result.outcome is ProbeOutcome.ERROR or any(rung.busy for rung in self.rungs):
            return
        if result.status is HealthStatus.STARTING:
            self.ladder.hold(now)
            return
        if result.status in (_ALIVE[:1] if self.until_healthy else _ALIVE):
            passed = result.healthy or (result.role is Role.READINESS and not self.until_healthy)
        elif result.healthy:
            return  # passes, but not yet as often as its monitor wants to see
        else:
            passed = False
        if passed is not self._passed:
            self._passed, self._look_delay = passed, LOOK_FIRST_S
        self.ladder.observe(passed, now)

    def look_soon(self, now: float) -> None:
        """Something has just been done for it: begin with quick looks."""
        self._look_delay = LOOK_FIRST_S
        self.look_at = now + LOOK_FIRST_S

    def looked(self, now: float) -> None:
        """It was looked at; the next look is due a while later."""
        self.look_at = now + self._look_delay
        self._look_delay = min(2 * self._look_delay, LOOK_LONGEST_S)

    def is_news(self, rule: str, *, also: bool = False) -> bool:
        """Whether ``rule`` is another one than the one told last; with ``also``, than all that were told."""
        if rule in self._told:
            return False
        if not also:
            self._told.clear()
        self._told.add(rule)
        return True

    def forget_told(self) -> None:
        self._told.clear()

    def answer(self, *, repaired: bool, incident: str, detail: str) -> None:
        """Tell everyone who waits how it ended."""
        report = RepairReport(self.name, incident, repaired, tuple(self.done), detail)
        for waiter in self._take_waiters():
            waiter.set_result(report)

    def fail(self, error: Exception) -> None:
        """Tell everyone who waits that it will not end."""
        for waiter in self._take_waiters():
            waiter.set_exception(error)

    def _take_waiters(self) -> Sequence[asyncio.Future[RepairReport]]:
        waiters, self.waiters = self.waiters, []
        return [waiter for waiter in waiters if not waiter.done()]

    @property
    def needs_driver(self) -> bool:
        """Whether its ladder has something to do or to wait for but results."""
        return not self.ladder.rests
