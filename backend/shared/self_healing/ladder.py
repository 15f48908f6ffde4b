"""The repair ladder of one service: which rung runs when, what it takes to have helped, and when to give up.

    IDLE -> WAITING -> RUNNING -> VERIFYING -> IDLE (closed), or WAITING for the next attempt or rung, or GAVE_UP

Waits grow exponentially with full jitter ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015), at
most so many runs happen in an interval (systemd's StartLimitBurst), and a rung has helped only after several
passes and a healthy delay (node-healthcheck-operator). Pure: time is handed in as monotonic seconds.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules.contracts.errors import StateError
from modules.contracts.health import RepairOptions, RepairPhase, RungOutcome

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
    """No rung is left. The incident stays open. Said once."""

    reason: str


Step = Run | Wait | Close | GiveUp


class Ladder:
    """``attempts`` holds how often each rung is tried before the next.

    After an incident the counters are kept for ``stable_s``: an incident that opens sooner goes on at the same
    rung with a longer back-off, so that a service that fails again and again is not restarted without end.
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
        self._reset_due = False
        self._gave_up_because = ""
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

    # --- what happens -----------------------------------------------------------------------------------

    def begin_incident(self, incident: str, reason: str, now: float) -> None:
        """The service needs repair: IDLE -> WAITING."""
        self._must_be(RepairPhase.IDLE)
        if self._closed_at is None or now - self._closed_at >= self._options.stable_s:
            self._forget_counters()
        self._rung, self._tries = self.rung, 0
        self.incident, self.reason, self.opened_at, self.actions = incident, reason, now, 0
        self._ordered = self._reset_due = False
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

    def finish_run(self, outcome: RungOutcome, now: float) -> None:
        """The running rung ended: RUNNING -> VERIFYING, or WAITING when it did not do its work.

        An interrupted run does not count as one of the rung's attempts: first it is verified whether it
        helped all the same, then it is repeated.
        """
        self._must_be(RepairPhase.RUNNING)
        self._ended_at = now
        self._forget_passes()
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
        """A person orders a repair: the next rung is due now; given up, the ladder begins anew."""
        if self.phase is RepairPhase.GAVE_UP:
            self.reset(now)
        self._ordered = self.phase is RepairPhase.WAITING and bool(self._attempts)

    def hurry(self, now: float) -> None:
        """Drop the back-off that is under way; cool-down and attempts an interval still hold."""
        self._backoff_until = min(self._backoff_until, now)

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
            return Wait(None, "gave_up", self._gave_up_because)
        if self._rung >= len(self._attempts):
            self.phase = RepairPhase.GAVE_UP
            self._gave_up_because = (
                "every rung was tried and none helped" if self._attempts else "it has no rung of repair"
            )
            return GiveUp(self._gave_up_because)
        return self._limit(now) or Run(self._rung, self._tries + 1)

    def next_at(self, now: float) -> float | None:
        """When the next rung is due, or verification ends, as things stand."""
        if self.phase is RepairPhase.VERIFYING:
            return self._verify_until
        if self.phase is not RepairPhase.WAITING or self._rung >= len(self._attempts):
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
        self._rung = self.rung
        if self._reset_due:
            self._forget_counters()
        return closed

    def _limit(self, now: float) -> Wait | None:
        """What still forbids the next run: the longest of back-off, cool-down and attempts an interval."""
        options = self._options
        waits = [Wait(self._backoff_until, "backoff", f"back-off before attempt {self._count + 1}")]
        if self._ended_at is not None and options.cooldown_s:
            waits.append(
                Wait(self._ended_at + options.cooldown_s, "cooldown", f"cool-down of {options.cooldown_s:g} s")
            )
        if len(self._runs) == options.attempts_per_interval:
            spent = f"{len(self._runs)} runs in {options.attempts_interval_s:g} s are the most that is allowed"
            waits.append(Wait(self._runs[0] + options.attempts_interval_s, "attempts", spent))
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
            "reset_due": self._reset_due,
            "gave_up_because": self._gave_up_because,
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
            because = str(document["gave_up_because"])
            if min(rung, tries, count, actions) < 0 or (phase in _OPEN) is not isinstance(incident, str):
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
        self._verify_until = now + self._options.verify_timeout_s
        self._forget_passes()

    # --- small parts ------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """The rung did not help: the same one again, the next one, or none."""
        if self._reset_due:
            self._forget_counters()
        elif self._rung < len(self._attempts) and self._tries >= self._attempts[self._rung]:
            self._rung, self._tries = self._rung + 1, 0
        self._enter_waiting(now)

    def _enter_waiting(self, now: float) -> None:
        self.phase = RepairPhase.WAITING
        self._backoff_until = now
        if self._count:
            # The exponent is bounded, because 2.0**1024 overflows.
            bound = min(self._options.backoff_max_s, self._options.backoff_base_s * 2.0 ** min(self._count - 1, 64))
            self._backoff_until = now + self._rng.uniform(0.0, bound)

    def _forget_counters(self) -> None:
        self._rung = self._tries = self._count = 0
        self._reset_due = False

    def _forget_passes(self) -> None:
        self._passes = 0
        self._passed_at = float("-inf")
        self._healthy_since = None

    def _must_be(self, phase: RepairPhase) -> None:
        if self.phase is not phase:
            raise RuntimeError(f"the ladder is {self.phase.value}, but this needs it to be {phase.value}")
