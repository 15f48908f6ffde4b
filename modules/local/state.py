"""State in memory: the same calls as a state file, forgotten with the program."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from modules.contracts.errors import StateError
from modules.contracts.events import Event, EventBus
from modules.contracts.state import AuditRecord, Document, StateStore

AUDIT_KEPT = 10_000
"""Newest audit records that are kept."""
SLOTS_KEPT = 10_000
"""Newest sample slots that are kept of one objective."""


class MemoryStore:
    """A ``StateStore`` whose memory is bounded: the oldest audit records and samples go first.

    Documents pass through JSON, so what comes back is what a file would have kept, and nobody's later change
    reaches it; what is no JSON raises StateError.
    """

    def __init__(self) -> None:
        self._audit: deque[AuditRecord] = deque(maxlen=AUDIT_KEPT)
        self._last_id = 0
        self._documents: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._samples: defaultdict[str, dict[float, tuple[int, int]]] = defaultdict(dict)
        self._closed = False

    def append_audit(self, record: AuditRecord) -> int:
        self._check_open()
        data = _to_json(record.data, f"audit record {record.kind!r}")
        self._last_id += 1
        self._audit.append(replace(record, id=self._last_id, data=json.loads(data)))
        return self._last_id

    def audit(
        self,
        *,
        service: str | None = None,
        incident: str | None = None,
        kind: str | None = None,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRecord]:
        self._check_open()
        records = iter(self._audit) if after is not None else reversed(self._audit)
        found = (
            record
            for record in records
            if (service is None or record.service == service)
            and (incident is None or record.incident == incident)
            and (kind is None or record.kind == kind)
            and (before is None or record.id < before)
            and (after is None or record.id > after)
        )
        return list(islice(found, max(0, limit)))

    def put(self, namespace: str, key: str, document: Document) -> None:
        self._check_open()
        self._documents[namespace][key] = _to_json(document, f"document {key!r} of {namespace!r}")

    def get(self, namespace: str, key: str) -> Document | None:
        self._check_open()
        text = self._documents[namespace].get(key)
        return None if text is None else json.loads(text)

    def documents(self, namespace: str) -> Mapping[str, Document]:
        self._check_open()
        return {key: json.loads(text) for key, text in sorted(self._documents[namespace].items())}

    def delete(self, namespace: str, key: str) -> None:
        self._check_open()
        self._documents[namespace].pop(key, None)

    def add_samples(self, samples: Mapping[str, Mapping[float, tuple[int, int]]]) -> None:
        self._check_open()
        for objective, slots in samples.items():
            kept = self._samples[objective]
            for start, (good, total) in slots.items():
                kept_good, kept_total = kept.get(start, (0, 0))
                kept[start] = (kept_good + good, kept_total + total)
            for oldest in sorted(kept)[: max(0, len(kept) - SLOTS_KEPT)]:
                del kept[oldest]

    def samples(self, objective: str, *, since: float) -> Mapping[float, tuple[int, int]]:
        self._check_open()
        return {start: counts for start, counts in sorted(self._samples[objective].items()) if start >= since}

    def check(self) -> str | None:
        """Memory does not get lost while the program runs."""
        self._check_open()
        return None

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the state store is closed; open another one")


class LocalAuditTrail:
    """Writes every decision and act on the bus to the store, until ``close``."""

    def __init__(self, events: EventBus, store: StateStore) -> None:
        self._store = store
        self._end = events.listen(self._write)

    def close(self) -> None:
        """Listen no more; safe twice."""
        self._end()

    def _write(self, event: Event) -> None:
        data = event.as_dict()
        self._store.append_audit(
            AuditRecord(
                at=event.at,
                kind=event.kind,
                message=event.message,
                service=event.service,
                incident=data.get("incident"),
                data=data,
            )
        )


def _to_json(document: Document, what: str) -> str:
    try:
        return json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(f"{what} is no JSON: {error}; use numbers, texts, lists and mappings only") from None
