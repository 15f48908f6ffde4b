"""Repairs that were asked for over the API: they outlive the request, never the server."""

from __future__ import annotations

import asyncio
from functools import partial

from modules.contracts.events import ComponentFailed
from modules.contracts.health import RepairReport
from runtime.parts import Parts
from runtime.web.errors import RefusedError


class RepairRequests:
    """At most one repair a service; a further request joins it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tasks: dict[str, asyncio.Task[RepairReport]] = {}
        self._unheard: set[str] = set()
        self._stopped = False

    async def run(self, name: str, reason: str, *, wait_s: float) -> RepairReport | None:
        """Repair a service and return the report, or None when it goes on after ``wait_s`` seconds.

        Raises what the repair raises. Leaving early, also by cancellation, does not end the repair; what it
        raises later is published as ComponentFailed.
        """
        if self._stopped:
            raise RefusedError(503, "stopping", "the runtime stops; nothing more is repaired")
        task = self._tasks.get(name)
        if task is None:
            task = asyncio.create_task(self._repair(name, reason), name=f"repair of {name}")
            self._tasks[name] = task
            task.add_done_callback(lambda _: self._tasks.pop(name))
        try:
            await asyncio.wait({task}, timeout=wait_s)
        finally:
            if not task.done() and name not in self._unheard:
                self._unheard.add(name)
                task.add_done_callback(partial(self._report, name))
        if not task.done():
            return None
        if task.cancelled():
            raise RefusedError(503, "stopping", f"the repair of {name} was ended because the runtime stops")
        return task.result()

    async def stop(self) -> None:
        """End all repairs that are under way."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _repair(self, name: str, reason: str) -> RepairReport:
        if self._parts.recovery is not None:
            return await self._parts.recovery.recover(name, reason)
        if self._parts.repair is not None:
            return await self._parts.repair.repair(name, reason)
        raise watching_only(name)

    def _report(self, name: str, task: asyncio.Task[RepairReport]) -> None:
        self._unheard.discard(name)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._parts.events.publish(ComponentFailed(service=name, component="repair", detail=f"{name}: {error}"))


def watching_only(what: str) -> RefusedError:
    """The refusal of a deployment that repairs nothing."""
    return RefusedError(
        409,
        "no_repair",
        f"{what} cannot be repaired: selfhealing=none only watches; start with selfhealing=v2",
        allowed=("selfhealing=v1", "selfhealing=v2"),
    )
