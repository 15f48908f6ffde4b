"""Looks after the store while a deployment runs: a file that vanished is put back, a full disk is told, not hidden."""

from __future__ import annotations

import asyncio

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import StateError
from modules.contracts.events import ComponentFailed, EventBus
from modules.contracts.state import StateStore

CHECK_S = 5.0


class StateKeeper:
    """Checks ``store`` every few seconds, and closes it at the end. ``name`` is what it is called in its status."""

    def __init__(self, store: StateStore, name: str, *, clock: Clock, events: EventBus) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._events = events
        self._state = ComponentState.CREATED
        self._fault = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> ComponentStatus:
        if self._fault and self._state is ComponentState.RUNNING:
            return ComponentStatus(ComponentState.DEGRADED, self._fault)
        return ComponentStatus(self._state, self._name)

    async def start(self) -> None:
        self._state = ComponentState.RUNNING
        self._task = asyncio.create_task(self._watch(), name="state")

    async def stop(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._state = ComponentState.STOPPED
        self._store.close()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(CHECK_S)
            try:
                mended, fault = self._store.check(), ""
            except StateError as error:
                mended, fault = None, str(error)
            said = mended or (fault if fault != self._fault else "")
            self._fault = fault
            if said:
                self._events.publish(ComponentFailed(component="state", detail=said))
