"""Drives open incidents along their ladders: one task each, from the first decision to the verified end.

What is decided is in the pure parts beside this file: ``ladder`` (what is next), ``caps`` (whether it may) and the
policy (whether it should). A rung begins only after its record is written and told, and while it runs it holds
every service that it restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from backend.shared.self_healing.actions.timed import Ended, TimedRung
from backend.shared.self_healing.caps import Caps
from backend.shared.self_healing.ladder import QUIET_S, Close, GiveUp, Run, Wait
from backend.shared.self_healing.repair_case import Case
from backend.shared.self_healing.repair_holds import Holds
from backend.shared.self_healing.repair_records import RepairRecords
from backend.shared.self_healing.spans import end_incident, end_rung, incident_span, rung_span
from modules.contracts.clock import Clock
from modules.contracts.errors import SelfrightError, UnknownServiceError
from modules.contracts.events import (
    EventBus,
    IncidentClosed,
    IncidentOpened,
    RepairEnded,
    RepairGaveUp,
    RepairSkipped,
    RepairStarted,
)
from modules.contracts.health import (
    Decision,
    HealthMonitor,
    HealthStatus,
    ProbeOutcome,
    RepairContext,
    RepairPolicy,
    RungOutcome,
    ServiceHealth,
)

_ASK_AGAIN_S = 5.0
"""A rung that was refused is asked for again after so long, or sooner when a check or a free slot gives reason."""
_NOTHING_WRONG = ("healthy", "starting")
"""Rules that say that there is nothing to repair, which is no decision to be told."""
_NO_INCIDENT = (*_NOTHING_WRONG, "unknown", "affected", "maintenance")
"""Rules for which a failed service has no incident: it is another's, or people are at work on it."""
_IDLE_WAITS = ("backoff", "cooldown", "attempts")


