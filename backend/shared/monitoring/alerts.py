"""Tells people: listens to events, decides with the alert book, delivers in the background.

Every target has its own lane, a bounded queue and a worker, so that one that hangs delays no other and each
hears of an alert in order. A failed delivery is tried again after an exponential back-off with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). What fires is kept in the
store before it is sent: after a restart nothing is paged twice, and nothing that fired stays unresolved.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from backend.shared.monitoring.alert_book import FIRING, RESOLVED, Alert, AlertBook, Notice
from backend.shared.monitoring.alert_targets import DeliveryError, Target, build_targets
from backend.shared.self_healing.settings import AlertSettings
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import StateError
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    AlertResolved,
    ComponentFailed,
    Event,
    EventBus,
    IncidentClosed,
    IncidentOpened,
    RepairGaveUp,
)
from modules.contracts.state import StateStore

NAMESPACE = "alerts"
QUIET_S = 3600
"""A component's alert ends by itself when the component has not failed again for so long."""
BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 60.0
WAITING_MAX = 1000
"""Messages that wait for one target; more are not sent to it, and that is said."""
RETRY_S = 60.0
"""After its last try a message is not given up: whatever a target still has to be told is tried again so often."""
FLUSH_S = 2.0
"""How long ``stop`` waits for messages that are on their way."""

_SELF = "alerts"


@dataclass(slots=True)
class _Lane:
    target: Target
    queue: asyncio.Queue[Notice] = field(default_factory=lambda: asyncio.Queue(WAITING_MAX))
    fault: str | None = None
    retry_at: float | None = None
    failed: set[tuple[str, str]] = field(default_factory=set)


