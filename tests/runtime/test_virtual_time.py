import asyncio

import pytest

from modules.contracts.clock import LoopClock
from runtime.simulation.loop import SimulationStalledError, run_in_virtual_time, virtual_time


@virtual_time
async def test_a_sleep_advances_the_clock_by_exactly_its_length():
    clock = LoopClock(epoch=1000.0)
    await clock.sleep(3600)
    assert clock.monotonic() == pytest.approx(3600)
    assert clock.time() == pytest.approx(4600)


@virtual_time
async def test_sleepers_wake_in_the_order_of_their_deadlines():
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(name)

    await asyncio.gather(sleeper("late", 20), sleeper("early", 10))
    assert woken == ["early", "late"]


@virtual_time
async def test_a_timeout_fires_in_virtual_time():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(86_400):
            await asyncio.sleep(90_000)


def test_waiting_for_what_never_comes_is_an_error_that_names_the_task():
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationStalledError, match="waits_for_ever"):
        run_in_virtual_time(waits_for_ever)
