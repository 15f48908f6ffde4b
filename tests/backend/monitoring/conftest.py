"""An alert manager at a desk: its bus, targets that remember, and a state file that can be opened again."""

import asyncio
import random

import pytest

from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alerts import AlertManager
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.events import EventBus


class Recorder:
    """A target that keeps what it was sent, with the time; ``faults`` are raised first, one a try."""

    def __init__(self, name="people", faults=(), hang_s=0.0):
        self.name = name
        self.faults = list(faults)
        self.hang_s = hang_s
        self.sent = []
        self.tries = []
        self.closed = 0

    async def send(self, notice):
        self.tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.hang_s)
        if self.faults:
            raise self.faults.pop(0)
        self.sent.append((self.tries[-1], "reminder" if notice.reminder else notice.alert.state.value, notice))

    async def close(self):
        self.closed += 1

    @property
    def told(self):
        return [status for _, status, _ in self.sent]


class Desk:
    """An alert manager with its bus, recorders and everything that was published."""

    def __init__(self, *targets, store=None, rng=None, **settings):
        self.clock = LoopClock()
        self.events = EventBus(self.clock)
        self.published = []
        self.events.listen(self.published.append)
        self.targets = targets or (Recorder(),)
        self.manager = AlertManager(
            AlertSettings(**settings),
            clock=self.clock,
            events=self.events,
            store=store,
            rng=rng or random.Random(7),
            targets=self.targets,
        )

    async def __aenter__(self):
        await self.manager.start()
        return self

    async def __aexit__(self, *_):
        await self.manager.stop()

    async def say(self, *events):
        for event in events:
            self.events.publish(event)
        await asyncio.sleep(0.001)

    def of(self, kind):
        return [event for event in self.published if isinstance(event, kind)]

    def status(self, key):
        return next(status for status in self.manager.alerts() if status.key == key)


@pytest.fixture
def new_recorder():
    return Recorder


@pytest.fixture
def new_desk():
    return Desk


@pytest.fixture
def open_store(tmp_path):
    stores = []

    def open_store():
        for store in stores:
            store.close()
        stores.append(SqliteStore(tmp_path / "state.db", clock=LoopClock()))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


class HandClock:
    """A clock that a test sets: ``steady`` and ``wall`` move apart when the wall clock is changed."""

    def __init__(self, wall=1_700_000_040.0):
        self.steady = 1000.0
        self.wall = wall

    def monotonic(self):
        return self.steady

    def time(self):
        return self.wall

    async def sleep(self, seconds):
        self.advance(seconds)

    def advance(self, seconds):
        self.steady += seconds
        self.wall += seconds


@pytest.fixture(scope="session")
def hand_clock():
    return HandClock
