"""Which alerts there are, whom that was told, and what is to be told next: the pure core of alerting.

An alert has a key: while it fires, the same key does not fire again (deduplication), it is only repeated as a
reminder. Nothing here reacts to a change; what is due follows from how things stand, so an alert that was held
back (silenced, or inhibited by a page of the same objective) is due as soon as nothing holds it any more. An alert
is kept until everyone who heard of it was told of its end, so that a restart neither pages twice nor forgets to say
that all is well. Wall-clock times are for people and for the next run; deadlines are monotonic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from backend.shared.monitoring.alert_entry import Entry, document, from_document
from backend.shared.monitoring.alert_notice import Alert, Notice, Subject, objective_key
from modules.contracts.alerts import AlertState, AlertStatus
from modules.contracts.clock import Clock

ENDED_KEPT = 100
"""Alerts that ended in this run and are still shown."""

Labels = Mapping[str, str]


class AlertBook:
    """Keeps alerts for ``targets``. ``route`` says which of them hear of an alert, ``silenced`` which silences hold
    it back, both by its labels; ``reminder_s`` 0 never reminds; ``tell_end`` False keeps the end to itself."""

    def __init__(
        self,
        targets: Collection[str],
        *,
        route: Callable[[Labels], Collection[str]],
        silenced: Callable[[Labels], tuple[str, ...]],
        reminder_s: float,
        tell_end: bool,
        clock: Clock,
    ) -> None:
        self._targets = tuple(targets)
        self._route = route
        self._silenced = silenced
        self._reminder_s = reminder_s
        self._tell_end = tell_end
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._ended: deque[AlertStatus] = deque(maxlen=ENDED_KEPT)

    @property
    def active(self) -> tuple[Alert, ...]:
        """What is pending or fires, oldest first."""
        return tuple(e.alert for e in self._entries.values() if e.alert.state is not AlertState.RESOLVED)

    def statuses(self) -> tuple[AlertStatus, ...]:
        """Return what is pending or fires, oldest first, then what ended last, newest first."""
        active = sorted(self.active, key=lambda alert: alert.starts_at)
        return (*(self._status(self._entries[alert.key]) for alert in active), *reversed(self._ended))

    # --- what happens ---

    def pend(self, subject: Subject, summary: str, *, row: str | None = None) -> None:
        """Note that it may come to an alert. One that fires goes on; one whose end is still to be told is left."""
        entry = self._entries.get(subject.key)
        if entry is None:
            entry = self._entries[subject.key] = Entry(
                Alert(subject, AlertState.PENDING, summary, self._clock.time()),
            )
        self._hold(entry, row, fires=False)

    def fire(
        self, subject: Subject, summary: str, *, row: str | None = None, quiet_s: float | None = None
    ) -> Alert | None:
        """Begin an alert, or return None when it fires already: then its summary is renewed.

        With ``quiet_s`` it ends by itself so long after it was fired last.
        """
        entry = self._entries.get(subject.key)
        begins = entry is None or entry.alert.state is not AlertState.FIRING
        if entry is None or entry.alert.state is AlertState.RESOLVED:
            entry = self._entries[subject.key] = Entry(Alert(subject, AlertState.FIRING, summary, self._clock.time()))
        elif begins:
            entry.alert = Alert(subject, AlertState.FIRING, summary, self._clock.time())
        else:
            entry.alert = replace(entry.alert, summary=summary)
        self._hold(entry, row, fires=True)
        entry.quiet_s = quiet_s
        entry.quiet_at = self._after(quiet_s)
        return entry.alert if begins else None

    def release(self, key: str, row: str) -> bool:
        """Note that ``row`` has ceased; return whether the alert ends with it, for the caller to resolve it."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        fired = entry.rows.pop(row, None)
        if fired is None:  # of an earlier run, or named otherwise: it speaks of the alert as a whole
            entry.rows.clear()
        return not entry.rows or (bool(fired) and not any(entry.rows.values()))

    def resolve(self, key: str, summary: str) -> Alert | None:
        """End an alert, or return None when it does not fire. One that is pending is forgotten."""
        entry = self._entries.get(key)
        if entry is None or entry.alert.state is AlertState.RESOLVED:
            return None
        if entry.alert.state is AlertState.PENDING:
            del self._entries[key]
            return None
        # Never before its beginning, even when the wall clock was set back.
        ends_at = max(self._clock.time(), entry.alert.starts_at)
        entry.alert = replace(entry.alert, summary=summary, ends_at=ends_at, state=AlertState.RESOLVED)
        entry.remind_at = entry.quiet_at = None
        return entry.alert

    def _hold(self, entry: Entry, row: str | None, *, fires: bool) -> None:
        if row is not None:
            entry.rows[row] = fires
        entry.quiet_at = None  # what an earlier run left is confirmed

    # --- what is due ---

    def take_due(self, key: str | None = None) -> list[tuple[str, Notice]]:
        """Return (target, message) for everything, or for one alert, that is to be told now and is not on its way."""
        due: list[tuple[str, Notice]] = []
        for entry in self._entries.values() if key is None else [self._entries[key]]:
            state = entry.alert.state
            fresh = [name for name in self._untold(entry) if entry.on_way.get(name) != state]
            if not fresh or (state is AlertState.FIRING and self._held(entry)):
                continue
            if state is AlertState.FIRING and entry.remind_at is None and self._reminder_s:
                entry.sent_at = self._clock.time()
                entry.remind_at = self._after(self._reminder_s)
            for name in fresh:
                entry.on_way[name] = state
                due.append((name, Notice(entry.alert)))
        return due

    def take_reminders(self) -> list[tuple[str, Notice]]:
        """Return (target, message) for the alerts to repeat now, each once per ``reminder_s``."""
        now = self._clock.monotonic()
        due: list[tuple[str, Notice]] = []
        for entry in self._entries.values():
            if entry.remind_at is None or entry.remind_at > now:
                continue
            entry.sent_at = self._clock.time()
            entry.remind_at = now + self._reminder_s
            due += ((name, Notice(entry.alert, reminder=True)) for name in self._aims(entry) if name in entry.told)
        return due

    def gone_quiet(self) -> list[str]:
        """Return the keys of alerts that were not fired again in their time; the caller resolves them."""
        now = self._clock.monotonic()
        return [key for key, entry in self._entries.items() if entry.quiet_at is not None and entry.quiet_at <= now]

    def next_due(self) -> float | None:
        """When a reminder or a quiet end is due next, in monotonic seconds, or None."""
        deadlines = [
            deadline
            for entry in self._entries.values()
            for deadline in (entry.remind_at, entry.quiet_at)
            if deadline is not None
        ]
        return min(deadlines, default=None)

    # --- what was told ---

    def begin(self, notice: Notice, target: str) -> bool:
        """Whether ``target`` is still to be told, asked before each try. It is then noted that it may hear of it."""
        entry = self._entry_of(notice)
        if entry is None:
            return True
        if notice.alert.state is AlertState.RESOLVED:
            if target not in entry.reached:
                entry.told[target] = AlertState.RESOLVED  # it never heard of the beginning
            return target in entry.reached
        if self._held(entry):
            if entry.on_way.get(target) is AlertState.FIRING:
                del entry.on_way[target]  # due again when nothing holds it back any more
            return False
        entry.reached.add(target)
        return True

    def settle(self, notice: Notice, target: str, *, failed: bool = False) -> None:
        """Note that ``target`` was told of the alert in this state, or that trying has ended."""
        entry = self._entry_of(notice)
        if entry is None or (failed and notice.reminder):
            return
        entry.told[target] = notice.alert.state
        (entry.failed.add if failed else entry.failed.discard)(target)

    def note_failure(self, notice: Notice, target: str) -> None:
        """Note that ``target`` could not be told for now; it is shown, and goes on being tried."""
        entry = self._entry_of(notice)
        if entry is not None and not notice.reminder:
            entry.failed.add(target)

    def nothing_on_way(self) -> None:
        """Note that what waited to be sent was dropped: it is due again."""
        for entry in self._entries.values():
            entry.on_way.clear()

    def is_pending(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.alert.state is AlertState.PENDING

    def forget_if_done(self, key: str) -> bool:
        """Drop an ended alert that has nobody left to be told of its end; return whether there is nothing to keep."""
        entry = self._entries.get(key)
        if entry is None:
            return True
        if entry.alert.state is AlertState.RESOLVED and not self._untold(entry):
            self._ended.append(self._status(entry))
            del self._entries[key]
            return True
        return False

    def _entry_of(self, notice: Notice) -> Entry | None:
        entry = self._entries.get(notice.alert.key)
        return entry if entry is not None and entry.alert.starts_at == notice.alert.starts_at else None

    def _aims(self, entry: Entry) -> list[str]:
        """Who is to hear of it in its state: of the end those who heard, or are about to hear, of the beginning."""
        match entry.alert.state:
            case AlertState.FIRING:
                wanted = self._route(entry.alert.subject.labels)
                return [name for name in self._targets if name in wanted]
            case AlertState.RESOLVED if self._tell_end:
                return [name for name in self._targets if name in entry.reached or name in entry.on_way]
            case _:
                return []

    def _untold(self, entry: Entry) -> list[str]:
        return [name for name in self._aims(entry) if entry.told.get(name) != entry.alert.state]

    # --- what holds an alert back ---

    def _held(self, entry: Entry) -> bool:
        """Whether nobody is to be told that it fires. The end of what was told is always told."""
        return bool(self._inhibiting(entry.alert) or self._silenced(entry.alert.subject.labels))

    def _inhibiting(self, alert: Alert) -> tuple[str, ...]:
        """A page of an objective makes its ticket needless. As in Alertmanager, it may itself be silenced."""
        subject = alert.subject
        if subject.objective is None or subject.severity != "ticket":
            return ()
        page = self._entries.get(objective_key(subject.objective, "page"))
        return (page.alert.key,) if page is not None and page.alert.state is AlertState.FIRING else ()

    def _status(self, entry: Entry) -> AlertStatus:
        alert, aims = entry.alert, self._aims(entry)
        over = alert.state is AlertState.RESOLVED
        settled = [name for name in aims if entry.told.get(name) is alert.state]
        return AlertStatus(
            key=alert.key,
            state=alert.state,
            labels=alert.subject.labels,
            fingerprint=alert.subject.fingerprint,
            summary=alert.summary,
            since=alert.starts_at if alert.ends_at is None else alert.ends_at,
            starts_at=alert.starts_at,
            ends_at=alert.ends_at,
            incident=alert.subject.incident,
            targets=tuple(aims),
            told=tuple(name for name in settled if name not in entry.failed),
            failed=tuple(name for name in aims if name in entry.failed),
            silenced_by=() if over else self._silenced(alert.subject.labels),
            inhibited_by=() if over else self._inhibiting(alert),
        )

    # --- across restarts ---

    def document(self, key: str) -> dict[str, Any]:
        """Return one alert as JSON types."""
        return document(self._entries[key])

    def restore(self, key: str, kept: Mapping[str, Any], *, confirm_s: float) -> None:
        """Take back an alert of an earlier run. Raises KeyError, TypeError or ValueError when the document is none.

        One of an objective ends by itself unless it is fired or pending again within ``confirm_s``.
        """
        entry = self._entries[key] = from_document(key, kept)
        if entry.alert.state is AlertState.RESOLVED:
            return
        entry.quiet_at = self._after(confirm_s if entry.alert.subject.objective else entry.quiet_s)
        if self._untold(entry):
            entry.sent_at = self._clock.time()  # it is told now, so a reminder is not due yet
        if self._reminder_s:
            # Between two runs only the wall clock went on; it may have jumped, so the wait is kept within bounds.
            waited = min(max(0.0, self._clock.time() - entry.sent_at), self._reminder_s)
            entry.remind_at = self._after(self._reminder_s - waited)

    def _after(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._clock.monotonic() + seconds
