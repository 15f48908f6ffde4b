from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from modules.contracts.health import HealthStatus, RepairContext, ServiceHealth
from modules.contracts.slo import SLOReport, SLOStatus
from modules.local.recovery import LocalRecoveryManager, LocalRecoverySettings
from runtime.simulation.loop import virtual_time

SICK = ServiceHealth("api", HealthStatus.UNHEALTHY, 0.0, False, None, (), (), False, False, 0, 3)


def budget(left: float | None) -> SLOReport:
    return SLOReport("api", 99.9, 3600, 0, 0, None, left, SLOStatus.MET)


@dataclass
class Window:
    services: tuple[str, ...]
    end: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def covers(self, service: str, now: float) -> bool:
        return service in self.services


@virtual_time
@pytest.mark.parametrize(
    ("health", "left", "expected"),
    [
        (SICK, 50, (True, "unhealthy", False)),
        (SICK, 5, (True, "unhealthy", True)),
        (SICK, None, (True, "unhealthy", False)),
        (replace(SICK, affected_by=("db",)), 50, (False, "affected", False)),
        (replace(SICK, status=HealthStatus.DEGRADED), 40, (True, "degraded", False)),
        (replace(SICK, status=HealthStatus.DEGRADED), 60, (False, "degraded", False)),
    ],
)
async def test_the_rules_are_given_health_and_budget(make_bench, health, left, expected):
    bench = make_bench()
    manager = LocalRecoveryManager(
        bench.repairer(),
        clock=bench.clock,
        settings=LocalRecoverySettings(repair_degraded_below=50, skip_backoff_below=10),
        budget=lambda name: budget(left),
    )
    decision = manager.decide(health)
    assert (decision.repair, decision.rule, decision.skip_backoff) == expected


@virtual_time
async def test_nothing_is_repaired_in_maintenance_of_its_service(make_bench):
    bench = make_bench()
    manager = LocalRecoveryManager(bench.repairer(), clock=bench.clock, maintenance=[Window(("api",))])
    assert manager.decide(SICK).rule == "maintenance"
    assert manager.decide(replace(SICK, name="web")).rule == "unhealthy"


@virtual_time
async def test_it_starts_the_repairer_with_its_own_policy_recovers_on_demand_and_exports_json(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    manager = LocalRecoveryManager(repairer, clock=bench.clock, maintenance=[Window(("api",))])
    bench.watch("api", fall=1)

    async def mend(context: RepairContext) -> None:
        bench.well["api"] = True

    repairer.register_service("api", [mend])
    await manager.start()
    bench.well["api"] = False
    await bench.monitor.check_health("api")
    assert [event.rule for event in bench.told("repair_skipped")] == ["maintenance"]
    assert (await manager.recover("api")).repaired
    exported = manager.export()
    assert json.loads(json.dumps(exported)) == exported
    assert exported["services"]["api"]["phase"] == manager.get_status("api").phase.value == "idle"
    await manager.stop()
