"""The one in-process bus, and the frozen records that travel on it.

Metrics, audit, alerts, log, terminal and the admin API listen; nobody polls. Publishing is synchronous:
a listener does little and never blocks. A listener that raises is reported and the others still hear.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from modules.contracts.clock import Clock, SystemClock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A record of something that happened. ``at`` (unix seconds) and ``id`` are set by the bus."""

    kind: ClassVar[str] = "event"
    service: str | None = None
    at: float = 0.0
    id: int = 0

    @property
    def message(self) -> str:
        """One sentence for a person."""
        return self.kind

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types, with its kind and message."""
        return {"kind": self.kind, **asdict(self), "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Event):
    kind: ClassVar[str] = "health_changed"
    service: str
    previous: str
    current: str
    detail: str = ""
    affected_by: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        cause = f", affected by {', '.join(self.affected_by)}" if self.affected_by else ""
        why = f": {self.detail}" if self.detail else ""
        return f"{self.service} is {self.current} (was {self.previous}){cause}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlappingChanged(Event):
    kind: ClassVar[str] = "flapping_changed"
    service: str
    flapping: bool
    share: float

    @property
    def message(self) -> str:
        return f"{self.service} {'flaps' if self.flapping else 'flaps no more'} ({self.share:.0%} weighted changes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeErred(Event):
    """The prober cannot probe: the service's health is unknown, it is not repaired."""

    kind: ClassVar[str] = "probe_erred"
    service: str
    detail: str

    @property
    def message(self) -> str:
        return f"{self.service} cannot be probed: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted(Event):
    kind: ClassVar[str] = "process_started"
    service: str
    pid: int

    @property
    def message(self) -> str:
        return f"{self.service} started as process {self.pid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExited(Event):
    """A supervised process is gone. ``output`` is the last line that it wrote, at most 200 characters."""

    kind: ClassVar[str] = "process_exited"
    service: str
    pid: int
    exit_code: int
    expected: bool
    output: str = ""

    @property
    def message(self) -> str:
        how = f"by signal {-self.exit_code}" if self.exit_code < 0 else f"with code {self.exit_code}"
        if self.expected:
            return f"{self.service} (process {self.pid}) ended {how}"
        said = f"; it said: {self.output}" if self.output else ""
        return f"{self.service} (process {self.pid}) ended {how}, unexpectedly{said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Event):
    kind: ClassVar[str] = "incident_opened"
    service: str
    incident: str
    reason: str

    @property
    def message(self) -> str:
        return f"incident {self.incident} opened for {self.service}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentClosed(Event):
    kind: ClassVar[str] = "incident_closed"
    service: str
    incident: str
    duration_s: float
    actions: int

    @property
    def message(self) -> str:
        repairs = {0: "without repair", 1: "after one repair"}.get(self.actions, f"after {self.actions} repairs")
        return f"incident {self.incident} of {self.service} closed after {self.duration_s:.1f} s, {repairs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairStarted(Event):
    kind: ClassVar[str] = "repair_started"
    service: str
    incident: str
    rung: int
    action: str
    attempt: int
    dry_run: bool = False

    @property
    def message(self) -> str:
        would = "would repair" if self.dry_run else "repairing"
        return f"{would} {self.service}: rung {self.rung + 1}, {self.action}, attempt {self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairEnded(Event):
    kind: ClassVar[str] = "repair_ended"
    service: str
    incident: str
    rung: int
    action: str
    attempt: int
    outcome: str
    detail: str
    duration_s: float

    @property
    def message(self) -> str:
        what = f"rung {self.rung + 1} of {self.service}, {self.action}"
        return f"{what}: {self.outcome} in {self.duration_s:.2f} s; {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSkipped(Event):
    """A decision not to repair: "did nothing, because". ``rule`` is a stable word for the reason."""

    kind: ClassVar[str] = "repair_skipped"
    service: str
    rule: str
    reason: str
    incident: str | None = None

    @property
    def message(self) -> str:
        return f"{self.service} is not repaired ({self.rule}): {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairGaveUp(Event):
    kind: ClassVar[str] = "repair_gave_up"
    service: str
    incident: str
    attempts: int
    reason: str

    @property
    def message(self) -> str:
        return f"gave up on {self.service} after {self.attempts} attempts: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairControl(Event):
    """A person or a rule paused, resumed or ordered something."""

    kind: ClassVar[str] = "repair_control"
    action: str
    by: str = "api"

    @property
    def message(self) -> str:
        return f"{self.action} {self.service or 'everything'} (by {self.by})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChanged(Event):
    """A service's SLO status changed."""

    kind: ClassVar[str] = "budget_changed"
    service: str
    previous: str
    current: str
    error_budget_remaining: float | None

    @property
    def message(self) -> str:
        left = (
            "" if self.error_budget_remaining is None else f", {self.error_budget_remaining:.1f} % of the budget left"
        )
        return f"SLO of {self.service} is {self.current} (was {self.previous}){left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStepChanged(Event):
    """A step of the error budget policy came into force for an objective, or ended.

    ``error_budget_remaining`` is in percent; None when the objective itself is gone.
    """

    kind: ClassVar[str] = "budget_step_changed"
    objective: str
    step: str
    in_force: bool
    error_budget_remaining: float | None

    @property
    def message(self) -> str:
        left = (
            "the objective is gone"
            if self.error_budget_remaining is None
            else f"{self.error_budget_remaining:.1f} % of the budget left"
        )
        return f"policy step {self.step} {'is in force' if self.in_force else 'ended'} for {self.objective}: {left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFired(Event):
    kind: ClassVar[str] = "alert_fired"
    alert: str
    severity: str
    summary: str

    @property
    def message(self) -> str:
        return f"alert {self.alert} ({self.severity}): {self.summary}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertResolved(Event):
    kind: ClassVar[str] = "alert_resolved"
    alert: str
    summary: str

    @property
    def message(self) -> str:
        return f"alert {self.alert} resolved: {self.summary}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFailed(Event):
    kind: ClassVar[str] = "alert_failed"
    alert: str
    target: str
    detail: str

    @property
    def message(self) -> str:
        return f"alert {self.alert} could not be sent to {self.target}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceChanged(Event):
    """A person silenced alerts, ended that, or it ended by itself. ``action``: created, ended or expired."""

    kind: ClassVar[str] = "silence_changed"
    silence: str
    action: str
    matchers: Mapping[str, str]
    ends_at: float
    comment: str

    @property
    def message(self) -> str:
        which = ", ".join(f"{name}={pattern}" for name, pattern in sorted(self.matchers.items()))
        return f"silence {self.silence} of alerts with {which} {self.action}: {self.comment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SLOStatusChanged(Event):
    """The status of an objective changed. ``error_budget_remaining`` is in percent; None without data."""

    kind: ClassVar[str] = "slo_status_changed"
    objective: str
    previous: str
    current: str
    error_budget_remaining: float | None

    @property
    def message(self) -> str:
        left = (
            "" if self.error_budget_remaining is None else f", {self.error_budget_remaining:.1f} % of the budget left"
        )
        return f"objective {self.objective} is {self.current} (was {self.previous}){left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SLOAlertChanged(Event):
    """The state of one row of an objective's burn-rate alerts changed. ``burn_rate`` is that of its long window."""

    kind: ClassVar[str] = "slo_alert_changed"
    objective: str
    severity: str
    """page or ticket."""
    state: str
    """pending, firing or resolved."""
    window: str
    factor: float
    burn_rate: float
    summary: str

    @property
    def message(self) -> str:
        return f"{self.severity} alert of {self.objective} is {self.state}: {self.summary}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationApplied(Event):
    kind: ClassVar[str] = "configuration_applied"
    digest: str
    summary: str

    @property
    def message(self) -> str:
        return f"configuration {self.digest} applied: {self.summary}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFailed(Event):
    kind: ClassVar[str] = "component_failed"
    component: str
    detail: str

    @property
    def message(self) -> str:
        return f"{self.component} failed: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeStateChanged(Event):
    kind: ClassVar[str] = "runtime_state_changed"
    current: str
    detail: str = ""

    @property
    def message(self) -> str:
        return f"runtime is {self.current}{': ' if self.detail else ''}{self.detail}"


