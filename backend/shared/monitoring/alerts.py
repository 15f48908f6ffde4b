"""Tells people: listens to events, decides with the alert book, delivers in the background.

What fires is kept in the store before it is sent, and that it was sent as soon as the target has taken it: after a
restart nothing is paged twice, and nothing that fired stays unresolved. Only when the program is killed between
these two is a message sent again, with the same fingerprint and ``startsAt``, by which a receiver knows it: delivery
is at least once.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from backend.shared.monitoring import alert_events, silences
from backend.shared.monitoring.alert_book import AlertBook
from backend.shared.monitoring.alert_lanes import Lane
from backend.shared.monitoring.alert_notice import Alert, Notice
from backend.shared.monitoring.alert_routes import Routes
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alert_targets import Target, build_targets
from modules.contracts.alerts import AlertState, AlertStatus, Silence
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
    SilenceChanged,
)
from modules.contracts.state import StateStore

NAMESPACE = "alerts"
SILENCES = "silences"
CONFIRM_S = 300.0
"""An objective's alert of an earlier run ends unless the engine speaks of it again within so long."""
FLUSH_S = 2.0
"""How long ``stop`` waits for messages that are on their way."""


class AlertManager:
    """Fires, repeats and resolves alerts. A component; ``store`` None forgets everything at a restart.

    With ``when=incident`` an alert fires as an incident opens, with ``when=repair_failed`` it is pending then and
    fires once repair has given up on it; it resolves as the incident closes. The burn of an objective's budget fires
    as its engine says. A failed part of the runtime itself is a ticket. ``targets`` are built from the settings
    unless given. Raises ConfigurationError for a target that cannot be used.
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
        self._clock = clock
        self._events = events
        self._store = store
        rng = rng or random.Random()  # noqa: S311  spreads retries and names silences, guards no secret
        if targets is None:
            targets = build_targets(
                settings.targets, timeout_s=settings.timeout_s, external_url=settings.external_url or ""
            )
        self._lanes = {
            target.name: Lane(
                target,
                settings,
                clock=clock,
                rng=rng,
                begin=self._begin,
                failed=self._failed,
                end=self._end,
                report=self._report,
            )
            for target in targets
        }
        self._silences = silences.Silences(settings.silences, clock=clock, rng=rng)
        self._book = AlertBook(
            list(self._lanes),
            route=Routes(settings.routes, list(self._lanes)).targets,
            silenced=self._silences.holding,
            reminder_s=settings.reminder_s,
            tell_end=settings.resolved,
            clock=clock,
        )
        self._reader = alert_events.Reader(settings.when, self._book)
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
        return tuple(alert for alert in self._book.active if alert.state is AlertState.FIRING)

    def alerts(self) -> tuple[AlertStatus, ...]:
        """Return what is pending or fires, oldest first, then what ended last in this run, newest first."""
        return self._book.statuses()

    async def start(self) -> None:
        if self._tasks:
            return
        self._restore()
        self._unlisten = self._events.listen(self._listen)
        self._tasks = [asyncio.create_task(lane.run(), name=f"alerts {name}") for name, lane in self._lanes.items()]
        self._tasks.append(asyncio.create_task(self._watch(), name="alerts"))
        self._state = ComponentState.RUNNING
        self._send(self._book.take_due())

    async def stop(self) -> None:
        if not self._tasks:
            self._state = ComponentState.STOPPED
            return
        if self._unlisten is not None:
            self._unlisten()
        self._read_inbox()
        try:
            self._send(self._book.take_due())
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await asyncio.gather(*(lane.join() for lane in self._lanes.values()))
        finally:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in self._lanes.values():
                await lane.close()
            self._book.nothing_on_way()
            self._state = ComponentState.STOPPED

    # --- silences ---

    def silences(self) -> tuple[Silence, ...]:
        """Return the silences that are in force or still to come, by their beginning."""
        return self._silences.listed()

    def silence(self, matchers: Mapping[str, str], *, starts_at: float, ends_at: float, comment: str) -> Silence:
        """Silence alerts for a time, also across restarts. Raises ConfigurationError, or StateError."""
        new = self._silences.make(matchers, starts_at=starts_at, ends_at=ends_at, comment=comment)
        if self._store is not None:
            self._store.put(SILENCES, new.id, silences.document(new))
        self._silences.keep(new)
        self._tell(new, "created")
        self._wake.set()
        return new

    def end_silence(self, silence: str) -> None:
        """End a silence now. Raises UnknownSilenceError, ConfigurationError for a configured one, or StateError."""
        found = self._silences.find(silence)
        if self._store is not None:
            self._store.delete(SILENCES, silence)
        self._silences.forget(silence)
        self._tell(found, "ended")
        self._wake.set()

    def _tell(self, one: Silence, action: str) -> None:
        self._events.publish(
            SilenceChanged(
                silence=one.id, action=action, matchers=one.matchers, ends_at=one.ends_at, comment=one.comment
            )
        )

    # --- events in ---

    def _listen(self, event: Event) -> None:
        # Read by a task of our own, so that what is published here does not overtake the event itself.
        if isinstance(event, alert_events.HEARD):
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
            due, change_s = self._book.next_due(), self._silences.wait_s()
            waits = [] if due is None else [max(0.0, due - self._clock.monotonic())]
            waits += [] if change_s is None else [change_s]
            with suppress(TimeoutError):
                async with asyncio.timeout(min(waits, default=None)):
                    await self._wake.wait()

    def _read_inbox(self) -> None:
        while self._inbox:
            try:
                for change in self._reader.read(self._inbox.popleft()):
                    self._apply(change)
            except Exception as error:  # one event that cannot be handled must not silence the others
                self._report(error)

    def _look_at_deadlines(self) -> None:
        for change in self._reader.gone_quiet():
            self._apply(change)
        for silence in self._silences.take_expired():
            self._forget(silence)
            self._tell(silence, "expired")
        reminders = self._book.take_reminders()
        for key in {notice.alert.key for _, notice in reminders}:
            self._save(key)
        self._send([*reminders, *self._book.take_due()])

    def _apply(self, alert: Alert) -> None:
        """Keep and publish an alert that began or ended just now."""
        subject, key = alert.subject, alert.key
        self._save(key)
        if alert.state is AlertState.FIRING:
            self._events.publish(
                AlertFired(service=subject.service, alert=key, severity=subject.severity, summary=alert.summary)
            )
            self._send(self._book.take_due(key))  # at once: it may be over before the inbox is read
        else:
            self._events.publish(AlertResolved(service=subject.service, alert=key, summary=alert.summary))

    # --- messages out ---

    def _send(self, due: Sequence[tuple[str, Notice]]) -> None:
        for name, notice in due:
            self._lanes[name].push(notice)

    def _begin(self, notice: Notice, target: str) -> bool:
        wanted = self._book.begin(notice, target)
        self._save(notice.alert.key)
        return wanted

    def _failed(self, notice: Notice, target: str, fault: str) -> None:
        alert = notice.alert
        self._book.note_failure(notice, target)
        self._events.publish(AlertFailed(service=alert.subject.service, alert=alert.key, target=target, detail=fault))

    def _end(self, notice: Notice, target: str, fault: str | None) -> None:
        key = notice.alert.key
        if fault is not None:
            self._failed(notice, target, fault)
        self._book.settle(notice, target, failed=fault is not None)
        self._save(key)

    # --- the store ---

    def _restore(self) -> None:
        if self._store is not None:
            for key, kept in self._store.documents(SILENCES).items():
                try:
                    self._silences.keep(silences.from_document(key, kept))
                except (KeyError, TypeError, ValueError, AttributeError):
                    self._drop(SILENCES, f"silence {key!r}", key)
            for key, kept in self._store.documents(NAMESPACE).items():
                try:
                    self._book.restore(key, kept, confirm_s=CONFIRM_S)
                except (KeyError, TypeError, ValueError, AttributeError):
                    self._drop(NAMESPACE, f"alert {key!r}", key)
                else:
                    self._save(key)
        for over in self._silences.take_expired():
            self._forget(over)

    def _drop(self, namespace: str, what: str, key: str) -> None:
        if self._store is not None:
            self._store.delete(namespace, key)
        self._report(StateError(f"{what} of an earlier run cannot be read and was dropped"))

    def _forget(self, silence: Silence) -> None:
        try:
            if self._store is not None and not silence.configured:
                self._store.delete(SILENCES, silence.id)
        except StateError as error:  # it stays in the file, and is over there as well
            self._report(error)

    def _save(self, key: str) -> None:
        if self._book.is_pending(key):
            return  # nobody hears of it, so there is nothing to remember
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
        self._events.publish(ComponentFailed(component=alert_events.SELF, detail=f"{type(error).__name__}: {error}"))
