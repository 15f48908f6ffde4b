"""Events as they happen, as server-sent events (HTML standard, section 9.2), resumable and bounded.

Event ids grow by one, so a gap in what a subscription yields is what a slow reader lost. A reader that
asks for an id that is no longer kept, or that this run never gave out, is told to begin anew (``reset``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from modules.contracts.events import Event, EventBus
from runtime.web.errors import RefusedError, error_response

KEEP_ALIVE_S = 15.0
MAX_SUBSCRIBERS = 100


class Subscribers:
    """How many streams are open, of how many that may be."""

    def __init__(self, limit: int = MAX_SUBSCRIBERS) -> None:
        self.limit = limit
        self.open = 0


class EventStream(StreamingResponse):
    """The answer that streams ``events``, first the kept ones above ``after``; 503 when too many listen already."""

    media_type = "text/event-stream"

    def __init__(
        self, events: EventBus, subscribers: Subscribers, *, after: int | None, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        # No proxy may hold events back: X-Accel-Buffering is nginx's word for it.
        super().__init__(
            server_sent(events, after=after, keep_alive_s=keep_alive_s), headers={"X-Accel-Buffering": "no"}
        )
        self._subscribers = subscribers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscribers = self._subscribers
        if subscribers.open >= subscribers.limit:
            refusal = RefusedError(
                503,
                "too_many_subscribers",
                f"{subscribers.open} readers listen already, the most that may; close one, or try again",
                headers={"Retry-After": "10"},
            )
            await error_response(refusal)(scope, receive, send)
            return
        subscribers.open += 1
        try:
            async with aclosing(cast("AsyncGenerator[str]", self.body_iterator)):  # however the reader leaves
                await super().__call__(scope, receive, send)
        finally:
            subscribers.open -= 1


async def server_sent(
    events: EventBus, *, after: int | None, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[str]:
    """Yield the text of the stream until the bus closes. ``after`` 0 means all that is kept, None only new ones."""
    yield "retry: 2000\n: connected\n\n"
    expected: int | None = None
    if after is not None:
        first, last = events.first_kept, _last_id(events)
        if after and not first - 1 <= after <= last:
            reason = "no longer kept" if after < first else "not of this run"
            why = f"event {after} is {reason}; events go on from {first}"
            yield _record("reset", {"message": why, "asked": after, "first": first}, id=first - 1)
            after = first - 1
        expected = max(after, first - 1) + 1
    async with aclosing(cast("AsyncGenerator[Event]", events.stream(after=after))) as stream:
        pending = asyncio.ensure_future(anext(stream, None))
        try:
            while True:
                await asyncio.wait({pending}, timeout=keep_alive_s)
                if not pending.done():
                    yield ": keep-alive\n\n"
                    continue
                event = pending.result()
                if event is None:
                    return
                if expected is not None and event.id > expected:
                    lost = event.id - expected
                    message = f"{lost} events were lost because this reader is too slow"
                    yield _record("lost", {"message": message, "lost": lost}, id=event.id - 1)
                expected = event.id + 1
                yield _record(event.kind, event.as_dict(), id=event.id)
                pending = asyncio.ensure_future(anext(stream, None))
        finally:
            pending.cancel()
            await asyncio.wait({pending})  # the stream cannot be closed while it is being read


def _last_id(events: EventBus) -> int:
    newest = events.recent(limit=1)
    return newest[-1].id if newest else events.first_kept - 1


def _record(kind: str, data: Mapping[str, Any], *, id: int) -> str:
    return f"id: {id}\nevent: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
