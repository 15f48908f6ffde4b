"""What happened: the events as they come, and the audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from runtime.parts import Parts
from runtime.web.errors import documented
from runtime.web.models import AuditPage, AuditView
from runtime.web.stream import EventStream, Subscribers

After = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Only what is newer than this id.")]
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only what is older than this id.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Records a page.")]
LastEventId = Annotated[
    int | None,
    Header(ge=0, le=2**63 - 1, description="The last id that this reader has seen; goes before ``after``."),
]
Filter = Annotated[str | None, Query(max_length=200)]

_EVENT_STREAM = {
    "text/event-stream": {
        "schema": {"type": "string"},
        "example": 'id: 7\nevent: health_changed\ndata: {"kind":"health_changed","service":"api"}\n\n',
    }
}


def trail_routes(parts: Parts, subscribers: Subscribers) -> APIRouter:
    """Return /api/v1/events and /api/v1/audit."""
    router = APIRouter(prefix="/api/v1", tags=["trail"])

    @router.get(
        "/events",
        summary="Events as they happen",
        response_class=Response,
        responses={200: {"description": "A stream without end.", "content": _EVENT_STREAM}, **documented(422, 503)},
    )
    async def events(after: After = None, last_event_id: LastEventId = None) -> Response:
        """Server-sent events: ``id``, ``event`` (the kind) and ``data`` (JSON, as in a service's ``events``).

        Without an id only new events come; ``after=0`` begins with all that are kept in memory. A reader that
        comes back with its last id misses nothing, unless the first event is ``reset``: then that id is no
        longer kept, or is of another run, and the reader should fetch the status anew. ``lost`` says how many
        events a reader that is too slow has missed.
        """
        return EventStream(parts.events, subscribers, after=after if last_event_id is None else last_event_id)

    @router.get("/audit", summary="The audit trail", responses=documented(422, 503))
    async def audit(
        *,
        service: Filter = None,
        incident: Filter = None,
        kind: Filter = None,
        before: Before = None,
        after: After = None,
        limit: Limit = 100,
    ) -> AuditPage:
        """Every decision and act, newest first; oldest first when ``after`` is given, to follow the trail."""
        found = parts.store.audit(
            service=service, incident=incident, kind=kind, before=before, after=after, limit=limit + 1
        )
        page = found[:limit]
        return AuditPage(
            records=tuple(AuditView.model_validate(record, from_attributes=True) for record in page),
            next=page[-1].id if len(found) > limit else None,
        )

    return router
