"""The object graph of a deployment: started in dependency order, stopped in reverse.

A start that fails half-way stops what was started, in reverse, and raises the first error. A stop goes on
past a component that fails to stop: the others must not be left running for its sake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from modules.contracts.component import Component, ComponentState, ComponentStatus
from modules.contracts.errors import SelfrightError, did_you_mean

_log = logging.getLogger(__name__)


class GraphError(SelfrightError):
    """Components need what is not there, or each other in a circle."""


@dataclass(frozen=True, slots=True)
class _Node:
    component: Component
    requires: tuple[str, ...]


class Graph:
    """Named components and which others each requires to be running."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._started: list[str] = []

    def add(self, name: str, component: Component, *, requires: tuple[str, ...] = ()) -> None:
        """Add a component. ``requires`` may name components that are added later."""
        if name in self._nodes:
            raise GraphError(f"component {name!r} is there already; names in a graph are unique")
        self._nodes[name] = _Node(component, requires)

    @property
    def order(self) -> tuple[str, ...]:
        """Component names in start order. Raises GraphError."""
        for name, node in self._nodes.items():
            for other in node.requires:
                if other not in self._nodes:
                    raise GraphError(
                        f"{name} requires {other!r}, which is no component{did_you_mean(other, self._nodes)}"
                    )
        try:
            return tuple(TopologicalSorter({name: node.requires for name, node in self._nodes.items()}).static_order())
        except CycleError as error:
            raise GraphError(f"components require each other in a circle: {' -> '.join(error.args[1])}") from None

    @property
    def started(self) -> tuple[str, ...]:
        """What runs now, in the order in which it was started."""
        return tuple(self._started)

    def statuses(self) -> Mapping[str, ComponentStatus]:
        """Return each component's own word, in start order."""
        return {name: self._nodes[name].component.status for name in self.order}

    async def start(self) -> None:
        """Start everything; on any failure, also a cancellation, stop what was started and raise."""
        try:
            for name in self.order:
                if name not in self._started:
                    await self._nodes[name].component.start()
                    self._started.append(name)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what runs, in reverse. Safe without a start, and twice."""
        while self._started:
            name = self._started.pop()
            try:
                await self._nodes[name].component.stop()
            except Exception:  # the remaining components must still be stopped
                _log.exception("%s failed to stop", name)


class Hook:
    """A component made of two plain functions, for parts whose life is one call at each end."""

    def __init__(
        self,
        *,
        start: Callable[[], object] | None = None,
        stop: Callable[[], object] | None = None,
        detail: Callable[[], str] = str,
    ) -> None:
        self._on_start = start
        self._on_stop = stop
        self._detail = detail
        self._state = ComponentState.CREATED

    @property
    def status(self) -> ComponentStatus:
        return ComponentStatus(self._state, self._detail())

    async def start(self) -> None:
        if self._on_start:
            await _finish(self._on_start())
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        if self._state is ComponentState.RUNNING and self._on_stop:
            await _finish(self._on_stop())
        self._state = ComponentState.STOPPED


async def _finish(result: object) -> None:
    if asyncio.iscoroutine(result):
        await result
