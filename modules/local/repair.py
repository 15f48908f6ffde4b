"""Repair from the standard library: one task an open incident climbs the service's ladder, rung by rung.

Decisions, events and back-off (exponential with full jitter) are those of the contract. What it knows is
kept in memory only, and there is no storm brake: both are the backend's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import (
    DuplicateServiceError,
    RepairError,
    SelfrightError,
    UnknownServiceError,
)
from modules.contracts.events import (
    ComponentFailed,
    EventBus,
    IncidentClosed,
    IncidentOpened,
    RepairControl,
    RepairEnded,
    RepairGaveUp,
    RepairSkipped,
    RepairStarted,
)
from modules.contracts.health import (
    Decision,
    HealthCheckResult,
    HealthMonitor,
    HealthStatus,
    RepairAction,
    RepairContext,
    RepairFunction,
    RepairOptions,
    RepairPhase,
    RepairPolicy,
    RepairReport,
    RepairStatus,
    Rung,
    RungOutcome,
)
from modules.local.actions import RestartAction, as_rung
from modules.local.ladder import Caps, Incident, Ladder, LocalCaps, RepairUnhealthy, refuse_bad_options

_NOT_WELL = (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED)
_NO_INCIDENT = ("affected", "maintenance")
"""Rules for which a failed service has no incident: it is another's, or people are at work on it."""
_QUIET_S = 5.0
_LEAST_WAIT_S = 0.25
"""Between two looks of a verification."""


