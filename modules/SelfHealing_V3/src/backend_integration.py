"""SelfHealing V3: a live monitor and repairer seen read only, and their export for the move to V2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from modules.bridge import ReadOnlyView, detect_self_healing, resolve
from modules.contracts.clock import Clock
from modules.contracts.errors import SelfrightError
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthCheckResult, HealthMonitor
from modules.SelfHealing_V1.src import backend_integration as v1

__all__ = [
    "BACKEND_AVAILABLE",
    "BACKEND_ERROR",
    "NotCheckedError",
    "ReadOnlyAutoRepair",
    "ReadOnlyHealthMonitor",
    "get_auto_repair",
    "get_health_monitor",
]

BACKEND_AVAILABLE: bool = detect_self_healing().available
BACKEND_ERROR: str | None = detect_self_healing().error

_V2 = "modules.SelfHealing_V2.src.backend_integration"


class NotCheckedError(SelfrightError):
    """The live monitor has not checked the service yet, and a view does not do it."""


class ReadOnlyHealthMonitor(ReadOnlyView[HealthMonitor]):
    """Answers from what ``source`` knows; it neither probes nor counts."""

    __slots__ = ()

    def __init__(self, source: HealthMonitor) -> None:
        super().__init__(
            source,
            module="SelfHealing V3",
            reads=("services", "get_status", "get_options", "add_listener", "status"),
            instead=f"{_V2}.get_health_monitor()",
        )

    async def check_health(self, name: str) -> HealthCheckResult:
        """Return the last known result. Raises UnknownServiceError, or NotCheckedError before the first check."""
        last = self._source.get_status(name).last
        if last is None:
            raise NotCheckedError(
                f"{name!r} has not been checked yet, and a read-only view checks nothing;"
                f" wait for the live monitor, or use {_V2}.get_health_monitor().check_health()"
            )
        return last

    async def check_all(self) -> Mapping[str, HealthCheckResult]:
        """Return the last known result of every service that has one."""
        known = {name: self._source.get_status(name).last for name in self._source.services}
        return {name: last for name, last in known.items() if last is not None}

    def export(self) -> Mapping[str, Any]:
        """Return every service's options and status as JSON types: ``{"services": {name: {...}}}``."""
        return _as_json(
            {
                "services": {
                    name: {
                        "options": asdict(self._source.get_options(name)),
                        "status": asdict(self._source.get_status(name)),
                    }
                    for name in self._source.services
                }
            }
        )


class ReadOnlyAutoRepair(ReadOnlyView[AutoRepair]):
    """Shows the ladders of ``source`` and where they stand; it repairs nothing."""

    __slots__ = ()

    def __init__(self, source: AutoRepair) -> None:
        super().__init__(
            source,
            module="SelfHealing V3",
            reads=("services", "get_status", "get_options", "get_ladder", "status"),
            instead=f"{_V2}.get_auto_repair()",
        )

    def export(self) -> Mapping[str, Any]:
        """Return every service's ladder, options and status as JSON types: ``{"services": {name: {...}}}``."""
        return _as_json(
            {
                "services": {
                    name: {
                        "ladder": [
                            {
                                "kind": rung.action.kind,
                                "action": rung.action.describe,
                                "timeout_s": rung.timeout_s,
                                "attempts": rung.attempts,
                            }
                            for rung in self._source.get_ladder(name)
                        ],
                        "options": asdict(self._source.get_options(name)),
                        "status": asdict(self._source.get_status(name)),
                    }
                    for name in self._source.services
                }
            }
        )


def get_health_monitor(
    source: HealthMonitor | None = None,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
) -> ReadOnlyHealthMonitor:
    """Return a view of the live monitor ``source``; without one, of a V1 monitor that watches nothing."""
    served = resolve(use_backend, detect_self_healing(), "the health monitor")
    return ReadOnlyHealthMonitor(source or v1.get_health_monitor(served, clock=clock, events=events))


def get_auto_repair(
    source: AutoRepair | None = None,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
) -> ReadOnlyAutoRepair:
    """Return a view of the live repairer ``source``; without one, of a V1 repairer without ladders."""
    served = resolve(use_backend, detect_self_healing(), "automatic repair")
    return ReadOnlyAutoRepair(source or v1.get_auto_repair(None, served, clock=clock, events=events))


def _as_json(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(json.loads(json.dumps(value)))  # enums and tuples become what JSON knows
