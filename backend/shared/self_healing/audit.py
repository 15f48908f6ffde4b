"""The audit trail: what was decided and done, written down the moment that it is told.

Everything on the event bus is a decision, an act or a finding that led to one, so every event becomes a record.
While the store fails records are kept in memory, in order, and written as soon as it takes them again.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Any

from modules.contracts.errors import StateError
from modules.contracts.events import ComponentFailed, Event, EventBus
from modules.contracts.state import AuditRecord, StateStore

_log = logging.getLogger(__name__)

KEPT = 10_000
"""Newest records that are kept in memory while the store fails."""


class AuditTrail:
    """Writes every event on ``events`` to ``store``, until ``close``.

    A store that fails is reported once as ComponentFailed, and again when it had failed for so long that records
    were lost.
    """

    def __init__(self, events: EventBus, store: StateStore) -> None:
        self._events = events
        self._store = store
        self._waiting: deque[AuditRecord] = deque()
        self._failing = False
        self._lost = 0
        self._end = events.listen(self._write)
        self._closed = False

    def close(self) -> None:
        """Listen no more, and write what waits if the store takes it; safe twice."""
        if self._closed:
            return
        self._closed = True
        self._end()
        error = self._flush()
        if error is not None:
            _log.error("%d records of the audit trail are lost: %s", len(self._waiting) + self._lost, error)

    def _write(self, event: Event) -> None:
        self._waiting.append(_record(event))
        if len(self._waiting) > KEPT:
            self._waiting.popleft()
            self._lost += 1
        error = self._flush()
        if error is not None and not self._failing:
            self._failing = True  # set first: the report comes back here as an event
            detail = f"records are kept in memory until the state file takes them again: {error}"
            self._events.publish(ComponentFailed(component="audit trail", detail=detail))
        elif error is None:
            self._failing = False
            lost, self._lost = self._lost, 0
            if lost:
                detail = f"{lost} records are lost, for the state file failed for too long"
                self._events.publish(ComponentFailed(component="audit trail", detail=detail))

    def _flush(self) -> StateError | None:
        """Write what waits, oldest first; return the error that stopped it."""
        while self._waiting:
            try:
                self._store.append_audit(self._waiting[0])
            except StateError as error:
                return error
            self._waiting.popleft()
        return None


def _record(event: Event) -> AuditRecord:
    fields = event.as_dict()
    return AuditRecord(
        at=event.at,
        kind=event.kind,
        message=event.message,
        service=event.service,
        incident=fields.get("incident"),
        data={key: _finite(value) for key, value in fields.items()},
    )


def _finite(value: Any) -> Any:
    """JSON has no infinities, and one record that cannot be written would hold up all that follow."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
