"""A program that is killed: what was told is not told again, and what may not have been told is told once more."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web

from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.errors import StateError
from modules.contracts.events import RepairGaveUp
from runtime.simulation.loop import virtual_time

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import asyncio, sys
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alerts import AlertManager
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import SystemClock
from modules.contracts.events import EventBus, RepairGaveUp

async def main():
    clock, events = SystemClock(), EventBus()
    store = SqliteStore(sys.argv[1], clock=clock)
    settings = AlertSettings(targets=({"kind": "webhook", "url": sys.argv[2]},))
    manager = AlertManager(settings, clock=clock, events=events, store=store)
    await manager.start()
    events.publish(RepairGaveUp(service="api", incident="api-1", attempts=3, reason="ladder ended"))
    while not any(alert.told for alert in manager.alerts()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # a second message would be on its way by now
    print("told", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


class DyingStore:
    """A store whose program is killed as soon as ``dead`` is set: nothing that is written later is kept."""

    def __init__(self, store):
        self.store = store
        self.dead = False

    def put(self, *arguments):
        if self.dead:
            raise StateError("killed")
        self.store.put(*arguments)

    def __getattr__(self, name):
        return getattr(self.store, name)


def gave_up():
    return RepairGaveUp(service="api", incident="api-1", attempts=3, reason="ladder ended")


@virtual_time
async def test_killed_between_sending_and_recording_it_sends_again_what_a_receiver_knows_by_its_fingerprint(
    new_desk, new_recorder, tmp_path
):
    store = DyingStore(SqliteStore(tmp_path / "state.db", clock=LoopClock()))
    target = new_recorder(hang_s=1)
    async with new_desk(target, store=store) as desk:
        await desk.say(gave_up())
        store.dead = True
        await asyncio.sleep(2)
        assert target.told == ["firing"]
    store.dead = False
    async with new_desk(target, store=store) as again:
        await again.say(gave_up())
        await asyncio.sleep(2)
        first, second = (notice.as_dict() for _, _, notice in target.sent)
    store.close()
    assert (first["fingerprint"], first["startsAt"]) == (second["fingerprint"], second["startsAt"])
    assert first == second


@virtual_time
async def test_who_may_have_heard_of_an_alert_is_written_down_before_the_first_try_and_not_earlier(
    new_desk, new_recorder, open_store
):
    target = new_recorder("b", hang_s=1e6)
    async with new_desk(target, store=open_store(), timeout_s=1e7) as desk:
        await desk.say(RepairGaveUp(service="db", incident="db-1", attempts=1, reason="blocks the lane"))
        await desk.say(gave_up())
    store = open_store()
    kept = store.documents("alerts")
    assert {key: document["reached"] for key, document in kept.items()} == {"db/db-1": ["b"], "api/api-1": []}


async def test_a_program_that_was_killed_after_its_page_was_taken_does_not_page_again(tmp_path):
    posts = []

    async def take(request):
        posts.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        for _ in range(2):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, str(tmp_path / "state.db"), url, stdout=asyncio.subprocess.PIPE, cwd=ROOT
            )
            try:
                async with asyncio.timeout(30):
                    assert await child.stdout.readline() == b"told\n"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGKILL)
                await child.communicate()
        assert [post["alert"] for post in posts] == ["api/api-1"]
    finally:
        await runner.cleanup()


@virtual_time
async def test_stopped_and_started_again_without_a_store_it_sends_what_was_not_delivered(new_desk, new_recorder):
    target = new_recorder(hang_s=1e6)
    desk = new_desk(target, timeout_s=1e7)
    async with desk:
        await desk.say(gave_up())
    target.hang_s = 0
    async with desk:
        await desk.say()
        assert target.told == ["firing"]


@pytest.mark.parametrize(
    "broken",
    [{}, {"subject": []}, {"subject": {"name": "x", "severity": "page"}, "summary": "", "starts_at": "now"}],
)
@virtual_time
async def test_a_broken_record_does_not_keep_the_others_from_being_read(new_desk, open_store, broken):
    async with new_desk(store=open_store()) as desk:
        await desk.say(gave_up())
    store = open_store()
    store.put("alerts", "a", broken)
    async with new_desk(store=store) as again:
        assert [alert.key for alert in again.manager.firing] == ["api/api-1"]