class RepairDriver:
    """The tasks of all open incidents, which share ``caps`` and ``policy``.

    Only while ``watching`` an incident goes on by itself; else only one that somebody waits for does.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        cases: Mapping[str, Case],
        *,
        clock: Clock,
        events: EventBus,
        records: RepairRecords,
        caps: Caps,
        policy: RepairPolicy,
        report: Callable[[str], None],
        dry_run: bool,
    ) -> None:
        self._monitor = monitor
        self._cases = cases
        self._clock = clock
        self._events = events
        self._records = records
        self._caps = caps
        self._report = report
        self._dry_run = dry_run
        self.policy = policy
        self.watching = False
        self.stopped = False
        self._queue: dict[str, Case] = {}  # those that wait for a slot, in order
        self.holds = Holds()
        self._held_up: dict[str, Case] = {}  # those whose rung waits for another's that holds what it would restart
        self._opened = 0

    def consider(self, case: Case) -> None:
        """A check of a service without an incident failed: open one, or tell why not.

        A failed service that must not be repaired for now has an incident too, so that people know of it.
        """
        if self._clock.monotonic() < case.settles_until:
            return
        health = self._monitor.get_status(case.name)
        decision = self._decide(case, health)
        failed = health.status is HealthStatus.UNHEALTHY and decision.rule not in _NO_INCIDENT
        if decision.repair or failed:
            found = health.last.detail if health.last else decision.reason
            until_healthy = health.flapping or health.status is HealthStatus.DEGRADED
            self.open(case, decision.reason if decision.repair else found, until_healthy=until_healthy)
            self.wake(case)
        if not (decision.repair or _undecided(health, decision)):
            self._skip(case, decision.rule, decision.reason)

    def _decide(self, case: Case, health: ServiceHealth) -> Decision:
        decision = self.policy.decide(health)
        if decision.repair and case.paused:
            return Decision(False, "paused", "its repair is paused; resume it when it may go on")
        return decision

    # --- one incident -----------------------------------------------------------------------------------

    def open(self, case: Case, reason: str, *, until_healthy: bool = False) -> None:
        """Open an incident; ``wake`` then drives it."""
        self._opened += 1
        seed = f"{case.name} {self._clock.time()!r} {self._opened}"
        incident = f"{case.name}-{hashlib.blake2s(seed.encode(), digest_size=4).hexdigest()}"
        case.done = []
        case.until_healthy = until_healthy
        case.forget_told()
        case.ladder.begin_incident(incident, reason, self._clock.monotonic())
        self._records.tell(case, IncidentOpened(service=case.name, incident=incident, reason=reason))

    def wake(self, case: Case) -> None:
        """There is news of an open incident: let its task look at it, which begins if need be."""
        case.kick.set()
        may_begin = not self.stopped and (self.watching or bool(case.waiters))
        if case.task is None and may_begin and case.needs_driver:
            case.task = asyncio.create_task(self._drive(case), name=f"repair of {case.name}")

    async def _drive(self, case: Case) -> None:
        with incident_span(case) as span:
            await self._go_on(case)
            end_incident(span, case.ladder.phase)

    async def _go_on(self, case: Case) -> None:
        case.look_soon(self._clock.monotonic())
        told = ""
        try:
            while case.needs_driver:
                try:
                    await self._step(case)
                except Exception as error:  # an incident must go on whatever happens
                    fault = f"the repair of {case.name}: {type(error).__name__}: {error}"
                    if fault != told:
                        self._report(fault)
                    told = fault
                    await self._clock.sleep(_ASK_AGAIN_S)
        finally:
            case.task = None  # with nothing between it and the last look at the case, so no news is missed

    async def _step(self, case: Case) -> None:
        now = self._clock.monotonic()
        case.kick.clear()
        before = case.ladder.phase
        step = case.ladder.step(now)
        match step:
            case Close():
                self._close(case, step)
            case GiveUp():
                self._give_up(case, step)
            case Run():
                await self._try(case, step)
            case Wait():
                if case.ladder.phase is not before:
                    self._records.save(case)
                self._leave_queue(case)
                if step.rule in _IDLE_WAITS and step.until is not None and step.until - now > QUIET_S:
                    self.release(case)  # nothing is done for it so long, and others may need the slot
                if step.rule == "attempts":
                    self._skip(case, step.rule, step.reason)
                elif step.rule == "backoff" and case.ladder.may_hurry and self._may_hurry(case):
                    case.ladder.hurry(now)
                    return
                await self._wait(case, step.until, look=step.look)

    def _may_hurry(self, case: Case) -> bool:
        decision = self._decide(case, self._monitor.get_status(case.name))
        return decision.repair and decision.skip_backoff

    async def _wait(self, case: Case, until: float | None, *, look: bool = False) -> None:
        """Wait for news of the case, until ``until`` at the latest; with ``look`` go and get some."""
        if look:
            until = case.look_at if until is None else min(until, case.look_at)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - self._clock.monotonic())):
                await case.kick.wait()
        now = self._clock.monotonic()
        if look and until is not None and now >= until:
            try:
                await self._monitor.check_health(case.name)  # whose listeners tell the case what was found
            except UnknownServiceError:
                raise
            except SelfrightError:  # the monitor stops: nothing was found
                pass
            case.looked(self._clock.monotonic())

    async def _try(self, case: Case, run: Run) -> None:
        """Run the rung that is due, if pause, policy, the rungs of others and caps let it."""
        now = self._clock.monotonic()
        if not case.ladder.ordered:
            if now < case.settles_until:
                await self._wait(case, case.settles_until, look=True)
                return
            health = self._monitor.get_status(case.name)
            decision = self._decide(case, health)
            if not decision.repair:
                uncertain = _undecided(health, decision)
                if not uncertain:
                    self._skip(case, decision.rule, decision.reason)
                    self.release(case)
                await self._wait(case, now + _ASK_AGAIN_S, look=uncertain)
                return
        if (holder := self.holds.holder_of(_touched(case, case.rungs[run.rung]))) is not None:
            self._skip(case, "held", f"the repair of {holder} restarts services that this one would restart", also=True)
            self.release(case)
            self._held_up[case.name] = case
            await self._wait(case, now + _ASK_AGAIN_S)
            return
        refusal = self._caps.admit(case.name, now)
        if refusal is not None:
            self._skip(case, refusal.rule, refusal.reason, also=True)
            self._queue[case.name] = case
            await self._wait(case, now + _ASK_AGAIN_S if refusal.retry_at is None else refusal.retry_at)
            return
        await self._run(case)

    async def _run(self, case: Case) -> None:
        ladder, began = case.ladder, self._clock.monotonic()
        self._queue.pop(case.name, None)
        self._caps.begin(case.name, began)
        self._wake_queue()  # there may be another free slot
        run = ladder.begin_run(began)
        rung = case.rungs[run.rung]
        case.forget_told()
        self._records.tell(
            case,
            RepairStarted(
                service=case.name,
                incident=ladder.incident or "",
                rung=run.rung,
                action=rung.describe,
                attempt=run.attempt,
                dry_run=self._dry_run,
            ),
        )
        ended = Ended(RungOutcome.INTERRUPTED, "repairs were stopped while it ran")
        try:
            self._take(case, rung)
            with rung_span(case, run) as span:
                if self._dry_run:
                    ended = Ended(RungOutcome.DRY_RUN, "dry run: nothing was done")
                else:
                    context = RepairContext(case.name, ladder.incident or "", ladder.reason, run.attempt)
                    ended = await rung.run(context)
                end_rung(span, ended.outcome, ended.detail)
        finally:
            now = self._clock.monotonic()
            ladder.finish_run(ended.outcome, now, own_fault=ended.own_fault)
            self._caps.end(case.name)
            if not ended.own_fault:
                case.done.append(f"{rung.describe}: {ended.outcome.value}")
            self.tell_end(case, run, ended, now - began)
            self._let_go(case, rung, ended.outcome)
        if ended.own_fault and ladder.own_faults == 1:
            self._report(f"{rung.describe} cannot be done and is tried again until it can: {ended.detail}")
        case.look_soon(now)
        self._wake_queue()

    def _take(self, case: Case, rung: TimedRung) -> None:
        """Take what the rung restarts out of everybody's hands; its checks count as those of a start."""
        self.holds.hold(case.name, _touched(case, rung))
        if not self._dry_run:
            self._expect_restart(name for name in rung.restarts if name != case.name)

    def _let_go(self, case: Case, rung: TimedRung, outcome: RungOutcome) -> None:
        """Give back what the rung held, with as much time to become healthy as a repair of its own would leave."""
        self.holds.let_go(case.name)
        if not self._dry_run:
            now = self._clock.monotonic()
            done = outcome is RungOutcome.DONE
            self._expect_restart(name for name in rung.restarts if done or name != case.name)
            for name in rung.restarts:
                if (other := self._cases.get(name)) is not None and other is not case:
                    other.settles_until = now + other.options.verify_timeout_s
                    other.ladder.hold(now)
        held_up, self._held_up = self._held_up, {}
        for other in held_up.values():
            other.kick.set()

    def _expect_restart(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._monitor.services:
                self._monitor.expect_restart(name)

    def _close(self, case: Case, closed: Close) -> None:
        self._records.tell(
            case,
            IncidentClosed(
                service=case.name, incident=closed.incident, duration_s=closed.duration_s, actions=closed.actions
            ),
        )
        self.release(case)
        case.forget_told()
        case.answer(repaired=True, incident=closed.incident, detail=f"{case.name} is verified healthy")

    def _give_up(self, case: Case, given_up: GiveUp) -> None:
        incident = case.ladder.incident or ""
        if not case.rungs:
            self._skip(case, "no_ladder", given_up.reason)
        self._records.tell(
            case,
            RepairGaveUp(service=case.name, incident=incident, attempts=case.ladder.actions, reason=given_up.reason),
        )
        self.release(case)
        case.answer(repaired=False, incident=incident, detail=given_up.reason)

    # --- slots, and what is told -----------------------------------------------------------------------

    def release(self, case: Case) -> None:
        """The service is not under repair for now: give its slot to those that wait for one."""
        self._leave_queue(case)
        if self._caps.holds(case.name):
            self._caps.release(case.name)
            self._wake_queue()

    def _leave_queue(self, case: Case) -> None:
        if self._queue.pop(case.name, None) is not None:
            self._wake_queue()  # it may have been the one that was woken for a free slot

    def _wake_queue(self) -> None:
        """Wake the first that may begin; when it does, it wakes the next."""
        now = self._clock.monotonic()
        for name, case in self._queue.items():
            refusal = self._caps.admit(name, now)
            if refusal is None:
                case.kick.set()
            if refusal is None or refusal.rule != "max_unhealthy":  # the other caps refuse all alike
                return

    def _skip(self, case: Case, rule: str, reason: str, *, also: bool = False) -> None:
        """Tell once why nothing is done; ``also``: besides what was told before, for caps take turns."""
        if case.is_news(rule, also=also):
            self._events.publish(
                RepairSkipped(service=case.name, rule=rule, reason=reason, incident=case.ladder.incident)
            )

    def tell_end(self, case: Case, run: Run, ended: Ended, duration_s: float) -> None:
        """Write and tell that a run ended."""
        self._records.tell(
            case,
            RepairEnded(
                service=case.name,
                incident=case.ladder.incident or "",
                rung=run.rung,
                action=case.rungs[run.rung].describe if case.rungs else "a rung that is no more",
                attempt=run.attempt,
                outcome=ended.outcome.value,
                detail=ended.detail,
                duration_s=duration_s,
            ),
        )


def _touched(case: Case, rung: TimedRung) -> frozenset[str]:
    return frozenset((case.name, *rung.restarts))


def _undecided(health: ServiceHealth, decision: Decision) -> bool:
    """Whether further checks will tell, so that there is no decision yet that people should hear of."""
    if decision.rule in _NOTHING_WRONG or health.last is None:
        return True
    return health.status is HealthStatus.UNKNOWN and health.last.outcome is not ProbeOutcome.ERROR
