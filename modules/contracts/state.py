"""State that outlives a restart: the audit trail, SLO samples, and small documents by namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Document = Mapping[str, Any]
"""JSON types only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision or act. ``id`` is set by the store and grows across restarts."""

    at: float
    kind: str
    message: str
    service: str | None = None
    incident: str | None = None
    data: Document = field(default_factory=dict)
    id: int = 0


class StateStore(Protocol):
    """Each call is durable against ``kill -9`` of the program when it returns. Raises StateError.

    Calls are short and synchronous: a rung must not begin before its record is written.
    """

    def append_audit(self, record: AuditRecord) -> int:
        """Write one record and return its id."""
        ...

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
        """Return records, newest first (oldest first when ``after`` is given)."""
        ...

    def put(self, namespace: str, key: str, document: Document) -> None:
        """Write or replace one document."""
        ...

    def get(self, namespace: str, key: str) -> Document | None: ...

    def documents(self, namespace: str) -> Mapping[str, Document]:
        """Return every document of a namespace by key."""
        ...

    def delete(self, namespace: str, key: str) -> None:
        """Remove a document; nothing happens when there is none."""
        ...

    def add_samples(self, samples: Mapping[str, Mapping[float, tuple[int, int]]]) -> None:
        """Add ``{objective: {slot start, unix seconds: (good, total)}}`` to what is kept, in one transaction."""
        ...

    def samples(self, objective: str, *, since: float) -> Mapping[float, tuple[int, int]]:
        """Return kept slots that begin at ``since`` or later. Old slots are merged into hours by the store."""
        ...

    def check(self) -> str | None:
        """See that what is written still lands where it is expected, and mend what can be mended.

        Returns a sentence when something was mended. Raises StateError when nothing can be written.
        """
        ...

    def close(self) -> None:
        """Write what is pending and close; safe twice."""
        ...