class LocalAutoRepair:
    """The contract's AutoRepair. ``rng`` draws back-off and incident numbers; with ``dry_run`` no rung runs."""

    def __init__(
        self,
        monitor: HealthMonitor,
        *,
        clock: Clock,
        events: EventBus,
        rng: random.Random | None = None,
        caps: Caps | None = None,
        dry_run: bool = False,
    ) -> None:
        self._monitor = monitor
        self._clock = clock
        self._events = events
        self._rng = rng or random.Random()  # noqa: S311  jitter, not secrets
        self._caps = caps or LocalCaps()
        self._dry_run = dry_run
        self._policy: RepairPolicy = RepairUnhealthy()
        self._ladders: dict[str, Ladder] = {}
        self._under_repair: set[str] = set()
        self._at_work: set[str] = set()
        self._held: set[str] = set()
        """What the rungs that run restart with their own services: it is not repaired for being stopped."""
        self._paused = False
        self._state = ComponentState.CREATED
        monitor.add_listener(self._heard)

    # --- what it is told ---

    def set_policy(self, policy: RepairPolicy) -> None:
        self._policy = policy

    def register_service(
        self,
        name: str,
        rungs: Sequence[Rung | RepairAction | RepairFunction],
        *,
        options: RepairOptions | None = None,
    ) -> None:
        if name in self._ladders:
            raise DuplicateServiceError(f"{name!r} has a ladder already; register each service once")
        steps = tuple(as_rung(step, f"rung {number} of {name!r}") for number, step in enumerate(rungs, 1))
        options = options or RepairOptions()
        refuse_bad_options(name, options)
        self._ladders[name] = Ladder(name, steps, options)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._ladders)

    def get_ladder(self, name: str) -> tuple[Rung, ...]:
        return self._ladder(name).rungs

    def get_options(self, name: str) -> RepairOptions:
        return self._ladder(name).options

    def get_status(self, name: str) -> RepairStatus:
        ladder = self._ladder(name)
        incident = ladder.incident
        return RepairStatus(
            service=name,
            phase=incident.phase if incident else RepairPhase.IDLE,
            incident=incident.id if incident else None,
            opened_at=incident.opened_at if incident else None,
            rung=min(ladder.rung, max(0, len(ladder.rungs) - 1)),
            rungs=tuple(rung.action.describe for rung in ladder.rungs),
            attempts=len(incident.actions) if incident else 0,
            next_at=incident.next_at if incident else None,
            reason=incident.reason if incident else "",
            paused=self._paused or ladder.paused,
        )

    async def repair(self, name: str, reason: str = "asked for") -> RepairReport:
        """Climb the ladder now, past policy, pause and back-off; the caps hold. Joins a repair under way.

        Raises RepairError when there is no rung, and SelfrightError when repairs are stopped meanwhile.
        """
        ladder = self._ladder(name)
        if not ladder.rungs:
            raise RepairError(f"{name!r} has no rung of repair; register it with one")
        if self._state is ComponentState.STOPPED:
            raise SelfrightError(f"{name!r} cannot be repaired, because repairs are stopped; start them again")
        self._events.publish(RepairControl(service=name, action="repair"))
        incident = ladder.incident or self._open(ladder, reason, ordered=True)
        incident.ordered = incident.again = True
        if incident.ended is None or incident.ended.done():
            incident.ended = asyncio.get_running_loop().create_future()
        ladder.changed.set()
        return await asyncio.shield(incident.ended)

    def pause(self, name: str | None = None) -> None:
        self._set_paused(name, True)

    def resume(self, name: str | None = None) -> None:
        self._set_paused(name, False)

    def _set_paused(self, name: str | None, paused: bool) -> None:
        if name is None:
            self._paused = paused
        else:
            self._ladder(name).paused = paused
        self._events.publish(RepairControl(service=name, action="pause" if paused else "resume"))
        for ladder in self._ladders.values() if name is None else [self._ladder(name)]:
            if ladder.incident and not paused:
                ladder.incident.again = True
            ladder.changed.set()

    @property
    def status(self) -> ComponentStatus:
        opened = sum(1 for ladder in self._ladders.values() if ladder.incident)
        return ComponentStatus(self._state, f"{len(self._ladders)} ladders, {opened} open incidents, in memory")

    async def start(self) -> None:
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        if self._state is ComponentState.RUNNING:
            self._state = ComponentState.STOPPED
        tasks = [ladder.task for ladder in self._ladders.values() if ladder.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- incidents ---

    def _heard(self, result: HealthCheckResult) -> None:
        ladder = self._ladders.get(result.service)
        if ladder is None or self._state is not ComponentState.RUNNING:
            return
        ladder.changed.set()
        if ladder.incident is not None or ladder.name in self._held:
            return
        if result.status not in _NOT_WELL:
            ladder.skipped = None
            return
        decision = self._policy.decide(self._monitor.get_status(ladder.name))
        failed = result.status is HealthStatus.UNHEALTHY and decision.rule not in _NO_INCIDENT
        incident = None
        if decision.repair or failed:
            incident = self._open(ladder, decision.reason if decision.repair else result.detail, ordered=False)
        if not decision.repair:  # a failed service has an incident all the same, so that people know of it
            self._skip(ladder, decision.rule, decision.reason, incident)

    def _open(self, ladder: Ladder, reason: str, *, ordered: bool) -> Incident:
        now = self._clock.monotonic()
        if now - ladder.closed_at >= ladder.options.stable_s:
            ladder.rung = ladder.tries = ladder.attempts = 0
            ladder.runs.clear()
        elif ordered and ladder.rung >= len(ladder.rungs):
            ladder.rung = 0  # what a person orders begins a ladder that is spent anew
        number = f"{ladder.name}-{self._rng.getrandbits(24):06x}"
        incident = Incident(number, reason, self._clock.time(), now, ordered, run_now=ordered)
        ladder.incident = incident
        ladder.skipped = None
        self._events.publish(IncidentOpened(service=ladder.name, incident=number, reason=reason))
        ladder.task = asyncio.get_running_loop().create_task(self._tend(ladder, incident), name=f"repair {ladder.name}")
        return incident

    async def _tend(self, ladder: Ladder, incident: Incident) -> None:
        """See an incident through from its opening to its end."""
        healthy, how = False, "the repair was ended, because repairs are stopped"
        try:
            while not await self._climb(ladder, incident):
                if await self._give_up(ladder, incident):
                    break
                ladder.rung = 0
            healthy, how = True, f"{ladder.name} is healthy again"
            self._events.publish(
                IncidentClosed(
                    service=ladder.name,
                    incident=incident.id,
                    duration_s=self._clock.monotonic() - incident.began,
                    actions=len(incident.actions),
                )
            )
        except Exception as error:  # the next result opens an incident anew
            how = f"{type(error).__name__}: {error}"
            self._events.publish(ComponentFailed(component=f"the repair of {ladder.name}", detail=how))
        finally:
            ladder.closed_at = self._clock.monotonic()
            ladder.incident = None
            self._release(ladder)
            if healthy:
                self._answer(ladder, incident, True, how)
            elif incident.ended is not None and not incident.ended.done():
                incident.ended.set_exception(SelfrightError(f"{ladder.name} is not repaired: {how}"))
                incident.ended.exception()  # whoever ordered it may wait no more

    async def _climb(self, ladder: Ladder, incident: Incident) -> bool:
        """Run rungs until the service is verified healthy (True) or the ladder has ended (False)."""
        while ladder.rung < len(ladder.rungs):
            rung = ladder.rungs[ladder.rung]
            while ladder.tries < rung.attempts:
                if not await self._turn(ladder, incident):
                    if await self._verify(ladder, incident):
                        return True
                    continue
                ladder.tries += 1
                if await self._run(ladder, incident, rung) and await self._verify(ladder, incident):
                    return True
            ladder.rung, ladder.tries = ladder.rung + 1, 0
        return False

    async def _turn(self, ladder: Ladder, incident: Incident) -> bool:
        """Wait until the next rung may begin; False when the service became healthy meanwhile."""
        options = ladder.options
        incident.phase = RepairPhase.WAITING
        bound = min(options.backoff_max_s, options.backoff_base_s * 2.0 ** min(ladder.attempts - 1, 64))
        free_at = ladder.ran_at + (self._rng.uniform(0, bound) if ladder.attempts else 0)
        while True:
            ladder.changed.clear()
            health = self._monitor.get_status(ladder.name)
            if health.status is HealthStatus.HEALTHY and not incident.run_now:
                return False
            decision = self._policy.decide(health)
            now = self._clock.monotonic()
            wait_s = self._wait_s(ladder, incident, free_at, decision)
            if (self._paused or ladder.paused) and not incident.ordered:
                self._withdraw(ladder, "paused", "repair is paused", incident)
            elif not (decision.repair or incident.ordered):
                self._withdraw(ladder, decision.rule, decision.reason, incident)
            elif wait_s > 0:
                if wait_s > _QUIET_S and ladder.name in self._under_repair:
                    self._release(ladder)  # nothing is done for it so long, and others may need the place
                if wait_s > _QUIET_S and incident.phase is RepairPhase.WAITING and ladder.spent_until(now) > now:
                    most = f"{options.attempts_per_interval} runs in {options.attempts_interval_s:g} s"
                    self._tell_given_up(ladder, incident, f"{most} are the most that is allowed; it goes on by itself")
                incident.next_at = self._clock.time() + wait_s
                await self._changed_within(ladder, wait_s)
                continue
            elif refusal := self._admit(ladder):
                self._skip(ladder, *refusal, incident)
            else:
                incident.next_at = ladder.skipped = None
                return True
            incident.next_at = None
            await ladder.changed.wait()

    def _wait_s(self, ladder: Ladder, incident: Incident, free_at: float, decision: Decision) -> float:
        """How long back-off, cool-down and the attempts of an interval still hold up the next rung."""
        options, now = ladder.options, self._clock.monotonic()
        ready = [now, ladder.ran_at + options.cooldown_s, ladder.spent_until(now)]
        if not (incident.ordered or (decision.skip_backoff and ladder.attempts == 1)):
            ready.append(free_at)  # a policy may drop the first back-off alone, for without any it would be a loop
        return max(ready) - now

    def _admit(self, ladder: Ladder) -> tuple[str, str] | None:
        """Take a place under the caps, or say which one refuses it."""
        if len(self._at_work) >= self._caps.max_concurrent:
            return "max_concurrent", f"{len(self._at_work)} rungs run at once, more are not allowed"
        allowed = self._caps.allowed_of(len(self._monitor.services))
        if len(self._under_repair | {ladder.name}) > allowed:
            return "max_unhealthy", f"{allowed} services are under repair, more at once are not allowed"
        self._under_repair.add(ladder.name)
        self._at_work.add(ladder.name)
        return None

    async def _run(self, ladder: Ladder, incident: Incident, rung: Rung) -> bool:
        """Run one rung; True when it did its work."""
        incident.phase, incident.run_now = RepairPhase.RUNNING, False
        incident.actions.append(rung.action.describe)
        ladder.attempts += 1
        about: dict[str, Any] = {
            "service": ladder.name,
            "incident": incident.id,
            "rung": ladder.rung,
            "action": rung.action.describe,
            "attempt": len(incident.actions),
        }
        began = self._clock.monotonic()
        ladder.runs.append(began)
        self._events.publish(RepairStarted(**about, dry_run=self._dry_run))
        outcome, detail = RungOutcome.INTERRUPTED, "ended before it was done"
        held = set(rung.action.restarts) - {ladder.name} if isinstance(rung.action, RestartAction) else set()
        self._held |= held
        try:
            outcome, detail = await self._act(ladder, incident, rung)
        finally:
            ladder.ran_at = self._clock.monotonic()
            self._at_work.discard(ladder.name)
            self._held -= held
            self._wake_others(ladder)
            self._events.publish(
                RepairEnded(**about, outcome=outcome.value, detail=detail, duration_s=ladder.ran_at - began)
            )
        if outcome is RungOutcome.DONE and isinstance(rung.action, RestartAction):
            for name in rung.action.restarts:
                self._monitor.expect_restart(name)
        return outcome is RungOutcome.DONE

    async def _act(self, ladder: Ladder, incident: Incident, rung: Rung) -> tuple[RungOutcome, str]:
        if self._dry_run:
            return RungOutcome.DRY_RUN, "dry run: nothing was done"
        try:
            async with asyncio.timeout(rung.timeout_s) as timeout:
                context = RepairContext(ladder.name, incident.id, incident.reason, len(incident.actions))
                return RungOutcome.DONE, await rung.action.run(context)
        except TimeoutError as error:
            if timeout.expired():
                return RungOutcome.TIMED_OUT, f"did not end within {rung.timeout_s:g} s"
            return RungOutcome.FAILED, f"TimeoutError: {error}"
        except RepairError as error:
            return RungOutcome.FAILED, str(error)
        except Exception as error:  # an action that breaks its promise has failed, no more
            return RungOutcome.FAILED, f"{type(error).__name__}: {error}"

    async def _verify(self, ladder: Ladder, incident: Incident) -> bool:
        """Check until ``verify_passes`` passes stand in a row, and then ``healthy_delay_s`` without a failure."""
        incident.phase = RepairPhase.VERIFYING
        options = ladder.options
        deadline = self._clock.monotonic() + options.verify_timeout_s
        passes, well_since = 0, None
        while True:
            result = await self._monitor.check_health(ladder.name)
            now = self._clock.monotonic()
            if result.healthy and result.status is HealthStatus.HEALTHY:
                passes += 1
                if passes >= options.verify_passes:
                    well_since = now if well_since is None else well_since
                    if now - well_since >= options.healthy_delay_s:
                        return True
            elif well_since is not None:
                return False
            else:
                passes = 0
            if well_since is None and now >= deadline:
                return False
            await self._clock.sleep(
                max(_LEAST_WAIT_S, min(options.healthy_delay_s / 10, options.verify_timeout_s / 10))
            )

    async def _give_up(self, ladder: Ladder, incident: Incident) -> bool:
        """Say so and wait: True when the service became healthy by itself, False when it is to be tried again."""
        reason = "no rung of the ladder helped" if ladder.rungs else "it has no rung to try"
        if self._dry_run:
            reason = "this is a dry run"
        incident.again = incident.ordered = False
        self._tell_given_up(ladder, incident, reason)
        self._release(ladder)
        while True:
            ladder.changed.clear()
            if incident.again and ladder.rungs:
                return False
            if self._monitor.get_status(ladder.name).status is HealthStatus.HEALTHY:
                if await self._verify(ladder, incident):
                    return True
                incident.phase = RepairPhase.GAVE_UP
            await ladder.changed.wait()

    # --- small parts ---

    def _tell_given_up(self, ladder: Ladder, incident: Incident, reason: str) -> None:
        incident.phase = RepairPhase.GAVE_UP
        self._events.publish(
            RepairGaveUp(service=ladder.name, incident=incident.id, attempts=len(incident.actions), reason=reason)
        )
        self._answer(ladder, incident, False, f"gave up: {reason}")

    def _answer(self, ladder: Ladder, incident: Incident, repaired: bool, detail: str) -> None:
        if incident.ended is not None and not incident.ended.done():
            incident.ended.set_result(RepairReport(ladder.name, incident.id, repaired, tuple(incident.actions), detail))

    def _release(self, ladder: Ladder) -> None:
        self._under_repair.discard(ladder.name)
        self._at_work.discard(ladder.name)
        self._wake_others(ladder)

    def _withdraw(self, ladder: Ladder, rule: str, reason: str, incident: Incident) -> None:
        """Do nothing for now, and leave the place under the caps to others: the root of its failure may need it."""
        if ladder.name in self._under_repair:
            self._release(ladder)
        self._skip(ladder, rule, reason, incident)

    def _wake_others(self, ladder: Ladder) -> None:
        for other in self._ladders.values():
            if other.incident is not None and other is not ladder:
                other.changed.set()

    def _skip(self, ladder: Ladder, rule: str, reason: str, incident: Incident | None = None) -> None:
        """Say that nothing is done, and why, once for each change of the rule."""
        if ladder.skipped != rule:
            ladder.skipped = rule
            self._events.publish(
                RepairSkipped(service=ladder.name, rule=rule, reason=reason, incident=incident.id if incident else None)
            )

    async def _changed_within(self, ladder: Ladder, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await ladder.changed.wait()
        except TimeoutError:
            return

    def _ladder(self, name: str) -> Ladder:
        try:
            return self._ladders[name]
        except KeyError:
            raise UnknownServiceError(name, self._ladders) from None
