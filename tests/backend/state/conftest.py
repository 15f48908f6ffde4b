"""A state file in a fresh folder, a wall clock that is set by hand, and stores that are closed again."""

import pytest

from backend.shared.state.sqlite import SqliteStore


class HandClock:
    """A clock that stands still until it is moved; it never sleeps."""

    def __init__(self):
        self.now = 1_795_000_000.0 - 1_795_000_000.0 % 3600

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "selfright.db"


@pytest.fixture
def open_store(path, clock):
    stores = []

    def open_store(where=path):
        stores.append(SqliteStore(where, clock=clock))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()
