"""Repairs services: from a failed check to a verified recovery, one ladder a service, under shared caps.

Here is what a user holds: registration, orders, and the ear at the monitor. ``repair_driver`` drives open incidents,
``repair_records`` keeps them across restarts, ``recovery`` adds the policy of the error budget.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import fields

from backend.shared.self_healing.actions import as_rung
from backend.shared.self_healing.actions.timed import Ended, TimedRung
from backend.shared.self_healing.caps import Caps
from backend.shared.self_healing.ladder import Ladder
from backend.shared.self_healing.repair_case import Case
from backend.shared.self_healing.repair_driver import RepairDriver
from backend.shared.self_healing.repair_records import RepairRecords
from backend.shared.self_healing.settings import CapsSettings
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import (
    ConfigurationError,
    DuplicateServiceError,
    RepairError,
    SelfrightError,
    UnknownServiceError,
)
from modules.contracts.events import (
    ComponentFailed,
    EventBus,
    RepairControl,
)
from modules.contracts.health import (
    Decision,
    HealthCheckResult,
    HealthMonitor,
    HealthStatus,
    RepairAction,
    RepairFunction,
    RepairOptions,
    RepairPhase,
    RepairPolicy,
    RepairReport,
    RepairStatus,
    Rung,
    RungOutcome,
    ServiceHealth,
)
from modules.contracts.state import StateStore


class UnhealthyPolicy:
    """Repairs what is UNHEALTHY and not affected by a failed dependency."""

    def decide(self, health: ServiceHealth) -> Decision:
        found = health.last.detail if health.last else "not checked yet"
        if health.affected_by and health.status is not HealthStatus.STARTING:
            return Decision(False, "affected", f"it fails because of {', '.join(health.affected_by)}")
        return Decision(health.status is HealthStatus.UNHEALTHY, health.status.value, found)


class AutoRepair:
    """The full implementation of ``modules.contracts.health.AutoRepair``; also a Component.

    ``rng`` draws the waits before further attempts. With ``dry_run`` everything is decided, recorded and told,
    but no rung runs. Must live in one event loop.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        *,
        clock: Clock,
        events: EventBus,
        rng: random.Random | None = None,
        store: StateStore | None = None,
        caps: CapsSettings | None = None,
        dry_run: bool = False,
    ) -> None:
        self._monitor = monitor
        self._clock = clock
        self._events = events
        self._rng = rng or random.Random()  # noqa: S311  jitter, not secrets
        self._dry_run = dry_run
        self._cases: dict[str, Case] = {}
        self._records = RepairRecords(store, clock, events, self._report)
        self._driver = RepairDriver(
            monitor,
            self._cases,
            clock=clock,
            events=events,
            records=self._records,
            caps=Caps(caps or CapsSettings(), lambda: len(self._cases)),
            policy=UnhealthyPolicy(),
            report=self._report,
            dry_run=dry_run,
        )
        self._state = ComponentState.CREATED
        monitor.add_listener(self._on_result)

    # --- what is repaired, and how ----------------------------------------------------------------------

    def set_policy(self, policy: RepairPolicy) -> None:
        """Ask ``policy`` from now on instead of the one so far."""
        self._driver.policy = policy

    def register_service(
        self,
        name: str,
        rungs: Sequence[Rung | RepairAction | RepairFunction],
        *,
        options: RepairOptions | None = None,
    ) -> None:
        """Give a service its ladder; what an earlier run left open is taken up again.

        Without rungs its incidents are only told. Raises DuplicateServiceError or ConfigurationError, and then
        changes nothing.
        """
        if name in self._cases:
            raise DuplicateServiceError(f"a service named {name!r} has a repair ladder already; register it once")
        options = options or RepairOptions()
        _validate(name, options)
        timed = tuple(TimedRung(as_rung(rung, f"rung {n} of {name!r}")) for n, rung in enumerate(rungs, 1))
        case = Case(name, timed, options, Ladder([t.rung.attempts for t in timed], options, self._rng))
        self._records.load(case)
        self._cases[name] = case
        if self._state is ComponentState.RUNNING:
            self._take_up(case)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._cases)

    def get_options(self, name: str) -> RepairOptions:
        """Return the options that a service was registered with. Raises UnknownServiceError."""
        return self._get(name).options

    def get_ladder(self, name: str) -> tuple[Rung, ...]:
        """Return the rungs that a service was registered with. Raises UnknownServiceError."""
        return tuple(timed.rung for timed in self._get(name).rungs)

    def get_status(self, name: str) -> RepairStatus:
        """Return a service's repair as it stands. Raises UnknownServiceError."""
        case = self._get(name)
        ladder, now = case.ladder, self._clock.monotonic()
        ahead = self._clock.time() - now
        next_at = ladder.next_at(now)
        return RepairStatus(
            service=name,
            phase=ladder.phase,
            incident=ladder.incident,
            opened_at=ladder.opened_at + ahead if ladder.open else None,
            rung=ladder.rung,
            rungs=tuple(rung.describe for rung in case.rungs),
            attempts=ladder.actions if ladder.open else 0,
            next_at=None if next_at is None else next_at + ahead,
            reason=ladder.reason if ladder.open else "",
            paused=case.paused,
        )

    # --- orders -----------------------------------------------------------------------------------------

    async def repair(self, name: str, reason: str = "asked for") -> RepairReport:
        """Repair a service now, also a healthy one, and return how it ended. Joins a repair under way.

        The next rung waits neither for policy, pause nor back-off; the caps hold. Being cancelled leaves the
        repair going on. Raises UnknownServiceError, RepairError when there is no rung, SelfrightError when
        repairs are stopped meanwhile.
        """
        case = self._get(name)
        if not case.rungs:
            raise RepairError(f"{name} has no rung of repair; give it one, as under services.{name}.repair")
        if self._state is ComponentState.STOPPED:
            raise SelfrightError(f"{name} cannot be repaired, because repairs are stopped; start them again")
        self._control("repair", name)
        if case.ladder.phase is RepairPhase.IDLE:
            self._driver.open(case, reason)
        case.ladder.order(self._clock.monotonic())
        self._records.save(case)
        waiter: asyncio.Future[RepairReport] = asyncio.get_running_loop().create_future()
        case.waiters.append(waiter)
        self._driver.wake(case)
        return await waiter

    def pause(self, name: str | None = None) -> None:
        """Begin no further rung for a service, or for all that are registered, until ``resume``."""
        for case in self._paused(name, True):
            if case.ladder.phase is not RepairPhase.RUNNING:
                self._driver.release(case)

    def resume(self, name: str | None = None) -> None:
        """End a pause; a ladder that had given up begins anew."""
        for case in self._paused(name, False):
            if case.ladder.phase is RepairPhase.GAVE_UP:
                case.ladder.reset(self._clock.monotonic())
                self._records.save(case)
            if case.ladder.open:
                self._driver.wake(case)

    def _paused(self, name: str | None, paused: bool) -> list[Case]:
        cases = list(self._cases.values()) if name is None else [self._get(name)]
        for case in cases:
            if case.paused is not paused:
                case.paused = paused
                self._records.save(case)
        self._control("pause" if paused else "resume", name)
        return cases

    # --- life -------------------------------------------------------------------------------------------

    @property
    def status(self) -> ComponentStatus:
        incidents = sum(case.ladder.open for case in self._cases.values())
        dry = ", dry run" if self._dry_run else ""
        return ComponentStatus(self._state, f"{len(self._cases)} services, {incidents} open incidents{dry}")

    async def start(self) -> None:
        """Watch the monitor's results, and go on with the incidents that an earlier run left open."""
        if self._state is not ComponentState.RUNNING:
            self._state = ComponentState.RUNNING
            self._driver.watching, self._driver.stopped = True, False
            for case in self._cases.values():
                self._take_up(case)

    async def stop(self) -> None:
        """Cancel what runs and record it as interrupted. Safe without a start, and twice; incidents stay open."""
        self._state = ComponentState.STOPPED
        self._driver.stopped = True
        cases = list(self._cases.values())
        tasks = [case.task for case in cases if case.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for case in cases:
            case.fail(
                SelfrightError(f"the repair of {case.name} was ended, because repairs are stopped; it stays open")
            )
        await asyncio.gather(*(rung.close() for case in cases for rung in case.rungs))

    def _take_up(self, case: Case) -> None:
        self._records.tell_rest(case)
        if case.interrupted is not None:
            cut_off = Ended(RungOutcome.INTERRUPTED, "the program ended while it ran")
            self._driver.tell_end(case, case.interrupted, cut_off, 0.0)
            case.interrupted = None
        self._driver.wake(case)

    # --- what the monitor sees --------------------------------------------------------------------------

    def _on_result(self, result: HealthCheckResult) -> None:
        case = self._cases.get(result.service)
        if case is None:
            return
        if result.healthy and result.status is HealthStatus.HEALTHY:
            case.settles_until = 0.0
        if self._driver.holds.holds_other(case.name):
            return  # what it does while another's rung stops and starts it says nothing about it
        now = self._clock.monotonic()
        if result.affected_by:
            case.affected = True
            if case.ladder.phase is not RepairPhase.RUNNING:
                self._driver.release(case)  # the root of its failure may need the slot
        elif case.affected:
            case.affected = False  # no back-off outlives the fault of a dependency
            case.ladder.reset(now)
        if case.ladder.open:
            case.observe(result, now)
            self._driver.wake(case)
        elif result.status is HealthStatus.HEALTHY:
            case.forget_told()
        elif self._state is ComponentState.RUNNING and not result.healthy:
            self._driver.consider(case)

    # --- small parts ------------------------------------------------------------------------------------

    def _get(self, name: str) -> Case:
        try:
            return self._cases[name]
        except KeyError:
            raise UnknownServiceError(name, self._cases) from None

    def _control(self, action: str, name: str | None) -> None:
        self._events.publish(RepairControl(service=name, action=action))

    def _report(self, detail: str) -> None:
        self._events.publish(ComponentFailed(component="repair", detail=detail))


def _validate(name: str, options: RepairOptions) -> None:
    whole = ("attempts_per_interval", "verify_passes")
    wrong = [
        f"{key} is {value!r}, must be {'1 or more' if key in whole else '0 or more'}"
        for key, value in ((field.name, getattr(options, field.name)) for field in fields(options))
        if not (math.isfinite(value) and value >= (1 if key in whole else 0))
    ]
    if wrong:
        raise ConfigurationError(f"repair of {name!r}: {'; '.join(wrong)}")
