"""What objectives count is kept each second, restored once, and not lost while the store fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.samples import SampleKeeper
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import ConfigurationError, StateError
from modules.contracts.events import ComponentFailed, EventBus
from runtime.simulation.loop import virtual_time

DAY = 86_400.0
Samples = Mapping[str, Mapping[float, tuple[int, int]]]


class MemorySamples:
    """Holds samples as a store does; raises ``fault`` while there is one."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[float, tuple[int, int]]] = {}
        self.writes = 0
        self.fault: Exception | None = None

    def add_samples(self, samples: Samples) -> None:
        self._check()
        self.writes += 1
        for objective, slots in samples.items():
            mine = self.kept.setdefault(objective, {})
            for start, (good, total) in slots.items():
                kept = mine.get(start, (0, 0))
                mine[start] = (kept[0] + good, kept[1] + total)

    def samples(self, objective: str, *, since: float) -> Mapping[float, tuple[int, int]]:
        self._check()
        return {start: counts for start, counts in self.kept.get(objective, {}).items() if start >= since}

    def total(self, objective: str) -> tuple[int, int]:
        slots = self.kept.get(objective, {}).values()
        return sum(good for good, _ in slots), sum(total for _, total in slots)

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


class Rig:
    """A keeper over one objective, in virtual time."""

    def __init__(self, store: MemorySamples) -> None:
        self.clock = LoopClock()
        self.events = EventBus(self.clock)
        self.store = store
        self.trackers = [self.objective("api")]
        self.keeper = SampleKeeper(lambda: self.trackers, store, clock=self.clock, events=self.events)  # type: ignore[arg-type]  only samples are asked for

    def objective(self, name: str) -> Objective:
        return Objective(name, objective=99, window_s=30 * DAY, clock=self.clock)

    def record(self, good: int, bad: int, tracker: int = 0) -> None:
        for _ in range(good):
            self.trackers[tracker].record(True)
        for _ in range(bad):
            self.trackers[tracker].record(False)

    def counted(self, tracker: int = 0) -> tuple[int, int]:
        report = self.trackers[tracker].report()
        return report.good, report.total

    def failures(self) -> list[str]:
        return [event.detail for event in self.events.recent() if isinstance(event, ComponentFailed)]


@virtual_time
async def test_samples_are_kept_within_a_second_and_nothing_is_written_without_any() -> None:
    rig = Rig(MemorySamples())
    await rig.keeper.start()
    rig.record(3, 1)
    await rig.clock.sleep(1.01)
    assert rig.store.total("api") == (3, 4)
    await rig.clock.sleep(10)
    assert rig.store.writes == 1
    await rig.keeper.stop()


@virtual_time
async def test_a_restart_continues_the_budget() -> None:
    first = Rig(MemorySamples())
    await first.keeper.start()
    for _ in range(5):
        first.record(9, 1)
        await first.clock.sleep(3600)
    first.record(1, 0)
    await first.keeper.stop()  # writes the last second
    await first.clock.sleep(60)

    second = Rig(first.store)
    await second.keeper.start()
    assert second.counted() == (46, 51)
    assert second.trackers[0].report().burn_rates["2h"] == pytest.approx(100 * 1 / 11)
    second.record(1, 0)
    await second.keeper.stop()
    assert second.store.total("api") == (47, 52)


@virtual_time
async def test_samples_older_than_the_window_are_not_restored() -> None:
    store = MemorySamples()
    rig = Rig(store)
    store.kept["api"] = {rig.clock.time() - 31 * DAY: (0, 100), rig.clock.time() - DAY: (7, 7)}
    await rig.keeper.start()
    assert rig.counted() == (7, 7)
    await rig.keeper.stop()


