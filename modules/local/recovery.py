"""Recovery without the backend: the same rules, given the local repairer's state and nothing kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modules.contracts.clock import Clock
from modules.contracts.component import ComponentStatus
from modules.contracts.health import AutoRepair, Decision, RepairReport, RepairStatus, ServiceHealth
from modules.contracts.recovery import MaintenanceWindow, RecoveryRules, Situation, decide
from modules.contracts.slo import SLOReport


@dataclass(frozen=True, slots=True)
class LocalRecoverySettings:
    """The defaults of the settings model, for where there is none."""

    repair_degraded_below: float = 0
    skip_backoff_below: float = 0


class LocalRecoveryManager:
    """The contract's RecoveryManager and RepairPolicy over an AutoRepair, which starts and stops with it."""

    def __init__(
        self,
        repair: AutoRepair,
        *,
        clock: Clock,
        settings: RecoveryRules | None = None,
        maintenance: Sequence[MaintenanceWindow] = (),
        budget: Callable[[str], SLOReport | None] = lambda name: None,
        steps: Callable[[str], Collection[str]] = lambda name: (),
    ) -> None:
        self._repair = repair
        self._clock = clock
        self._settings = settings or LocalRecoverySettings()
        self._maintenance = tuple(maintenance)
        self._budget = budget
        self._steps = steps
        repair.set_policy(self)

    def decide(self, health: ServiceHealth) -> Decision:
        """Ask the rules in turn; the first that has a say decides."""
        report = self._budget(health.name)
        left = report.error_budget_remaining if report else None
        steps = self._steps(health.name)
        return decide(Situation(health, self._clock.time(), left, self._settings, self._maintenance, steps))

    async def recover(self, name: str, reason: str = "asked for") -> RepairReport:
        return await self._repair.repair(name, reason)

    def get_status(self, name: str) -> RepairStatus:
        return self._repair.get_status(name)

    def export(self) -> Mapping[str, Any]:
        """Return settings and the state of every ladder as JSON types."""
        exported = {
            "settings": {
                "repair_degraded_below": self._settings.repair_degraded_below,
                "skip_backoff_below": self._settings.skip_backoff_below,
            },
            "services": {name: asdict(self._repair.get_status(name)) for name in self._repair.services},
        }
        return dict(json.loads(json.dumps(exported)))  # enums and tuples become what JSON knows

    @property
    def status(self) -> ComponentStatus:
        return self._repair.status

    async def start(self) -> None:
        await self._repair.start()

    async def stop(self) -> None:
        await self._repair.stop()
