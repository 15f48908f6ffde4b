"""The repair ladder of one service: which rung runs when, what it takes to have helped, and when to give up.

    IDLE -> WAITING -> RUNNING -> VERIFYING -> IDLE (closed), or WAITING for the next attempt or rung, or GAVE_UP

Waits grow exponentially with full jitter ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015), at
most so many runs happen in an interval (systemd's StartLimitBurst), and a rung has helped only after several
passes and a healthy delay (node-healthcheck-operator). No loop of repairs is without an end: an incident that opens
soon after another uses up what the other left of the ladder. Pure: time is handed in as monotonic seconds.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules.contracts.errors import StateError
from modules.contracts.health import RepairOptions, RepairPhase, RungOutcome

QUIET_S = 5.0
"""Attempts an interval that hold a service up for longer are given up on loudly."""
_OWN_FAULT_FIRST_S = 1.0
_OWN_FAULT_LONGEST_S = 30.0
_OPEN = (RepairPhase.WAITING, RepairPhase.RUNNING, RepairPhase.VERIFYING, RepairPhase.GAVE_UP)


@dataclass(frozen=True, slots=True)
class Run:
    """A rung is due. ``attempt`` counts the runs of this rung from 1."""

    rung: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done until ``until`` (None: until something is observed), because of ``rule``.

    ``look``: the service is to be looked at meanwhile, and at the latest at ``until``.
    """

    until: float | None
    rule: str
    reason: str
    look: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """The service is verified healthy; the incident is over after ``duration_s`` and ``actions`` rung runs."""

    incident: str
    duration_s: float
    actions: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No rung is left, or none may run before ``resumes_at`` (monotonic). The incident stays open. Said once."""

    reason: str
    resumes_at: float | None = None


Step = Run | Wait | Close | GiveUp


class Ladder:
    """``attempts`` holds how often each rung is tried before the next.

    After an incident the counters are kept for ``stable_s``: an incident that opens sooner is the same one to the
    ladder. It goes on with the next attempt or rung and a longer back-off, and when none is left it is given up.
    Given up is left by recovery, an order, ``reset``, and where attempts an interval were the reason, by itself
    when the interval has room again. What a person ordered for a service uses nothing up once it is closed.
    """

    def __init__(self, attempts: Sequence[int], options: RepairOptions, rng: random.Random) -> None:
        self._attempts = tuple(attempts)
        self._options = options
        self._rng = rng
        self.phase = RepairPhase.IDLE
        self.incident: str | None = None
        self.reason = ""
        self.opened_at = 0.0
        self.actions = 0
        """Rung runs of this incident."""
        self._rung = 0
        self._tries = 0
        self._count = 0
        """Rung runs that the back-off counts."""
        self._runs: deque[float] = deque(maxlen=options.attempts_per_interval)
        self._ended_at: float | None = None
        self._closed_at: float | None = None
        self._backoff_until = 0.0
        self._verify_until = 0.0
        self._ordered = False
        self._by_hand = False
        self._reset_due = False
        self._gave_up_because = ""
        self._resumes_at: float | None = None
        self._own_faults = 0
        self._passes = 0
        self._passed_at = float("-inf")
        self._healthy_since: float | None = None

    @property
    def rung(self) -> int:
        """The rung in use or next, from 0; the last one when none is left."""
        return max(0, min(self._rung, len(self._attempts) - 1))

    @property
    def ordered(self) -> bool:
        """Whether the next run was ordered by a person."""
        return self._ordered

    @property
    def open(self) -> bool:
        return self.phase in _OPEN

    @property
    def newest_run(self) -> Run:
        """The run under way, or the last one of the rung in use."""
        return Run(self.rung, self._tries)

    @property
    def recovering(self) -> bool:
        """Whether the newest check of an open incident passed."""
        return self.open and self._passes > 0

    @property
    def rests(self) -> bool:
        """Whether only checks or orders can bring it on, not time."""
        ended = self.phase is RepairPhase.IDLE or (self.phase is RepairPhase.GAVE_UP and self._resumes_at is None)
        return ended and not self.recovering

    @property
    def own_faults(self) -> int:
        """How many runs in a row failed for want of something of the repairer itself."""
        return self._own_faults

    # --- what happens -----------------------------------------------------------------------------------

    def begin_incident(self, incident: str, reason: str, now: float) -> None:
        """The service needs repair: IDLE -> WAITING."""
        self._must_be(RepairPhase.IDLE)
        if self._closed_at is None or now - self._closed_at >= self._options.stable_s:
            self._forget_counters()
        self._leave_spent_rung()
        self.incident, self.reason, self.opened_at, self.actions = incident, reason, now, 0
        self._ordered = self._by_hand = self._reset_due = False
        self._forget_passes()
        self._enter_waiting(now)

    def begin_run(self, now: float) -> Run:
        """The due rung begins: WAITING -> RUNNING."""
        self._must_be(RepairPhase.WAITING)
        self.phase = RepairPhase.RUNNING
        self._ordered = False
        self._tries += 1
        self._count += 1
        self.actions += 1
        self._runs.append(now)
        return Run(self._rung, self._tries)

    def finish_run(self, outcome: RungOutcome, now: float, *, own_fault: bool = False) -> None:
        """The running rung ended: RUNNING -> VERIFYING, or WAITING when it did not do its work.

        An interrupted run does not count as one of the rung's attempts: first it is verified whether it
        helped all the same, then it is repeated. A run that failed for the repairer's ``own_fault`` counts for
        nothing at all and is repeated after a short wait that doubles.
        """
        self._must_be(RepairPhase.RUNNING)
        self._forget_passes()
        if own_fault:
            self._forget_run(now)
            return
        self._own_faults = 0
        self._ended_at = now
        if outcome is RungOutcome.INTERRUPTED:
            self._tries -= 1
            self._count -= 1
        if outcome in (RungOutcome.FAILED, RungOutcome.TIMED_OUT):
            self._go_on(now)
        else:
            self.phase = RepairPhase.VERIFYING
            self._verify_until = now + self._options.verify_timeout_s

    def observe(self, passed: bool, now: float) -> None:
        """A check passed or failed. What is seen while a rung runs says nothing about its success."""
        if not self.open or self.phase is RepairPhase.RUNNING:
            return
        if not passed:
            self._forget_passes()
            return
        self._passes += 1
        self._passed_at = now
        if self._passes >= self._options.verify_passes and self._healthy_since is None:
            self._healthy_since = now

    def hold(self, now: float) -> None:
        """The service still starts: the time for verification begins when it has started."""
        if self.phase is RepairPhase.VERIFYING:
            self._verify_until = max(self._verify_until, now + self._options.verify_timeout_s)

    def order(self, now: float) -> None:
        """A person orders a repair: the next rung is due now; a ladder that is spent begins anew."""
        if self.phase is RepairPhase.GAVE_UP or (self.phase is RepairPhase.WAITING and self._spent):
            self.reset(now)
        self._by_hand = True
        self._ordered = self.phase is RepairPhase.WAITING and bool(self._attempts)

    def hurry(self, now: float) -> None:
        """Drop the back-off under way if it is the ladder's first; cool-down and attempts an interval still hold."""
        if self.may_hurry:
            self._backoff_until = min(self._backoff_until, now)

    @property
    def may_hurry(self) -> bool:
        """Whether the back-off is the first one, which a policy may drop; without the others it would be a loop."""
        return self._count <= 1 and not self._own_faults

    def reset(self, now: float) -> None:
        """The cause may be gone: begin at the first rung without back-off, also after having given up.

        A rung that runs or is verified is let finish first. Runs still count for the attempts an interval.
        """
        if self.phase in (RepairPhase.RUNNING, RepairPhase.VERIFYING):
            self._reset_due = True
            return
        self._forget_counters()
        if self.phase is not RepairPhase.IDLE:
            self._enter_waiting(now)

    # --- what to do now ---------------------------------------------------------------------------------

    def step(self, now: float) -> Step:  # noqa: PLR0911  one return a reason, in the order in which they count
        """Return what is to be done, ending verification and incident when their time has come."""
        if self.phase is RepairPhase.IDLE or self.phase is RepairPhase.RUNNING:
            return Wait(None, self.phase.value, "nothing is due")
        if self._ordered:
            return Run(self._rung, self._tries + 1)
        if self._healthy_since is not None:
            return self._settle(self._healthy_since + self._options.healthy_delay_s, now)
        if self.phase is RepairPhase.VERIFYING:
            if now < self._verify_until or self._passes:
                until = self._verify_until if now < self._verify_until else None
                return Wait(until, "verifying", "waiting for it to become healthy", look=True)
            self._go_on(now)
        if self._passes:
            return Wait(None, "recovering", "it passes again", look=True)
        if self.phase is RepairPhase.GAVE_UP:
            if self._resumes_at is None or now < self._resumes_at:
                return Wait(self._resumes_at, "gave_up", self._gave_up_because)
            self.phase, self._resumes_at = RepairPhase.WAITING, None
        if self._spent:
            return self._give_up(self._why_spent())
        spent = self._attempts_limit()
        if spent is not None and spent.until is not None and spent.until - now > QUIET_S:
            return self._give_up(f"{spent.reason}; it goes on in {spent.until - now:.0f} s", spent.until)
        return self._limit(now) or Run(self._rung, self._tries + 1)

    def next_at(self, now: float) -> float | None:
        """When the next rung is due, or verification ends, as things stand."""
        if self.phase is RepairPhase.VERIFYING:
            return self._verify_until
        if self.phase is RepairPhase.GAVE_UP:
            return self._resumes_at
        if self.phase is not RepairPhase.WAITING or self._spent:
            return None
        limit = self._limit(now)
        return now if limit is None or self._ordered else limit.until

    def _settle(self, due: float, now: float) -> Step:
        if now < due:
            return Wait(due, "verifying", "healthy, and to stay so for a while", look=True)
        if self._passed_at < due:  # nobody has looked since: the end of the delay must be seen, not assumed
            return Wait(None, "verifying", "waiting for a last pass", look=True)
        closed = Close(self.incident or "", now - self.opened_at, self.actions)
        self.phase = RepairPhase.IDLE
        self.incident = None
        self._closed_at = now
        if self._reset_due or self._by_hand:
            self._forget_counters()
        return closed

    def _why_spent(self) -> str:
        if not self._attempts:
            return "it has no rung of repair"
        if not self.actions and self._closed_at is not None:
            return f"the incident that closed {self.opened_at - self._closed_at:.0f} s before had used up every rung"
        return "every rung was tried and none helped"

    def _give_up(self, reason: str, resumes_at: float | None = None) -> GiveUp:
        self.phase = RepairPhase.GAVE_UP
        self._gave_up_because, self._resumes_at = reason, resumes_at
        return GiveUp(reason, resumes_at)

    @property
    def _spent(self) -> bool:
        return self._rung >= len(self._attempts)

    def _attempts_limit(self) -> Wait | None:
        """Until when the attempts of the interval are used up, if they are."""
        options = self._options
        if len(self._runs) < options.attempts_per_interval:
            return None
        spent = f"{len(self._runs)} runs in {options.attempts_interval_s:g} s are the most that is allowed"
        return Wait(self._runs[0] + options.attempts_interval_s, "attempts", spent)

    def _limit(self, now: float) -> Wait | None:
        """What still forbids the next run: the longest of back-off, cool-down and attempts an interval."""
        options = self._options
        waits = [Wait(self._backoff_until, "backoff", f"back-off before attempt {self._count + 1}")]
        if self._ended_at is not None and options.cooldown_s:
            waits.append(
                Wait(self._ended_at + options.cooldown_s, "cooldown", f"cool-down of {options.cooldown_s:g} s")
            )
        if (spent := self._attempts_limit()) is not None:
            waits.append(spent)
        longest = max(waits, key=lambda wait: wait.until or 0.0)
        return longest if longest.until is not None and longest.until > now else None

    # --- across restarts --------------------------------------------------------------------------------

    def to_document(self, now: float, wall: float) -> dict[str, Any]:
        """Return the state as JSON types; times are unix seconds (``wall`` is ``now`` on that clock)."""
        ahead = wall - now
        return {
            "phase": self.phase.value,
            "incident": self.incident,
            "reason": self.reason,
            "opened_at": self.opened_at + ahead,
            "actions": self.actions,
            "rung": self._rung,
            "tries": self._tries,
            "count": self._count,
            "runs": [run + ahead for run in self._runs],
            "ended_at": None if self._ended_at is None else self._ended_at + ahead,
            "closed_at": None if self._closed_at is None else self._closed_at + ahead,
            "next_at": self._backoff_until + ahead,
            "ordered": self._ordered,
            "by_hand": self._by_hand,
            "reset_due": self._reset_due,
            "gave_up_because": self._gave_up_because,
            "resumes_at": None if self._resumes_at is None else self._resumes_at + ahead,
            "own_faults": self._own_faults,
        }

    def restore(self, document: Mapping[str, Any], now: float, wall: float) -> None:
        """Take back the state of an earlier run. Raises StateError, and then nothing has changed.

        The wall clock may have jumped meanwhile: what lies in the past never lies ahead, and no wait is
        longer than it could have been. What was being verified is verified from the beginning.
        """

        def past(key: str) -> float | None:
            return None if document[key] is None else now - max(0.0, wall - document[key])

        try:
            phase = RepairPhase(document["phase"])
            incident, reason = document["incident"], str(document["reason"])
            rung, tries = int(document["rung"]), int(document["tries"])
            count, actions = int(document["count"]), int(document["actions"])
            opened_at, ended_at, closed_at = past("opened_at") or now, past("ended_at"), past("closed_at")
            runs = [now - max(0.0, wall - run) for run in document["runs"]]
            wait = min(max(0.0, document["next_at"] - wall), self._options.backoff_max_s)
            ordered, reset_due = bool(document["ordered"]), bool(document["reset_due"])
            by_hand, own_faults = bool(document["by_hand"]), int(document["own_faults"])
            resumes_at = document["resumes_at"]
            if resumes_at is not None:
                resumes_at = now + min(max(0.0, resumes_at - wall), self._options.attempts_interval_s)
            because = str(document["gave_up_because"])
            if min(rung, tries, count, actions, own_faults) < 0 or (phase in _OPEN) is not isinstance(incident, str):
                raise ValueError("its numbers or its incident cannot be")
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"it is no state of a repair ladder: {type(error).__name__}: {error}") from None
        self.phase, self.incident, self.reason, self.actions = phase, incident, reason, actions
        self._rung, self._tries, self._count = min(rung, len(self._attempts)), tries, count
        self.opened_at, self._ended_at, self._closed_at = opened_at, ended_at, closed_at
        self._runs.clear()
        self._runs.extend(runs)
        self._backoff_until = now + wait
        self._ordered, self._reset_due, self._gave_up_because = ordered, reset_due, because
        self._by_hand, self._own_faults, self._resumes_at = by_hand, own_faults, resumes_at
        self._verify_until = now + self._options.verify_timeout_s
        self._forget_passes()

    # --- small parts ------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """The rung did not help: the same one again, the next one, or none."""
        if self._reset_due:
            self._forget_counters()
        else:
            self._leave_spent_rung()
        self._enter_waiting(now)

    def _leave_spent_rung(self) -> None:
        if not self._spent and self._tries >= self._attempts[self._rung]:
            self._rung, self._tries = self._rung + 1, 0

    def _forget_run(self, now: float) -> None:
        """It is as if the run had not been, but for a short wait."""
        self._tries -= 1
        self._count -= 1
        self.actions -= 1
        self._runs.pop()
        if self._reset_due:
            self._forget_counters()
        self._enter_waiting(now)
        wait_s = min(_OWN_FAULT_LONGEST_S, _OWN_FAULT_FIRST_S * 2.0 ** min(self._own_faults, 64))
        self._backoff_until = now + wait_s
        self._own_faults += 1

    def _enter_waiting(self, now: float) -> None:
        self.phase = RepairPhase.WAITING
        self._resumes_at = None
        self._backoff_until = now
        if self._count:
            # The exponent is bounded, because 2.0**1024 overflows.
            bound = min(self._options.backoff_max_s, self._options.backoff_base_s * 2.0 ** min(self._count - 1, 64))
            self._backoff_until = now + self._rng.uniform(0.0, bound)

    def _forget_counters(self) -> None:
        self._rung = self._tries = self._count = self._own_faults = 0
        self._reset_due = False

    def _forget_passes(self) -> None:
        self._passes = 0
        self._passed_at = float("-inf")
        self._healthy_since = None

    def _must_be(self, phase: RepairPhase) -> None:
        if self.phase is not phase:
            raise RuntimeError(f"the ladder is {self.phase.value}, but this needs it to be {phase.value}")
