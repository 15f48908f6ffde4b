"""Decides whether a service is to be repaired, from its health, its dependencies and its error budget.

The rules themselves are in ``modules.contracts.recovery``; here they are given what they ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from backend.shared.self_healing.settings import MaintenanceSettings, RecoverySettings
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.events import ComponentFailed, EventBus
from modules.contracts.health import (
    AutoRepair,
    Decision,
    HealthMonitor,
    RepairPhase,
    RepairReport,
    RepairStatus,
    ServiceHealth,
)
from modules.contracts.recovery import Situation, decide
from modules.contracts.slo import SLOReport


class RecoveryManager:
    """The full implementation of ``RecoveryManager`` and ``RepairPolicy``; also a Component.

    It becomes the policy of ``repair``, which it starts and stops. ``budget`` returns a service's SLO report or
    None, ``steps`` the steps of the error budget policy that are in force for it; ``maintenance`` holds the times in
    which nothing is repaired.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        repair: AutoRepair,
        *,
        clock: Clock,
        events: EventBus,
        settings: RecoverySettings | None = None,
        maintenance: Sequence[MaintenanceSettings] = (),
        budget: Callable[[str], SLOReport | None] = lambda name: None,
        steps: Callable[[str], Collection[str]] = lambda name: (),
    ) -> None:
        self._monitor = monitor
        self._repair = repair
        self._clock = clock
        self._events = events
        self._settings = settings or RecoverySettings()
        self._maintenance = tuple(maintenance)
        self._budget = budget
        self._steps = steps
        self._faults: dict[tuple[str, str], str] = {}
        self._state = ComponentState.CREATED
        repair.set_policy(self)

    def decide(self, health: ServiceHealth) -> Decision:
        """Ask the rules in turn; the first that has a say decides."""
        left, steps = self._budget_left(health.name), self._steps_in_force(health.name)
        return decide(Situation(health, self._clock.time(), left, self._settings, self._maintenance, steps))

    async def recover(self, name: str, reason: str = "asked for") -> RepairReport:
        """Repair a service now, whatever the rules say; the caps hold. Raises what ``AutoRepair.repair`` raises."""
        return await self._repair.repair(name, reason)

    def get_status(self, name: str) -> RepairStatus:
        """Return a service's repair as it stands. Raises UnknownServiceError."""
        return self._repair.get_status(name)

    def export(self) -> Mapping[str, Any]:
        """Return settings, every service's repair, and the open incidents as JSON types."""
        services = {name: _as_json(self._repair.get_status(name)) for name in self._repair.services}
        return {
            "settings": self._settings.model_dump(mode="json"),
            "maintenance": [window.model_dump(mode="json") for window in self._maintenance],
            "services": {
                name: {
                    "status": self._monitor.get_status(name).status.value if name in self._monitor.services else None,
                    "error_budget_remaining": self._budget_left(name),
                    "budget_steps": list(self._steps_in_force(name)),
                    "repair": repair,
                }
                for name, repair in services.items()
            },
            "open_incidents": [repair for repair in services.values() if repair["phase"] != RepairPhase.IDLE.value],
        }

    @property
    def status(self) -> ComponentStatus:
        phases = [self._repair.get_status(name).phase for name in self._repair.services]
        incidents = sum(phase is not RepairPhase.IDLE for phase in phases)
        return ComponentStatus(self._state, f"{len(phases)} services, {incidents} open incidents")

    async def start(self) -> None:
        """Start the repairs."""
        await self._repair.start()
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        """Stop the repairs. Safe without a start, and twice."""
        await self._repair.stop()
        self._state = ComponentState.STOPPED

    def _budget_left(self, name: str) -> float | None:
        """The percentage of the error budget that is left; a report that cannot be made is one without data."""
        try:
            report = self._budget(name)
        except Exception as error:  # repairs must go on without it
            self._tell("the error budget", name, error)
            return None
        return report.error_budget_remaining if report else None

    def _steps_in_force(self, name: str) -> Collection[str]:
        """The steps of the error budget policy; none when they cannot be read."""
        try:
            return self._steps(name)
        except Exception as error:  # repairs must go on without them
            self._tell("the error budget policy", name, error)
            return ()

    def _tell(self, what: str, name: str, error: Exception) -> None:
        fault = f"{what} of {name} cannot be read: {type(error).__name__}: {error}"
        if self._faults.get((what, name)) != fault:
            self._faults[what, name] = fault
            self._events.publish(ComponentFailed(component="recovery", service=name, detail=fault))


def _as_json(status: RepairStatus) -> dict[str, Any]:
    return {**asdict(status), "phase": status.phase.value, "rungs": list(status.rungs)}