@virtual_time
async def test_a_failing_store_is_reported_once_and_its_samples_wait() -> None:
    rig = Rig(MemorySamples())
    await rig.keeper.start()
    rig.store.fault = StateError("the disk is full")
    for _ in range(10):
        rig.record(1, 1)
        await rig.clock.sleep(1)
    assert rig.keeper.status.state is ComponentState.DEGRADED
    assert len(rig.failures()) == 1
    assert "the disk is full" in rig.failures()[0]
    rig.store.fault = None
    await rig.clock.sleep(1.01)
    assert rig.store.total("api") == (10, 20)
    assert rig.keeper.status.state is ComponentState.RUNNING
    rig.store.fault = OSError("a second fault")
    rig.record(1, 0)
    await rig.clock.sleep(2)
    assert len(rig.failures()) == 2
    rig.store.fault = None
    await rig.keeper.stop()
    assert rig.store.total("api") == (11, 21)


@virtual_time
async def test_a_store_that_fails_at_the_start_is_restored_from_later_without_counting_twice() -> None:
    rig = Rig(MemorySamples())
    rig.store.kept["api"] = {rig.clock.time() - 120: (5, 5)}
    rig.store.fault = StateError("locked")
    await rig.keeper.start()
    rig.record(1, 1)
    await rig.clock.sleep(5)
    rig.store.fault = None
    await rig.clock.sleep(1.01)
    assert rig.counted() == (6, 7)
    assert rig.store.total("api") == (6, 7)
    await rig.keeper.stop()


@virtual_time
async def test_an_objective_that_comes_later_or_anew_is_restored() -> None:
    rig = Rig(MemorySamples())
    rig.store.kept["db"] = {rig.clock.time() - 120: (5, 6)}
    await rig.keeper.start()
    rig.trackers.append(rig.objective("db"))
    rig.record(1, 0, tracker=1)
    await rig.clock.sleep(1.01)
    assert rig.counted(1) == (6, 7)
    rig.trackers[1] = rig.objective("db")
    rig.record(0, 1, tracker=1)
    await rig.clock.sleep(1.01)
    assert rig.counted(1) == (6, 8)
    assert rig.store.total("db") == (6, 8)
    await rig.keeper.stop()


@virtual_time
async def test_a_store_that_fails_for_days_loses_no_event_and_takes_bounded_memory() -> None:
    rig = Rig(MemorySamples())
    keeper = SampleKeeper(lambda: rig.trackers, rig.store, clock=rig.clock, events=rig.events, every_s=60)  # type: ignore[arg-type]  as above
    await keeper.start()
    rig.store.fault = StateError("gone")
    for _ in range(4000):
        rig.record(1, 0)
        await rig.clock.sleep(60)
    rig.store.fault = None
    await rig.clock.sleep(61)
    assert rig.store.total("api") == (4000, 4000)
    assert len(rig.store.kept["api"]) <= 1440 + 4000 // 60 + 2
    await keeper.stop()


@virtual_time
async def test_stop_is_safe_without_start_and_twice_and_leaves_no_task() -> None:
    rig = Rig(MemorySamples())
    await rig.keeper.stop()
    await rig.keeper.start()
    await rig.keeper.start()
    assert len(asyncio.all_tasks()) == 2
    await rig.keeper.stop()
    await rig.keeper.stop()
    assert len(asyncio.all_tasks()) == 1
    assert rig.keeper.status.state is ComponentState.STOPPED


@pytest.mark.parametrize("every_s", [0, -1, float("nan")])
def test_an_interval_that_is_not_above_zero_is_refused(every_s: float) -> None:
    clock = LoopClock()
    with pytest.raises(ConfigurationError, match="every_s"):
        SampleKeeper(list, MemorySamples(), clock=clock, events=EventBus(clock), every_s=every_s)  # type: ignore[arg-type]  as above


@virtual_time
async def test_budgets_go_through_the_state_file(tmp_path) -> None:
    clock = LoopClock()
    for expected in (4, 8):
        store = SqliteStore(tmp_path / "state.db", clock=clock)
        tracker = Objective("api", objective=99, window_s=DAY, clock=clock)
        keeper = SampleKeeper(lambda tracker=tracker: [tracker], store, clock=clock, events=EventBus(clock))
        await keeper.start()
        for _ in range(4):
            tracker.record(False)
            await clock.sleep(45)
        await keeper.stop()
        store.close()
        assert tracker.report().total == expected
