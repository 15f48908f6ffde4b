"""Alerting in virtual time: what fires when, who is told how often, and what a restart remembers."""

import asyncio
import random
from datetime import datetime

import pytest

from backend.shared.monitoring import alerts as alerts_module
from backend.shared.monitoring.alert_targets import DeliveryError
from backend.shared.monitoring.alerts import AlertManager
from backend.shared.self_healing.settings import AlertSettings
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import StateError
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    AlertResolved,
    ComponentFailed,
    EventBus,
    IncidentClosed,
    IncidentOpened,
    RepairGaveUp,
    RepairSkipped,
)
from runtime.simulation.loop import virtual_time


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
        self.sent.append((self.tries[-1], "reminder" if notice.reminder else notice.alert.state, notice))

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


def opened(service="api", incident="api-1"):
    return IncidentOpened(service=service, incident=incident, reason="no answer")


def gave_up(service="api", incident="api-1"):
    return RepairGaveUp(service=service, incident=incident, attempts=3, reason="ladder ended")


def closed(service="api", incident="api-1"):
    return IncidentClosed(service=service, incident=incident, duration_s=12.0, actions=1)


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


# --- when ---


@virtual_time
async def test_nobody_is_told_while_repair_still_tries():
    async with Desk() as desk:
        await desk.say(
            opened(), RepairSkipped(service="api", rule="cap", reason="too many", incident="api-1"), closed()
        )
        assert desk.targets[0].told == []
        assert desk.of(AlertFired) == desk.of(AlertResolved) == []


@virtual_time
async def test_the_alert_fires_when_repair_gives_up_and_resolves_when_the_incident_closes():
    async with Desk() as desk:
        await desk.say(opened(), gave_up())
        assert desk.targets[0].told == ["firing"]
        assert [alert.key for alert in desk.manager.firing] == ["api/api-1"]
        await desk.say(closed())
        assert desk.targets[0].told == ["firing", "resolved"]
        assert desk.manager.firing == ()
        assert [(e.service, e.alert, e.severity) for e in desk.of(AlertFired)] == [("api", "api/api-1", "page")]
        assert [(e.service, e.alert) for e in desk.of(AlertResolved)] == [("api", "api/api-1")]


@virtual_time
async def test_with_incident_the_alert_fires_at_once_and_giving_up_only_renews_its_summary():
    async with Desk(when="incident", reminder_s=60) as desk:
        await desk.say(opened())
        assert desk.targets[0].told == ["firing"]
        await desk.say(gave_up())
        assert desk.targets[0].told == ["firing"]
        await asyncio.sleep(60)
        assert "gave up on api" in desk.targets[0].sent[-1][2].alert.summary


@virtual_time
async def test_what_alerting_publishes_comes_after_the_event_that_caused_it():
    async with Desk() as desk:
        order = []
        desk.events.listen(lambda event: order.append(event.id))
        await desk.say(gave_up(), closed())
        assert order == sorted(order)
        assert len(order) == 4


@virtual_time
async def test_the_end_is_not_sent_when_that_was_not_asked_for():
    async with Desk(resolved=False) as desk:
        await desk.say(gave_up(), closed())
        assert desk.targets[0].told == ["firing"]
        assert len(desk.of(AlertResolved)) == 1


@virtual_time
async def test_a_failed_component_is_a_ticket_that_ends_after_a_quiet_hour():
    async with Desk(reminder_s=0) as desk:
        await desk.say(ComponentFailed(component="monitor", detail="boom"))
        await asyncio.sleep(3000)
        await desk.say(ComponentFailed(component="monitor", detail="boom again"))
        await asyncio.sleep(3590)
        (alert,) = desk.manager.firing
        assert (alert.key, alert.severity) == ("component/monitor", "ticket")
        await asyncio.sleep(20)
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_its_own_failure_raises_no_alert():
    async with Desk() as desk:
        await desk.say(ComponentFailed(component="alerts", detail="disk full"))
        assert desk.manager.firing == ()


