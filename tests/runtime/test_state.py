from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import StateError
from modules.contracts.events import EventBus
from modules.local.state import MemoryStore
from runtime.simulation.loop import virtual_time
from runtime.state import CHECK_S, StateKeeper


class Full(MemoryStore):
    full = False

    def check(self):
        if self.full:
            raise StateError("disk full")


@virtual_time
async def test_a_store_that_cannot_be_written_is_told_once_and_shown_until_it_can_again():
    clock = LoopClock()
    events, store = EventBus(clock), Full()
    keeper = StateKeeper(store, "var/x.db", clock=clock, events=events)
    await keeper.start()
    store.full = True
    await clock.sleep(3 * CHECK_S)
    assert (keeper.status.state, keeper.status.detail) == (ComponentState.DEGRADED, "disk full")
    assert [event.detail for event in events.recent()] == ["disk full"]
    store.full = False
    await clock.sleep(2 * CHECK_S)
    assert keeper.status.state is ComponentState.RUNNING
    await keeper.stop()
    await keeper.stop()
