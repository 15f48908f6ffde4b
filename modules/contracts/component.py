"""The life of everything that the runtime starts and stops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ComponentState(StrEnum):
    """Where a component is in its life."""

    CREATED = "created"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """What a component says of itself; ``detail`` is a sentence for a person."""

    state: ComponentState
    detail: str = ""


class Component(Protocol):
    """A part with a life.

    ``start`` either leaves the part running or raises with nothing left behind. ``stop`` is safe without
    a start, and twice, and returns only when all tasks, files and sockets of the part are gone.
    """

    @property
    def status(self) -> ComponentStatus: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
