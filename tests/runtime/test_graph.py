import asyncio

import pytest

from modules.contracts.component import ComponentState, ComponentStatus
from runtime.graph import Graph, GraphError, Hook
from runtime.simulation.loop import virtual_time


class Part:
    def __init__(self, name, diary, *, fails=False, fails_to_stop=False):
        self.name, self.diary, self.fails, self.fails_to_stop = name, diary, fails, fails_to_stop

    @property
    def status(self):
        return ComponentStatus(ComponentState.RUNNING)

    async def start(self):
        if self.fails:
            raise OSError(f"{self.name} cannot start")
        self.diary.append(f"+{self.name}")

    async def stop(self):
        self.diary.append(f"-{self.name}")
        if self.fails_to_stop:
            raise OSError(f"{self.name} cannot stop")


def build(diary, **broken):
    graph = Graph()
    for name, requires in (("web", ("monitor",)), ("monitor", ("store",)), ("store", ())):
        graph.add(name, Part(name, diary, **broken.get(name, {})), requires=requires)
    return graph


@virtual_time
async def test_components_start_after_what_they_require_and_stop_in_reverse():
    diary = []
    graph = build(diary)
    await graph.start()
    await graph.stop()
    assert diary == ["+store", "+monitor", "+web", "-web", "-monitor", "-store"]


@virtual_time
async def test_a_start_that_fails_half_way_stops_what_was_started_and_tells_the_cause():
    diary = []
    graph = build(diary, web={"fails": True})
    with pytest.raises(OSError, match="web cannot start"):
        await graph.start()
    assert diary == ["+store", "+monitor", "-monitor", "-store"]


@virtual_time
async def test_a_start_that_is_cancelled_stops_what_was_started():
    diary = []
    graph = build(diary)
    graph.add("slow", Hook(start=lambda: asyncio.sleep(60)), requires=("web",))
    starting = asyncio.create_task(graph.start())
    await asyncio.sleep(1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary[-3:] == ["-web", "-monitor", "-store"]


@virtual_time
async def test_a_component_that_fails_to_stop_does_not_keep_the_others_running():
    diary = []
    graph = build(diary, web={"fails_to_stop": True})
    await graph.start()
    await graph.stop()
    assert diary[-3:] == ["-web", "-monitor", "-store"]


@virtual_time
async def test_stopping_without_a_start_and_twice_does_nothing():
    diary = []
    graph = build(diary)
    await graph.stop()
    await graph.start()
    await graph.stop()
    await graph.stop()
    assert diary.count("-store") == 1


def test_a_requirement_that_is_not_there_is_named_with_the_nearest():
    graph = Graph()
    graph.add("store", Hook())
    graph.add("web", Hook(), requires=("stor",))
    with pytest.raises(GraphError, match=r"web requires 'stor', which is no component \(did you mean 'store'"):
        _ = graph.order


def test_a_circle_of_requirements_is_refused():
    graph = Graph()
    graph.add("a", Hook(), requires=("b",))
    graph.add("b", Hook(), requires=("a",))
    with pytest.raises(GraphError, match="circle"):
        _ = graph.order
