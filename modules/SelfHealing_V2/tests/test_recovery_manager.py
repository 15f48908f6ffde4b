"""SelfHealing V2: the recovery manager looks at the error budget of its monitor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.shared.self_healing.recovery import RecoveryManager
from backend.shared.self_healing.settings import MaintenanceSettings, RecoverySettings
from modules.contracts.clock import LoopClock
from modules.contracts.events import EventBus
from modules.contracts.health import RepairContext, RepairOptions, ServiceOptions
from modules.local.recovery import LocalRecoveryManager
from modules.SelfHealing_V1.src import backend_integration as v1
from modules.SelfHealing_V2.src.backend_integration import (
    get_auto_repair,
    get_health_monitor,
    get_recovery_manager,
)
from runtime.simulation.loop import virtual_time

BOTH = pytest.mark.parametrize("use_backend", [True, False])


@dataclass
class Service:
    """A service that is alive, and ready or not, as it is told."""

    alive: bool = True
    ready: bool = True
    repaired: int = 0

    async def is_alive(self) -> bool:
        return self.alive

    async def is_ready(self) -> bool:
        return self.ready

    async def mend(self, context: RepairContext) -> None:
        self.repaired += 1
        self.alive = self.ready = True


def rules(events: EventBus) -> set[str]:
    return {event.as_dict()["rule"] for event in events.recent() if event.kind == "repair_skipped"}


async def run(
    service: Service, *, use_backend: bool, failed: int, seconds: float, maintenance: bool = False
) -> tuple[EventBus, Any]:
    """Let a service that was seen ready 100 times be seen broken ``failed`` times, and then heal it."""
    clock = LoopClock()
    events = EventBus(clock)
    now = datetime.fromtimestamp(clock.time(), UTC)
    windows = [MaintenanceSettings(start=now, end=now + timedelta(hours=1))] if maintenance else []
    monitor = get_health_monitor(1000, 90, 1, use_backend, clock=clock, events=events)
    repair = get_auto_repair(monitor, use_backend)
    settings = RecoverySettings(repair_degraded_below=50)
    manager = get_recovery_manager(monitor, repair, use_backend, settings=settings, maintenance=windows)
    monitor.register_service(
        "api", service.is_alive, readiness=service.is_ready, options=ServiceOptions(interval_s=10, fall=1, flap_high=0)
    )
    repair.register_service("api", [service.mend], options=RepairOptions(healthy_delay_s=0))
    alive, ready = service.alive, service.ready
    service.alive = service.ready = True
    for _ in range(100):
        await monitor.check_health("api")
    service.alive, service.ready = alive, ready
    for _ in range(failed):
        await monitor.check_health("api")
    await manager.start()
    await monitor.start()
    await asyncio.sleep(seconds)
    await monitor.stop()
    await manager.stop()
    return events, manager


@BOTH
@virtual_time
async def test_an_unhealthy_service_never_waits_for_its_budget(use_backend: bool) -> None:
    service = Service(alive=False)
    await run(service, use_backend=use_backend, failed=1, seconds=15)
    assert service.repaired == 1


@BOTH
@virtual_time
async def test_a_degraded_service_waits_while_half_of_its_budget_is_left(use_backend: bool) -> None:
    service = Service(ready=False)
    events, _ = await run(service, use_backend=use_backend, failed=1, seconds=15)
    assert service.repaired == 0
    assert rules(events) == {"degraded"}


@BOTH
@virtual_time
async def test_a_degraded_service_is_repaired_once_its_budget_runs_low(use_backend: bool) -> None:
    service = Service(ready=False)
    await run(service, use_backend=use_backend, failed=6, seconds=15)
    assert service.repaired == 1


@BOTH
@virtual_time
async def test_nothing_is_repaired_in_a_maintenance_window(use_backend: bool) -> None:
    service = Service(alive=False)
    events, manager = await run(service, use_backend=use_backend, failed=1, seconds=600, maintenance=True)
    assert service.repaired == 0
    assert rules(events) == {"maintenance"}
    assert "api" in manager.export()["services"]


@virtual_time
async def test_each_side_has_its_manager_and_a_local_repairer_is_driven_locally() -> None:
    assert isinstance(get_recovery_manager(use_backend=True, clock=LoopClock()), RecoveryManager)
    assert isinstance(get_recovery_manager(use_backend=False, clock=LoopClock()), LocalRecoveryManager)


@BOTH
@virtual_time
async def test_a_monitor_without_objectives_is_recovered_without_a_budget(use_backend: bool) -> None:
    clock = LoopClock()
    monitor = v1.get_health_monitor(use_backend, clock=clock)
    repair = get_auto_repair(monitor, use_backend)
    manager = get_recovery_manager(monitor, repair, use_backend)
    service = Service(alive=False)
    monitor.register_service("api", service.is_alive, options=ServiceOptions(interval_s=1, fall=1))
    repair.register_service("api", [service.mend], options=RepairOptions(healthy_delay_s=0))
    await manager.start()
    await monitor.start()
    await asyncio.sleep(10)
    assert service.repaired == 1
    await monitor.stop()
    await manager.stop()


@BOTH
@virtual_time
async def test_the_step_tighten_has_a_degraded_service_repaired_whatever_its_budget(use_backend: bool) -> None:
    clock = LoopClock()
    monitor = get_health_monitor(use_backend=use_backend, clock=clock)
    repair = get_auto_repair(monitor, use_backend)
    manager = get_recovery_manager(monitor, repair, use_backend, steps=lambda name: {"api": ["tighten"]}.get(name, []))
    services = {name: Service(ready=False) for name in ("api", "web")}
    for name, service in services.items():
        options = ServiceOptions(interval_s=1, fall=1)
        monitor.register_service(name, service.is_alive, readiness=service.is_ready, options=options)
        repair.register_service(name, [service.mend], options=RepairOptions(healthy_delay_s=0))
    await manager.start()
    await monitor.start()
    await asyncio.sleep(10)
    assert (services["api"].repaired, services["web"].repaired) == (1, 0)
    await monitor.stop()
    await manager.stop()
