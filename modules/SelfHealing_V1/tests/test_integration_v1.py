"""SelfHealing V1: what is shared when nothing is handed in."""

from __future__ import annotations

import pytest

from modules.bridge import ground_for
from modules.contracts.clock import LoopClock
from modules.contracts.events import EventBus
from modules.contracts.health import RepairContext, RepairOptions, ServiceOptions
from modules.contracts.slo import SLOStatus
from modules.SelfHealing_V1.src.backend_integration import get_auto_repair, get_health_monitor
from runtime.simulation.loop import virtual_time

BOTH = pytest.mark.parametrize("use_backend", [True, False])


async def well() -> bool:
    return True


@BOTH
@virtual_time
async def test_a_repairer_speaks_on_its_monitors_bus_and_clock_when_given_neither(use_backend: bool) -> None:
    clock = LoopClock()
    events = EventBus(clock)
    monitor = get_health_monitor(use_backend, clock=clock, events=events)
    repair = get_auto_repair(monitor, use_backend)

    async def mend(context: RepairContext) -> None: ...

    monitor.register_service("api", well, options=ServiceOptions(interval_s=1))
    repair.register_service("api", [mend], options=RepairOptions(healthy_delay_s=0))
    await repair.start()
    await monitor.start()
    await repair.repair("api")
    await monitor.stop()
    await repair.stop()
    kinds = [event.kind for event in events.recent()]
    assert kinds.count("incident_opened") == kinds.count("incident_closed") == 1


@BOTH
@virtual_time
async def test_two_monitors_that_are_given_no_bus_share_none(use_backend: bool) -> None:
    first, second = (get_health_monitor(use_backend, clock=LoopClock()) for _ in range(2))
    first.register_service("api", well)
    await first.check_health("api")
    told = [len(ground_for(monitor, None, None)[1].recent()) for monitor in (first, second)]
    assert told == [1, 0]


@BOTH
async def test_it_works_on_the_machines_clock_with_nothing_handed_in(use_backend: bool) -> None:
    monitor = get_health_monitor(use_backend)
    monitor.register_service("api", well)
    result = await monitor.check_health("api")
    assert result.healthy
    assert result.checked_at > 1_700_000_000


@BOTH
@virtual_time
async def test_v1_tracks_no_objective(use_backend: bool) -> None:
    monitor = get_health_monitor(use_backend, clock=LoopClock())
    monitor.register_service("api", well)
    result = await monitor.check_health("api")
    assert (result.slo_status, result.error_budget_remaining) == (SLOStatus.NO_DATA, None)