class AlertManager:
    """Fires, repeats and resolves alerts. A component; ``store`` None forgets everything at a restart.

    With ``when=incident`` an alert fires as an incident opens, with ``when=repair_failed`` once repair has
    given up on it; it resolves as the incident closes. A failed part of the runtime itself is a ticket.
    ``targets`` are built from the settings unless given. Raises ConfigurationError for a target that cannot
    be used.
    """

    def __init__(
        self,
        settings: AlertSettings,
        *,
        clock: Clock,
        events: EventBus,
        store: StateStore | None = None,
        rng: random.Random | None = None,
        targets: Sequence[Target] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._events = events
        self._store = store
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, guards no secret
        if targets is None:
            targets = build_targets(settings.targets, timeout_s=settings.timeout_s)
        self._lanes = {target.name: _Lane(target) for target in targets}
        self._book = AlertBook(list(self._lanes), reminder_s=settings.reminder_s, clock=clock)
        self._inbox: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisten: Callable[[], None] | None = None
        self._state = ComponentState.CREATED

    @property
    def status(self) -> ComponentStatus:
        faults = [f"{name}: {lane.fault}" for name, lane in self._lanes.items() if lane.fault]
        if self._state is ComponentState.RUNNING and faults:
            return ComponentStatus(ComponentState.DEGRADED, "; ".join(faults))
        told = f"told to {', '.join(self._lanes)}" if self._lanes else "no targets: nobody is told"
        return ComponentStatus(self._state, f"{len(self.firing)} firing, {told}")

    @property
    def firing(self) -> tuple[Alert, ...]:
        """What fires now, oldest first."""
        return self._book.firing

    async def start(self) -> None:
        if self._tasks:
            return
        self._restore()
        self._unlisten = self._events.listen(self._listen)
        self._tasks = [
            asyncio.create_task(self._work(lane), name=f"alerts {lane.target.name}") for lane in self._lanes.values()
        ]
        self._tasks.append(asyncio.create_task(self._watch(), name="alerts"))
        self._state = ComponentState.RUNNING
        for name, alert in list(self._book.untold()):
            self._enqueue(name, Notice(alert))

    async def stop(self) -> None:
        if not self._tasks:
            self._state = ComponentState.STOPPED
            return
        if self._unlisten is not None:
            self._unlisten()
        self._read_inbox()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await asyncio.gather(*(lane.queue.join() for lane in self._lanes.values()))
        finally:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in self._lanes.values():
                lane.queue = asyncio.Queue(WAITING_MAX)  # what was not delivered is in the book, for the next start
                await lane.target.close()
            self._state = ComponentState.STOPPED

    # --- events in ---

    def _listen(self, event: Event) -> None:
        # Read by a task of our own, so that what is published here does not overtake the event itself.
        if isinstance(event, IncidentOpened | IncidentClosed | RepairGaveUp | ComponentFailed):
            self._inbox.append(event)
            self._wake.set()

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            self._read_inbox()
            try:
                self._look_at_deadlines()
            except Exception as error:  # people must still be told of what comes next
                self._report(error)
                await self._clock.sleep(1)
            due = min(
                (
                    at
                    for at in (self._book.next_due(), *(lane.retry_at for lane in self._lanes.values()))
                    if at is not None
                ),
                default=None,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock.monotonic())):
                    await self._wake.wait()

    def _read_inbox(self) -> None:
        while self._inbox:
            try:
                self._handle(self._inbox.popleft())
            except Exception as error:  # one event that cannot be handled must not silence the others
                self._report(error)

    def _handle(self, event: Event) -> None:
        match event:
            case IncidentOpened(service=service, incident=incident):
                # A service has one incident at a time: an older one ended unseen, while the program was down.
                for alert in self.firing:
                    if alert.service == service and alert.incident not in (None, incident):
                        self._resolve(alert.key, f"incident {alert.incident} of {service} is over: {incident} began")
                if self._settings.when == "incident":
                    self._fire(_key(service, incident), event, incident)
            case RepairGaveUp(service=service, incident=incident):
                self._fire(_key(service, incident), event, incident)
            case IncidentClosed(service=service, incident=incident):
                self._resolve(_key(service, incident), event.message)
            case ComponentFailed(component=component) if component != _SELF:
                self._fire(f"component/{component}", event, severity="ticket", quiet_s=QUIET_S)

    def _look_at_deadlines(self) -> None:
        for key in self._book.gone_quiet():
            self._resolve(key, f"{key.removeprefix('component/')} has not failed again for {QUIET_S // 60} minutes")
        for alert in self._book.take_reminders():
            self._save(alert.key)
            self._send(Notice(alert, reminder=True))
        now = self._clock.monotonic()
        for lane in self._lanes.values():
            if lane.retry_at is not None and lane.retry_at <= now:
                self._retry(lane, now)

    def _retry(self, lane: _Lane, now: float) -> None:
        """Tell a target again what it has not heard, in its newest state; not while messages still wait for it."""
        if not lane.queue.empty():
            lane.retry_at = now + RETRY_S
            return
        lane.retry_at = None
        for name, alert in list(self._book.untold()):
            if name == lane.target.name:
                self._enqueue(name, Notice(alert))

    def _fire(
        self,
        key: str,
        event: Event,
        incident: str | None = None,
        *,
        severity: str = "page",
        quiet_s: float | None = None,
    ) -> None:
        alert = self._book.fire(
            key, severity=severity, summary=event.message, service=event.service, incident=incident, quiet_s=quiet_s
        )
        self._save(key)
        if alert is not None:
            self._events.publish(AlertFired(service=alert.service, alert=key, severity=severity, summary=alert.summary))
            self._send(Notice(alert))

    def _resolve(self, key: str, summary: str) -> None:
        alert = self._book.resolve(key, summary)
        if alert is None:
            return
        if not self._settings.resolved:
            for name in self._lanes:
                self._book.settle(alert, name)
        self._save(key)
        self._events.publish(AlertResolved(service=alert.service, alert=key, summary=summary))
        if self._settings.resolved:
            self._send(Notice(alert))

    # --- messages out ---

    def _send(self, notice: Notice) -> None:
        for name in self._lanes:
            self._enqueue(name, notice)

    def _enqueue(self, name: str, notice: Notice) -> None:
        try:
            self._lanes[name].queue.put_nowait(notice)
        except asyncio.QueueFull:
            self._failed(name, notice, f"{WAITING_MAX} messages wait for it already")

    async def _work(self, lane: _Lane) -> None:
        while True:
            notice = await lane.queue.get()
            try:
                await self._deliver(lane, notice)
            except Exception as error:  # the lane must go on with the next message
                self._report(error)
            finally:
                lane.queue.task_done()

    async def _deliver(self, lane: _Lane, notice: Notice) -> None:
        name, tries = lane.target.name, self._settings.retries + 1
        for attempt in range(tries):
            if attempt:
                await self._clock.sleep(self._rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** (attempt - 1))))
            lane.fault = await self._attempt(lane.target, notice)
            if lane.fault is None:
                self._settle(notice, name)
                return
        self._failed(name, notice, f"{lane.fault}; tried {'once' if tries == 1 else f'{tries} times'}")

    async def _attempt(self, target: Target, notice: Notice) -> str | None:
        """Try once and return why it failed, without any address."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await target.send(notice)
        except TimeoutError:
            return f"no answer within {self._settings.timeout_s:g} s"
        except DeliveryError as error:
            return str(error)
        except Exception as error:  # a fault of the target's code is a failed delivery; its text may hold a secret
            return f"failed ({type(error).__name__})"
        return None

    def _failed(self, target: str, notice: Notice, detail: str) -> None:
        """Say once that a message did not arrive, and try again later what is still to be told."""
        lane, alert = self._lanes[target], notice.alert
        lane.retry_at = self._clock.monotonic() + RETRY_S
        self._wake.set()
        if (alert.key, alert.state) not in lane.failed:
            lane.failed.add((alert.key, alert.state))
            self._events.publish(AlertFailed(service=alert.service, alert=alert.key, target=target, detail=detail))

    def _settle(self, notice: Notice, target: str) -> None:
        self._book.settle(notice.alert, target)
        self._lanes[target].failed -= {(notice.alert.key, FIRING), (notice.alert.key, RESOLVED)}
        self._save(notice.alert.key)

    # --- the store ---

    def _restore(self) -> None:
        if self._store is None:
            return
        for key, document in self._store.documents(NAMESPACE).items():
            try:
                self._book.restore(key, document)
            except (KeyError, TypeError, ValueError):
                self._store.delete(NAMESPACE, key)
                self._report(StateError(f"alert {key!r} of an earlier run cannot be read and was dropped"))

    def _save(self, key: str) -> None:
        gone = self._book.forget_if_done(key)
        if self._store is None:
            return
        try:
            if gone:
                self._store.delete(NAMESPACE, key)
            else:
                self._store.put(NAMESPACE, key, self._book.document(key))
        except StateError as error:  # a full disk is one more reason to tell people, not to be silent
            self._report(error)

    def _report(self, error: Exception) -> None:
        self._events.publish(ComponentFailed(component=_SELF, detail=f"{type(error).__name__}: {error}"))


def _key(service: str, incident: str) -> str:
    return f"{service}/{incident}"
