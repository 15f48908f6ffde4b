"""One alert as the book keeps it: how it stands, whom that was told, and how that is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from backend.shared.monitoring.alert_notice import Alert, Subject
from modules.contracts.alerts import AlertState


@dataclass(slots=True)
class Entry:
    """``sent_at`` is of the wall clock, the two deadlines are monotonic."""

    alert: Alert
    rows: dict[str, bool] = field(default_factory=dict)
    """The reasons for it, where it may have several, and whether each fires or is pending."""
    sent_at: float = 0.0
    remind_at: float | None = None
    quiet_s: float | None = None
    quiet_at: float | None = None
    reached: set[str] = field(default_factory=set)
    """Who may have heard that it fires: noted before the first try."""
    told: dict[str, AlertState] = field(default_factory=dict)
    """Target -> the state that it was told last, or that was given up."""
    failed: set[str] = field(default_factory=set)
    """Of those, who did not take it."""
    on_way: dict[str, AlertState] = field(default_factory=dict)
    """Target -> the state that was handed over to be sent in this run."""


def document(entry: Entry) -> dict[str, Any]:
    """Return what outlives a restart, as JSON types."""
    return {
        "subject": {name: value for name, value in asdict(entry.alert.subject).items() if name != "key"},
        "summary": entry.alert.summary,
        "starts_at": entry.alert.starts_at,
        "ends_at": entry.alert.ends_at,
        "sent_at": entry.sent_at,
        "quiet_s": entry.quiet_s,
        "reached": sorted(entry.reached),
        "told": {name: state.value for name, state in entry.told.items()},
        "failed": sorted(entry.failed),
    }


def from_document(key: str, kept: Mapping[str, Any]) -> Entry:
    """Take back an alert of an earlier run. Raises KeyError, TypeError or ValueError when the document is none."""
    ends_at = kept["ends_at"]
    alert = Alert(
        Subject(key=key, **kept["subject"]),
        AlertState.FIRING if ends_at is None else AlertState.RESOLVED,
        kept["summary"],
        kept["starts_at"] + 0.0,
        ends_at if ends_at is None else ends_at + 0.0,
    )
    return Entry(
        alert,
        sent_at=kept["sent_at"] + 0.0,
        quiet_s=kept["quiet_s"],
        reached=set(kept["reached"]),
        told={name: AlertState(state) for name, state in kept["told"].items()},
        failed=set(kept["failed"]),
    )
