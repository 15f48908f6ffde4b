"""SelfHealing V3: it looks and exports, and changes nothing."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from modules.contracts.clock import LoopClock
from modules.contracts.errors import ReadOnlyModuleError, UnknownServiceError
from modules.contracts.health import AutoRepair, HealthMonitor
from modules.SelfHealing_V1.src import backend_integration as v1
from modules.SelfHealing_V3.src.backend_integration import NotCheckedError, get_auto_repair, get_health_monitor
from runtime.simulation.loop import virtual_time

BOTH = pytest.mark.parametrize("use_backend", [True, False])
MONITOR_READS = {"services", "status", "get_status", "get_options", "check_health", "check_all", "add_listener"}
REPAIR_READS = {"services", "status", "get_status", "get_options", "get_ladder"}


class Service:
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    async def check(self) -> bool:
        self.looks += 1
        return True


def mutations(contract: type, reads: set[str]) -> list[str]:
    return [name for name, _ in inspect.getmembers(contract) if not name.startswith("_") and name not in reads]


def live(use_backend: bool) -> HealthMonitor:
    return v1.get_health_monitor(use_backend, clock=LoopClock())


@BOTH
@pytest.mark.parametrize("name", mutations(HealthMonitor, MONITOR_READS))
@virtual_time
async def test_every_mutating_call_of_a_monitor_is_refused_and_names_the_v2_call(name: str, use_backend: bool) -> None:
    view: Any = get_health_monitor(live(use_backend))
    with pytest.raises(ReadOnlyModuleError) as refused:
        getattr(view, name)("api")
    assert f"{name}()" in str(refused.value)
    assert f"modules.SelfHealing_V2.src.backend_integration.get_health_monitor().{name}()" in str(refused.value)


@BOTH
@pytest.mark.parametrize("name", mutations(AutoRepair, REPAIR_READS))
@virtual_time
async def test_every_mutating_call_of_a_repairer_is_refused_and_names_the_v2_call(name: str, use_backend: bool) -> None:
    view: Any = get_auto_repair(v1.get_auto_repair(live(use_backend), use_backend))
    with pytest.raises(ReadOnlyModuleError) as refused:
        getattr(view, name)("api")
    assert f"modules.SelfHealing_V2.src.backend_integration.get_auto_repair().{name}()" in str(refused.value)


def test_the_calls_that_change_something_are_the_ones_meant() -> None:
    assert mutations(HealthMonitor, MONITOR_READS) == [
        "expect_restart",
        "pause",
        "register_service",
        "resume",
        "start",
        "stop",
        "unregister_service",
    ]
    assert mutations(AutoRepair, REPAIR_READS) == [
        "pause",
        "register_service",
        "repair",
        "resume",
        "set_policy",
        "start",
        "stop",
    ]


@BOTH
@virtual_time
async def test_a_check_through_the_view_answers_from_memory_and_does_not_look(use_backend: bool) -> None:
    source, service = live(use_backend), Service()
    source.register_service("api", service.check)
    view = get_health_monitor(source)
    with pytest.raises(NotCheckedError, match="'api' has not been checked yet"):
        await view.check_health("api")
    assert await view.check_all() == {}
    known = await source.check_health("api")
    await asyncio.sleep(60)
    assert await view.check_health("api") == known
    assert await view.check_all() == {"api": known}
    assert service.looks == 1
    with pytest.raises(UnknownServiceError, match="did you mean 'api'"):
        await view.check_health("apo")


@BOTH
@virtual_time
async def test_the_view_follows_the_live_monitor(use_backend: bool) -> None:
    source, service = live(use_backend), Service()
    view: Any = get_health_monitor(source)
    heard: list[object] = []
    view.add_listener(heard.append)
    source.register_service("api", service.check)
    result = await source.check_health("api")
    assert (view.services, heard) == (("api",), [result])


@BOTH
@virtual_time
async def test_without_a_source_there_is_nothing_to_see(use_backend: bool) -> None:
    view = get_health_monitor(use_backend=use_backend, clock=LoopClock())
    assert view.services == ()
    assert view.export() == get_auto_repair(use_backend=use_backend).export() == {"services": {}}
