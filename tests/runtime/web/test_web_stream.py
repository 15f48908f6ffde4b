import asyncio
import json

from modules.contracts.clock import LoopClock
from modules.contracts.events import EventBus, RuntimeStateChanged
from runtime.simulation.loop import virtual_time
from runtime.web.stream import EventStream, Subscribers, server_sent


def happen(bus, count=1):
    for number in range(count):
        bus.publish(RuntimeStateChanged(current=f"running\n{number}"))


def read(text):
    """The ids, kinds and data of the records in a piece of a stream, comments left out."""
    records = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith((":", "retry")))
        if fields:
            records.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return records


async def collect(bus, *, after=None, during=lambda: None):
    """Everything that one reader gets until the bus closes; ``during`` happens once it listens."""
    pieces = []

    async def listen():
        async for piece in server_sent(bus, after=after):
            pieces.append(piece)

    reader = asyncio.create_task(listen())
    await asyncio.sleep(1)
    during()
    bus.close()
    await reader
    return read("".join(pieces))


@virtual_time
async def test_without_an_id_only_new_events_come():
    bus = EventBus(LoopClock(), first_id=100)
    happen(bus, 3)
    assert [id for id, _, _ in await collect(bus, during=lambda: happen(bus))] == [103]


@virtual_time
async def test_a_reader_that_comes_back_gets_what_it_missed_and_then_what_is_new():
    bus = EventBus(LoopClock(), first_id=100)
    happen(bus, 5)
    got = await collect(bus, after=102, during=lambda: happen(bus))
    assert [(id, kind) for id, kind, _ in got] == [(id, "runtime_state_changed") for id in (103, 104, 105)]


@virtual_time
async def test_zero_asks_for_all_that_is_kept():
    bus = EventBus(LoopClock(), first_id=100, history=2)
    happen(bus, 5)
    assert [id for id, _, _ in await collect(bus, after=0)] == [103, 104]


@virtual_time
async def test_a_reader_whose_id_is_no_longer_kept_is_told_to_begin_anew():
    bus = EventBus(LoopClock(), first_id=100, history=2)
    happen(bus, 5)
    (reset_id, kind, data), *events = await collect(bus, after=101)
    assert (reset_id, kind, data["asked"], data["first"]) == (102, "reset", 101, 103)
    assert [id for id, _, _ in events] == [103, 104]


@virtual_time
async def test_only_an_id_that_this_run_never_gave_out_makes_a_reader_begin_anew():
    resets = {}
    for asked in (50, 98, 99, 100, 101, 102, 500):
        bus = EventBus(LoopClock(), first_id=100)
        happen(bus, 2)
        resets[asked] = "reset" in [kind for _, kind, _ in await collect(bus, after=asked)]
    assert [asked for asked, reset in resets.items() if reset] == [50, 98, 102, 500]


@virtual_time
async def test_coming_back_after_a_reset_resets_no_more():
    bus = EventBus(LoopClock(), first_id=100)
    [(reset_id, _, _)] = await collect(bus, after=7)
    assert await collect(EventBus(LoopClock(), first_id=100), after=reset_id) == []


@virtual_time
async def test_a_reader_that_is_too_slow_loses_the_oldest_and_is_told_how_many():
    bus = EventBus(LoopClock(), first_id=1, history=2000)
    happen(bus)
    got = await collect(bus, after=0, during=lambda: happen(bus, 1501))
    (first, _, _), (lost_id, kind, data), *rest = got
    assert (first, lost_id, kind, data["lost"]) == (1, 503, "lost", 502), "2 to 503 had no room, the end took one place"
    assert [id for id, _, _ in rest] == list(range(504, 1503))


@virtual_time
async def test_a_silent_stream_is_kept_alive_by_a_comment_every_15_seconds():
    stream = server_sent(EventBus(LoopClock()), after=None)
    await anext(stream)
    before = asyncio.get_running_loop().time()
    assert [await anext(stream) for _ in range(4)] == [": keep-alive\n\n"] * 4
    assert asyncio.get_running_loop().time() - before == 60
    await stream.aclose()


async def respond(stream, sent, left):
    """Serve one reader, who stays until ``left`` is set."""

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}
    await stream(scope, receive, send)


@virtual_time
async def test_readers_are_bounded_and_one_that_leaves_makes_room_at_once():
    bus, subscribers = EventBus(LoopClock()), Subscribers(2)
    left = [asyncio.Event() for _ in range(4)]
    sent = [[] for _ in range(4)]

    def come(number):
        stream = EventStream(bus, subscribers, after=None)
        return asyncio.create_task(respond(stream, sent[number], left[number]))

    tasks = [come(0), come(1)]
    await asyncio.sleep(1)
    await asyncio.wait({come(2)}, timeout=1)
    assert (sent[2][0]["status"], subscribers.open) == (503, 2)
    left[0].set()
    await tasks[0]
    assert subscribers.open == 1
    tasks.append(come(3))
    await asyncio.sleep(1)
    assert (sent[3][0]["status"], subscribers.open) == (200, 2)
    bus.close()
    await asyncio.gather(*tasks)
    assert subscribers.open == 0


@virtual_time
async def test_a_reader_that_leaves_takes_its_subscription_along():
    bus, left = EventBus(LoopClock()), asyncio.Event()
    task = asyncio.create_task(respond(EventStream(bus, Subscribers(), after=None), [], left))
    await asyncio.sleep(1)
    assert len(bus._subscriptions) == 1
    left.set()
    await task
    assert bus._subscriptions == []