@virtual_time
async def test_a_new_incident_of_a_service_ends_the_alert_of_one_whose_end_was_not_seen():
    async with Desk() as desk:
        await desk.say(gave_up("api", "api-1"), ComponentFailed(component="probes", service="api", detail="boom"))
        await desk.say(opened("db", "db-1"))
        assert len(desk.manager.firing) == 2
        await desk.say(opened("api", "api-2"))
        assert [alert.key for alert in desk.manager.firing] == ["component/probes"]


# --- how often ---


@virtual_time
async def test_the_same_alert_is_told_once_however_often_it_is_raised():
    async with Desk() as desk:
        await desk.say(*[gave_up() for _ in range(5)])
        assert desk.targets[0].told == ["firing"]
        assert len(desk.of(AlertFired)) == 1
        assert desk.of(ComponentFailed) == []


@virtual_time
async def test_what_still_fires_is_repeated_every_reminder_interval_and_not_after_its_end():
    async with Desk(reminder_s=100) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(350)
        assert [(round(at), status) for at, status, _ in desk.targets[0].sent] == [
            (0, "firing"),
            (100, "reminder"),
            (200, "reminder"),
            (300, "reminder"),
        ]
        await desk.say(closed())
        await asyncio.sleep(1000)
        assert desk.targets[0].told[4:] == ["resolved"]


