"""Which alerts fire, whom that was told, and what is due next: the pure core of alerting.

An alert has a key: while it fires, the same key does not fire again (deduplication), it is only repeated as a
reminder. It is kept until every target was told of its end, so that a restart neither pages twice nor
forgets to say that all is well. Wall-clock times are for people and for the next run; deadlines are monotonic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from modules.contracts.clock import Clock

FIRING = "firing"
RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people should know. Times in unix seconds; ``ends_at`` is None while it fires.

    ``severity`` is ``page`` (now) or ``ticket`` (soon), as in the Google SRE workbook.
    """

    key: str
    severity: str
    summary: str
    starts_at: float
    service: str | None = None
    incident: str | None = None
    ends_at: float | None = None

    @property
    def state(self) -> str:
        return FIRING if self.ends_at is None else RESOLVED


@dataclass(frozen=True, slots=True)
class Notice:
    """One message about an alert, as it goes to every target."""

    alert: Alert
    reminder: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the message as JSON types, times in RFC 3339."""
        alert = self.alert
        return {
            "status": alert.state,
            "reminder": self.reminder,
            "alert": alert.key,
            "service": alert.service,
            "incident": alert.incident,
            "severity": alert.severity,
            "summary": alert.summary,
            "startsAt": _rfc3339(alert.starts_at),
            "endsAt": None if alert.ends_at is None else _rfc3339(alert.ends_at),
        }

    @property
    def title(self) -> str:
        what = "still firing" if self.reminder else self.alert.state
        return f"[{what}] {self.alert.service or self.alert.key}"

    @property
    def body(self) -> str:
        alert = self.alert
        until = "" if alert.ends_at is None else f" until {_rfc3339(alert.ends_at)}"
        return f"{alert.summary}\n{alert.severity}, since {_rfc3339(alert.starts_at)}{until}"


@dataclass(slots=True)
class _Entry:
    alert: Alert
    sent_at: float
    remind_at: float | None
    quiet_s: float | None
    quiet_at: float | None
    told: dict[str, str] = field(default_factory=dict)


class AlertBook:
    """Keeps alerts for ``targets``, by name; ``reminder_s`` 0 never reminds."""

    def __init__(self, targets: Collection[str], *, reminder_s: float, clock: Clock) -> None:
        self._targets = tuple(targets)
        self._reminder_s = reminder_s
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(entry.alert for entry in self._entries.values() if entry.alert.ends_at is None)

    def fire(
        self,
        key: str,
        *,
        severity: str,
        summary: str,
        service: str | None = None,
        incident: str | None = None,
        quiet_s: float | None = None,
    ) -> Alert | None:
        """Begin an alert, or return None when it fires already: then its summary is renewed.

        With ``quiet_s`` it ends by itself so long after it was fired last.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.alert.ends_at is None:
            entry.alert = replace(entry.alert, summary=summary)
            entry.quiet_at = self._after(quiet_s)
            return None
        now = self._clock.time()
        alert = Alert(key, severity, summary, now, service, incident)
        self._entries[key] = _Entry(alert, now, self._after(self._reminder_s or None), quiet_s, self._after(quiet_s))
        return alert

    def resolve(self, key: str, summary: str) -> Alert | None:
        """End an alert, or return None when it does not fire."""
        entry = self._entries.get(key)
        if entry is None or entry.alert.ends_at is not None:
            return None
        # Never before its beginning, even when the wall clock was set back.
        ends_at = max(self._clock.time(), entry.alert.starts_at)
        entry.alert = replace(entry.alert, summary=summary, ends_at=ends_at)
        entry.remind_at = entry.quiet_at = None
        return entry.alert

    def gone_quiet(self) -> list[str]:
        """Return the keys of alerts that were not fired again for their ``quiet_s``; the caller resolves them."""
        now = self._clock.monotonic()
        return [key for key, entry in self._entries.items() if entry.quiet_at is not None and entry.quiet_at <= now]

    def take_reminders(self) -> list[Alert]:
        """Return the alerts to repeat now, each once per ``reminder_s``."""
        now = self._clock.monotonic()
        due = [entry for entry in self._entries.values() if entry.remind_at is not None and entry.remind_at <= now]
        for entry in due:
            entry.sent_at = self._clock.time()
            entry.remind_at = now + self._reminder_s
        return [entry.alert for entry in due]

    def next_due(self) -> float | None:
        """When something is to be taken next, in monotonic seconds, or None."""
        deadlines = [
            deadline
            for entry in self._entries.values()
            for deadline in (entry.remind_at, entry.quiet_at)
            if deadline is not None
        ]
        return min(deadlines, default=None)

    # --- what was told ---

    def settle(self, alert: Alert, target: str) -> None:
        """Note that ``target`` was told of the alert in this state, or that trying has ended."""
        entry = self._entries.get(alert.key)
        if entry is not None and entry.alert.starts_at == alert.starts_at:
            entry.told[target] = alert.state

    def forget_if_done(self, key: str) -> bool:
        """Drop an ended alert that every target was told of; return whether the key is gone."""
        entry = self._entries.get(key)
        if entry is not None and entry.alert.ends_at is not None and not self._untold(entry):
            del self._entries[key]
        return key not in self._entries

    def untold(self) -> Iterator[tuple[str, Alert]]:
        """Yield (target, alert) for everything that is still to be told."""
        for entry in self._entries.values():
            for target in self._untold(entry):
                yield target, entry.alert

    def _untold(self, entry: _Entry) -> list[str]:
        return [target for target in self._targets if entry.told.get(target) != entry.alert.state]

    # --- across restarts ---

    def document(self, key: str) -> dict[str, Any]:
        """Return one alert as JSON types."""
        entry = self._entries[key]
        alert = entry.alert
        return {
            "severity": alert.severity,
            "summary": alert.summary,
            "starts_at": alert.starts_at,
            "service": alert.service,
            "incident": alert.incident,
            "ends_at": alert.ends_at,
            "sent_at": entry.sent_at,
            "quiet_s": entry.quiet_s,
            "told": dict(entry.told),
        }

    def restore(self, key: str, document: Mapping[str, Any]) -> None:
        """Take back an alert of an earlier run. Raises KeyError or TypeError when the document is none."""
        alert = Alert(
            key=key,
            severity=document["severity"],
            summary=document["summary"],
            starts_at=document["starts_at"] + 0.0,
            service=document["service"],
            incident=document["incident"],
            ends_at=document["ends_at"],
        )
        entry = _Entry(alert, document["sent_at"], None, document["quiet_s"], None, dict(document["told"]))
        self._entries[key] = entry
        if alert.ends_at is not None:
            return
        entry.quiet_at = self._after(entry.quiet_s)
        if self._untold(entry):
            entry.sent_at = self._clock.time()  # it is told now, so a reminder is not due yet
        if self._reminder_s:
            # Between two runs only the wall clock went on; it may have jumped, so the wait is kept within bounds.
            waited = min(max(0.0, self._clock.time() - entry.sent_at), self._reminder_s)
            entry.remind_at = self._after(self._reminder_s - waited)

    def _after(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._clock.monotonic() + seconds


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