Listener = Callable[[Event], None]


@dataclass(slots=True)
class _Subscription:
    queue: asyncio.Queue[Event | None]
    missed: int = field(default=0)


class EventBus:
    """Numbers events, keeps the newest ``history`` and hands each to every listener, in order."""

    def __init__(self, clock: Clock | None = None, *, history: int = 1000, first_id: int = 1) -> None:
        self._clock = clock or SystemClock()
        self._next_id = first_id
        self._recent: deque[Event] = deque(maxlen=history)
        self._pending: deque[Event] = deque()
        self._listeners: list[Listener] = []
        self._subscriptions: list[_Subscription] = []
        self._closed = False

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event from now on; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def publish(self, event: Event) -> Event:
        """Stamp the event with the time and its number, hand it out, and return it as stamped.

        What a listener publishes meanwhile follows once everybody has heard this one, so that all hear all
        events in one order.
        """
        object.__setattr__(event, "at", event.at or self._clock.time())
        object.__setattr__(event, "id", self._next_id)
        self._next_id += 1
        self._recent.append(event)
        self._pending.append(event)
        if len(self._pending) == 1:
            while self._pending:
                self._hand_out(self._pending[0])
                self._pending.popleft()
        return event

    def _hand_out(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # a listener's fault must not reach the publisher or the other listeners
                _log.exception("a listener failed on %s", event.kind)
        for subscription in self._subscriptions:
            if subscription.queue.full():
                subscription.queue.get_nowait()  # a slow reader loses the oldest, never holds up the rest
                subscription.missed += 1
            subscription.queue.put_nowait(event)

    def recent(self, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Return kept events with an id above ``after``, oldest first, at most the newest ``limit``."""
        events = [event for event in self._recent if event.id > after]
        return events if limit is None else events[-limit:] if limit else []

    @property
    def last_id(self) -> int:
        """The id of the newest event, or one less than the first to come."""
        return self._next_id - 1

    @property
    def first_kept(self) -> int:
        """The id of the oldest kept event, or the next id when none is kept."""
        return self._recent[0].id if self._recent else self._next_id

    async def stream(self, *, after: int | None = None, buffer: int = 1000) -> AsyncIterator[Event]:
        """Yield events as they come, first the kept ones above ``after`` (None: only new ones), until ``close``."""
        subscription = _Subscription(asyncio.Queue(maxsize=buffer))
        backlog = [] if after is None else self.recent(after=after)
        if self._closed:
            return
        self._subscriptions.append(subscription)
        try:
            for event in backlog:
                yield event
            while (event_or_end := await subscription.queue.get()) is not None:
                yield event_or_end
        finally:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End every stream; later events still reach the listeners."""
        self._closed = True
        for subscription in self._subscriptions:
            if subscription.queue.full():
                subscription.queue.get_nowait()
            subscription.queue.put_nowait(None)