@virtual_time
async def test_what_has_ended_is_not_repeated_while_its_end_is_still_on_its_way():
    async with Desk(reminder_s=100, timeout_s=1000) as desk:
        await desk.say(gave_up())
        desk.targets[0].hang_s = 250
        await desk.say(closed())
        await asyncio.sleep(900)
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_without_an_interval_nothing_is_repeated():
    async with Desk(reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(1_000_000)
        assert desk.targets[0].told == ["firing"]


# --- delivery ---


@virtual_time
async def test_a_failed_delivery_is_tried_again_with_a_growing_random_wait():
    rng = random.Random(3)
    expected = random.Random(3)
    target = Recorder(faults=[DeliveryError("down")] * 3)
    async with Desk(target, rng=rng, retries=3) as desk:
        await desk.say(gave_up())
        assert desk.manager.status.state is ComponentState.DEGRADED
        assert "people: down" in desk.manager.status.detail
        await asyncio.sleep(60)
        waits = [later - earlier for earlier, later in zip(target.tries, target.tries[1:], strict=False)]
        assert waits == pytest.approx([expected.uniform(0, bound) for bound in (1, 2, 4)], abs=1e-6)
        assert target.told == ["firing"]
        assert desk.of(AlertFailed) == []
        assert desk.manager.status.state is ComponentState.RUNNING


@virtual_time
async def test_after_the_last_try_the_failure_is_told_without_secrets():
    target = Recorder(faults=[ValueError("https://hooks/secret")] * 3)
    async with Desk(target, retries=2) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(60)
        (failed,) = desk.of(AlertFailed)
        assert (failed.service, failed.alert, failed.target) == ("api", "api/api-1", "people")
        assert failed.detail == "failed (ValueError); tried 3 times"
        assert "secret" not in repr(desk.published)
        await desk.say(closed())
        assert target.told == ["resolved"]


@virtual_time
async def test_a_target_that_hangs_is_ended_at_the_timeout_and_delays_no_other():
    hanging, quick = Recorder("hanging", hang_s=1e6), Recorder("quick")
    async with Desk(hanging, quick, retries=0, timeout_s=5) as desk:
        await desk.say(gave_up("api", "api-1"), gave_up("db", "db-1"))
        assert quick.told == ["firing", "firing"]
        await asyncio.sleep(20)
        assert hanging.tries == pytest.approx([0, 5], abs=0.01)
        assert [event.detail for event in desk.of(AlertFailed)] == ["no answer within 5 s; tried once"] * 2


@virtual_time
async def test_a_target_hears_of_the_beginning_before_the_end_even_when_it_is_slow():
    slow = Recorder(hang_s=3)
    async with Desk(slow) as desk:
        await desk.say(gave_up(), closed())
        await asyncio.sleep(10)
        assert slow.told == ["firing", "resolved"]


@virtual_time
async def test_more_than_can_wait_for_a_target_is_refused_and_told():
    hanging = Recorder(hang_s=1e6)
    async with Desk(hanging, retries=0, timeout_s=1000) as desk:
        await desk.say(gave_up("s", "s"))
        await desk.say(*[gave_up(f"s{n}", f"s{n}") for n in range(alerts_module.WAITING_MAX + 2)])
        assert [event.alert for event in desk.of(AlertFailed)] == ["s1000/s1000", "s1001/s1001"]


@virtual_time
async def test_stop_delivers_what_is_on_its_way_and_waits_no_longer_than_its_bound():
    slow, hanging = Recorder("slow", hang_s=1), Recorder("hanging", hang_s=1e6)
    desk = Desk(slow, hanging, timeout_s=1000)
    await desk.manager.start()
    desk.events.publish(gave_up())
    await desk.manager.stop()
    assert slow.told == ["firing"]
    assert asyncio.get_running_loop().time() == pytest.approx(alerts_module.FLUSH_S, abs=0.01)
    assert (slow.closed, hanging.closed) == (1, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    desk.events.publish(gave_up("db", "db-1"))
    await asyncio.sleep(1)
    assert slow.told == ["firing"]


@virtual_time
async def test_what_happens_just_before_the_stop_is_not_lost():
    desk = Desk()
    desk.manager = AlertManager(AlertSettings(), clock=desk.clock, events=desk.events)
    await desk.manager.start()
    desk.events.publish(gave_up())
    await desk.manager.stop()
    assert len(desk.of(AlertFired)) == 1


@virtual_time
async def test_stop_delivers_what_happened_just_before_it():
    desk = Desk()
    await desk.manager.start()
    desk.events.publish(gave_up())
    await desk.manager.stop()
    assert desk.targets[0].told == ["firing"]


@virtual_time
async def test_stop_is_safe_without_start_and_twice():
    desk = Desk()
    await desk.manager.stop()
    await desk.manager.start()
    await desk.manager.stop()
    await desk.manager.stop()
    assert desk.manager.status.state is ComponentState.STOPPED


@virtual_time
async def test_without_a_target_alerts_are_still_known_and_published():
    desk = Desk()
    desk.manager = AlertManager(AlertSettings(), clock=desk.clock, events=desk.events)
    async with desk:
        await desk.say(gave_up())
        assert len(desk.of(AlertFired)) == len(desk.manager.firing) == 1
        assert "nobody is told" in desk.manager.status.detail


# --- restarts ---


@virtual_time
async def test_a_restart_does_not_page_again_and_still_resolves(open_store):
    async with Desk(store=open_store()) as desk:
        await desk.say(gave_up())
    async with Desk(store=open_store()) as again:
        await again.say(opened(), gave_up())
        assert again.targets[0].told == []
        assert [alert.key for alert in again.manager.firing] == ["api/api-1"]
        await again.say(closed())
        assert again.targets[0].told == ["resolved"]
    async with Desk(store=open_store()) as third:
        assert third.manager.firing == ()
        assert third.targets[0].told == []


@virtual_time
async def test_what_was_not_delivered_before_a_restart_is_delivered_after_it(open_store):
    slow, quick = Recorder("slow", hang_s=1e6), Recorder("quick")
    async with Desk(slow, quick, store=open_store()) as desk:
        await desk.say(gave_up())
    slow.hang_s = 0
    async with Desk(slow, quick, store=open_store(), reminder_s=1) as again:
        await again.say()
        assert slow.told == ["firing"]
        assert quick.told == ["firing"]


@virtual_time
async def test_an_end_that_was_not_delivered_before_a_restart_is_delivered_after_it(open_store):
    target = Recorder()
    async with Desk(target, store=open_store()) as desk:
        await desk.say(gave_up())
        target.hang_s = 1e6
        await desk.say(closed())
    target.hang_s = 0
    async with Desk(target, store=open_store()) as again:
        await again.say()
        assert target.told == ["firing", "resolved"]
        assert again.manager.firing == ()
    assert open_store().documents("alerts") == {}


@virtual_time
async def test_reminders_go_on_in_their_rhythm_across_a_restart(open_store):
    target = Recorder()
    async with Desk(target, store=open_store(), reminder_s=100) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(70)
    async with Desk(target, store=open_store(), reminder_s=100):
        await asyncio.sleep(40)
        assert [(round(at), status) for at, status, _ in target.sent] == [(0, "firing"), (100, "reminder")]


@virtual_time
async def test_an_unreadable_alert_of_an_earlier_run_is_dropped_and_told(open_store):
    store = open_store()
    store.put("alerts", "odd", {"summary": 3})
    async with Desk(store=store) as desk:
        assert desk.manager.firing == ()
        assert "alert 'odd' of an earlier run cannot be read" in desk.of(ComponentFailed)[0].detail
    assert store.documents("alerts") == {}


@virtual_time
async def test_a_state_file_that_cannot_be_written_silences_no_alert(open_store):
    store = open_store()
    async with Desk(store=store) as desk:
        store.close()
        await desk.say(gave_up())
        assert desk.targets[0].told == ["firing"]
        assert "is closed" in desk.of(ComponentFailed)[0].detail


@virtual_time
async def test_a_start_that_cannot_read_its_state_leaves_nothing_behind(open_store):
    store = open_store()
    store.close()
    desk = Desk(store=store)
    with pytest.raises(StateError):
        await desk.manager.start()
    await desk.say(gave_up())
    assert desk.manager.firing == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_the_message_says_what_since_when_and_until_when():
    async with Desk() as desk:
        await desk.say(gave_up())
        await asyncio.sleep(90)
        await desk.say(closed())
        firing, resolved = (notice.as_dict() for _, _, notice in desk.targets[0].sent)
    assert firing == {
        "status": "firing",
        "reminder": False,
        "alert": "api/api-1",
        "service": "api",
        "incident": "api-1",
        "severity": "page",
        "summary": "gave up on api after 3 attempts: ladder ended",
        "startsAt": "2023-11-14T22:13:20.000Z",
        "endsAt": None,
    }
    assert (resolved["status"], resolved["startsAt"]) == ("resolved", firing["startsAt"])
    lasted = datetime.fromisoformat(resolved["endsAt"]) - datetime.fromisoformat(resolved["startsAt"])
    assert lasted.total_seconds() == pytest.approx(90, abs=0.01)


@virtual_time
async def test_a_receiver_that_was_down_is_told_once_it_is_back_and_its_failure_is_said_once():
    people = Recorder(faults=[DeliveryError("refused")] * 9)
    async with Desk(people, retries=2, reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(5 * alerts_module.RETRY_S)
        assert people.told == ["firing"]
        assert len(desk.of(AlertFailed)) == 1
        await desk.say(closed())
    assert people.told == ["firing", "resolved"]


@virtual_time
async def test_a_receiver_that_missed_the_whole_alert_is_told_only_how_it_ended():
    people = Recorder(faults=[DeliveryError("refused")] * 6)
    async with Desk(people, retries=2, reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(10)
        await desk.say(closed())
        await asyncio.sleep(3 * alerts_module.RETRY_S)
    assert people.told == ["resolved"]


@virtual_time
async def test_what_was_not_delivered_is_tried_again_after_a_restart(open_store):
    deaf = Recorder(faults=[DeliveryError("refused")] * 3)
    async with Desk(deaf, store=open_store(), retries=2) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(20)
    people = Recorder()
    async with Desk(people, store=open_store()):
        await asyncio.sleep(1)
    assert people.told == ["firing"]
