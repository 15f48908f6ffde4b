"""Alerting in virtual time: what fires when, who is told how often, and what a restart remembers."""

import asyncio
import random
from datetime import datetime

import pytest

from backend.shared.monitoring import alert_lanes
from backend.shared.monitoring import alerts as alerts_module
from backend.shared.monitoring.alert_lanes import RETRY_S
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alert_targets import DeliveryError
from backend.shared.monitoring.alerts import AlertManager
from modules.contracts.component import ComponentState
from modules.contracts.errors import StateError
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    AlertResolved,
    ComponentFailed,
    IncidentClosed,
    IncidentOpened,
    RepairGaveUp,
    RepairSkipped,
)
from runtime.simulation.loop import virtual_time


def opened(service="api", incident="api-1"):
    return IncidentOpened(service=service, incident=incident, reason="no answer")


def gave_up(service="api", incident="api-1"):
    return RepairGaveUp(service=service, incident=incident, attempts=3, reason="ladder ended")


def closed(service="api", incident="api-1"):
    return IncidentClosed(service=service, incident=incident, duration_s=12.0, actions=1)


# --- when ---


@virtual_time
async def test_nobody_is_told_while_repair_still_tries(new_desk):
    async with new_desk() as desk:
        await desk.say(
            opened(), RepairSkipped(service="api", rule="cap", reason="too many", incident="api-1"), closed()
        )
        assert desk.targets[0].told == []
        assert desk.of(AlertFired) == desk.of(AlertResolved) == []


@virtual_time
async def test_the_alert_fires_when_repair_gives_up_and_resolves_when_the_incident_closes(new_desk):
    async with new_desk() as desk:
        await desk.say(opened(), gave_up())
        assert desk.targets[0].told == ["firing"]
        assert [alert.key for alert in desk.manager.firing] == ["api/api-1"]
        await desk.say(closed())
        assert desk.targets[0].told == ["firing", "resolved"]
        assert desk.manager.firing == ()
        assert [(e.service, e.alert, e.severity) for e in desk.of(AlertFired)] == [("api", "api/api-1", "page")]
        assert [(e.service, e.alert) for e in desk.of(AlertResolved)] == [("api", "api/api-1")]


@virtual_time
async def test_with_incident_the_alert_fires_at_once_and_giving_up_only_renews_its_summary(new_desk):
    async with new_desk(when="incident", reminder_s=60) as desk:
        await desk.say(opened())
        assert desk.targets[0].told == ["firing"]
        await desk.say(gave_up())
        assert desk.targets[0].told == ["firing"]
        await asyncio.sleep(60)
        assert "gave up on api" in desk.targets[0].sent[-1][2].alert.summary


@virtual_time
async def test_what_alerting_publishes_comes_after_the_event_that_caused_it(new_desk):
    async with new_desk() as desk:
        order = []
        desk.events.listen(lambda event: order.append(event.id))
        await desk.say(gave_up(), closed())
        assert order == sorted(order)
        assert len(order) == 4


@virtual_time
async def test_the_end_is_not_sent_when_that_was_not_asked_for(new_desk):
    async with new_desk(resolved=False) as desk:
        await desk.say(gave_up(), closed())
        assert desk.targets[0].told == ["firing"]
        assert len(desk.of(AlertResolved)) == 1


@virtual_time
async def test_a_failed_component_is_a_ticket_that_ends_after_a_quiet_hour(new_desk):
    async with new_desk(reminder_s=0) as desk:
        await desk.say(ComponentFailed(component="monitor", detail="boom"))
        await asyncio.sleep(3000)
        await desk.say(ComponentFailed(component="monitor", detail="boom again"))
        await asyncio.sleep(3590)
        (alert,) = desk.manager.firing
        assert (alert.key, alert.subject.severity) == ("component/monitor", "ticket")
        await asyncio.sleep(20)
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_its_own_failure_raises_no_alert(new_desk):
    async with new_desk() as desk:
        await desk.say(ComponentFailed(component="alerts", detail="disk full"))
        assert desk.manager.firing == ()


@virtual_time
async def test_a_new_incident_of_a_service_ends_the_alert_of_one_whose_end_was_not_seen(new_desk):
    async with new_desk() as desk:
        await desk.say(gave_up("api", "api-1"), ComponentFailed(component="probes", service="api", detail="boom"))
        await desk.say(opened("db", "db-1"))
        assert len(desk.manager.firing) == 2
        await desk.say(opened("api", "api-2"))
        assert [alert.key for alert in desk.manager.firing] == ["component/probes"]


# --- how often ---


@virtual_time
async def test_the_same_alert_is_told_once_however_often_it_is_raised(new_desk):
    async with new_desk() as desk:
        await desk.say(*[gave_up() for _ in range(5)])
        assert desk.targets[0].told == ["firing"]
        assert len(desk.of(AlertFired)) == 1
        assert desk.of(ComponentFailed) == []


@virtual_time
async def test_what_still_fires_is_repeated_every_reminder_interval_and_not_after_its_end(new_desk):
    async with new_desk(reminder_s=100) as desk:
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
async def test_what_has_ended_is_not_repeated_while_its_end_is_still_on_its_way(new_desk):
    async with new_desk(reminder_s=100, timeout_s=1000) as desk:
        await desk.say(gave_up())
        desk.targets[0].hang_s = 250
        await desk.say(closed())
        await asyncio.sleep(900)
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_what_a_slow_target_has_not_taken_yet_is_not_repeated_to_it(new_desk, new_recorder):
    slow = new_recorder(hang_s=150)
    async with new_desk(slow, reminder_s=100, timeout_s=1000) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(220)
        assert slow.tries == pytest.approx([0, 200], abs=0.1)


@virtual_time
async def test_without_an_interval_nothing_is_repeated(new_desk):
    async with new_desk(reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(1_000_000)
        assert desk.targets[0].told == ["firing"]


# --- delivery ---


@virtual_time
async def test_a_failed_delivery_is_tried_again_with_a_growing_random_wait(new_desk, new_recorder):
    rng = random.Random(3)
    expected = random.Random(3)
    target = new_recorder(faults=[DeliveryError("down")] * 3)
    async with new_desk(target, rng=rng, retries=3) as desk:
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
async def test_after_the_last_try_the_failure_is_told_without_secrets(new_desk, new_recorder):
    target = new_recorder(faults=[ValueError("https://hooks/secret")] * 3)
    async with new_desk(target, retries=2) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(30)
        (failed,) = desk.of(AlertFailed)
        assert (failed.service, failed.alert, failed.target) == ("api", "api/api-1", "people")
        assert failed.detail == "failed (ValueError); tried 3 times"
        assert "secret" not in repr(desk.published)


@virtual_time
async def test_a_target_that_hangs_is_ended_at_the_timeout_and_delays_no_other(new_desk, new_recorder):
    hanging, quick = new_recorder("hanging", hang_s=1e6), new_recorder("quick")
    async with new_desk(hanging, quick, retries=0, timeout_s=5) as desk:
        await desk.say(gave_up("api", "api-1"), gave_up("db", "db-1"))
        assert quick.told == ["firing", "firing"]
        await asyncio.sleep(20)
        assert hanging.tries == pytest.approx([0], abs=0.01)
        assert [event.detail for event in desk.of(AlertFailed)] == ["no answer within 5 s; tried once"]


@virtual_time
async def test_a_target_hears_of_the_beginning_before_the_end_even_when_it_is_slow(new_desk, new_recorder):
    slow = new_recorder(hang_s=3)
    async with new_desk(slow) as desk:
        await desk.say(gave_up(), closed())
        await asyncio.sleep(10)
        assert slow.told == ["firing", "resolved"]


@virtual_time
async def test_more_than_can_wait_for_a_target_is_refused_and_told(new_desk, new_recorder):
    hanging = new_recorder(hang_s=1e6)
    async with new_desk(hanging, retries=0, timeout_s=1000) as desk:
        await desk.say(gave_up("s", "s"))
        await desk.say(*[gave_up(f"s{n}", f"s{n}") for n in range(alert_lanes.WAITING_MAX + 2)])
        assert [event.alert for event in desk.of(AlertFailed)] == ["s1000/s1000", "s1001/s1001"]


@virtual_time
async def test_stop_delivers_what_is_on_its_way_and_waits_no_longer_than_its_bound(new_desk, new_recorder):
    slow, hanging = new_recorder("slow", hang_s=1), new_recorder("hanging", hang_s=1e6)
    desk = new_desk(slow, hanging, timeout_s=1000)
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
async def test_what_happens_just_before_the_stop_is_not_lost(new_desk):
    desk = new_desk()
    desk.manager = AlertManager(AlertSettings(), clock=desk.clock, events=desk.events)
    await desk.manager.start()
    desk.events.publish(gave_up())
    await desk.manager.stop()
    assert len(desk.of(AlertFired)) == 1


@virtual_time
async def test_stop_delivers_what_happened_just_before_it(new_desk):
    desk = new_desk()
    await desk.manager.start()
    desk.events.publish(gave_up())
    await desk.manager.stop()
    assert desk.targets[0].told == ["firing"]


@virtual_time
async def test_stop_is_safe_without_start_and_twice(new_desk):
    desk = new_desk()
    await desk.manager.stop()
    await desk.manager.start()
    await desk.manager.stop()
    await desk.manager.stop()
    assert desk.manager.status.state is ComponentState.STOPPED


@virtual_time
async def test_without_a_target_alerts_are_still_known_and_published(new_desk):
    desk = new_desk()
    desk.manager = AlertManager(AlertSettings(), clock=desk.clock, events=desk.events)
    async with desk:
        await desk.say(gave_up())
        assert len(desk.of(AlertFired)) == len(desk.manager.firing) == 1
        assert "nobody is told" in desk.manager.status.detail


# --- restarts ---


@virtual_time
async def test_a_restart_does_not_page_again_and_still_resolves(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        await desk.say(gave_up())
    async with new_desk(store=open_store()) as again:
        await again.say(opened(), gave_up())
        assert again.targets[0].told == []
        assert [alert.key for alert in again.manager.firing] == ["api/api-1"]
        await again.say(closed())
        assert again.targets[0].told == ["resolved"]
    async with new_desk(store=open_store()) as third:
        assert third.manager.firing == ()
        assert third.targets[0].told == []


@virtual_time
async def test_what_was_not_delivered_before_a_restart_is_delivered_after_it(new_desk, new_recorder, open_store):
    slow, quick = new_recorder("slow", hang_s=1e6), new_recorder("quick")
    async with new_desk(slow, quick, store=open_store()) as desk:
        await desk.say(gave_up())
    slow.hang_s = 0
    async with new_desk(slow, quick, store=open_store(), reminder_s=1) as again:
        await again.say()
        assert slow.told == ["firing"]
        assert quick.told == ["firing"]


@virtual_time
async def test_an_end_that_was_not_delivered_before_a_restart_is_delivered_after_it(new_desk, new_recorder, open_store):
    target = new_recorder()
    async with new_desk(target, store=open_store()) as desk:
        await desk.say(gave_up())
        target.hang_s = 1e6
        await desk.say(closed())
    target.hang_s = 0
    async with new_desk(target, store=open_store()) as again:
        await again.say()
        assert target.told == ["firing", "resolved"]
        assert again.manager.firing == ()
    assert open_store().documents("alerts") == {}


@virtual_time
async def test_reminders_go_on_in_their_rhythm_across_a_restart(new_desk, new_recorder, open_store):
    target = new_recorder()
    async with new_desk(target, store=open_store(), reminder_s=100) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(70)
    async with new_desk(target, store=open_store(), reminder_s=100):
        await asyncio.sleep(40)
        assert [(round(at), status) for at, status, _ in target.sent] == [(0, "firing"), (100, "reminder")]


@virtual_time
async def test_an_unreadable_alert_of_an_earlier_run_is_dropped_and_told(new_desk, open_store):
    store = open_store()
    store.put("alerts", "odd", {"summary": 3})
    async with new_desk(store=store) as desk:
        assert desk.manager.firing == ()
        assert "alert 'odd' of an earlier run cannot be read" in desk.of(ComponentFailed)[0].detail
    assert store.documents("alerts") == {}


@virtual_time
async def test_a_state_file_that_cannot_be_written_silences_no_alert(new_desk, open_store):
    store = open_store()
    async with new_desk(store=store) as desk:
        store.close()
        await desk.say(gave_up())
        assert desk.targets[0].told == ["firing"]
        assert "is closed" in desk.of(ComponentFailed)[0].detail


@virtual_time
async def test_a_start_that_cannot_read_its_state_leaves_nothing_behind(new_desk, open_store):
    store = open_store()
    store.close()
    desk = new_desk(store=store)
    with pytest.raises(StateError):
        await desk.manager.start()
    await desk.say(gave_up())
    assert desk.manager.firing == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_the_message_says_what_since_when_and_until_when(new_desk):
    async with new_desk() as desk:
        await desk.say(gave_up())
        await asyncio.sleep(90)
        await desk.say(closed())
        firing, resolved = (notice.as_dict() for _, _, notice in desk.targets[0].sent)
    assert firing == {
        "status": "firing",
        "reminder": False,
        "alert": "api/api-1",
        "service": "api",
        "objective": None,
        "incident": "api-1",
        "severity": "page",
        "summary": "gave up on api after 3 attempts: ladder ended",
        "startsAt": "2023-11-14T22:13:20.000Z",
        "endsAt": None,
        "fingerprint": firing["fingerprint"],
    }
    assert (resolved["status"], resolved["startsAt"]) == ("resolved", firing["startsAt"])
    lasted = datetime.fromisoformat(resolved["endsAt"]) - datetime.fromisoformat(resolved["startsAt"])
    assert lasted.total_seconds() == pytest.approx(90, abs=0.01)


@virtual_time
async def test_a_receiver_that_was_down_is_told_once_it_is_back_and_its_failure_is_said_once(new_desk, new_recorder):
    people = new_recorder(faults=[DeliveryError("refused")] * 5)
    async with new_desk(people, retries=2, reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(5 * RETRY_S)
        assert people.told == ["firing"]
        assert len(desk.of(AlertFailed)) == 1
        await desk.say(closed())
    assert people.told == ["firing", "resolved"]


@virtual_time
async def test_a_receiver_that_was_down_all_the_while_hears_of_the_beginning_and_the_end(new_desk, new_recorder):
    people = new_recorder(faults=[DeliveryError("refused")] * 4)
    async with new_desk(people, retries=2, reminder_s=0) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(10)
        await desk.say(closed())
        await asyncio.sleep(3 * RETRY_S)
    assert people.told == ["firing", "resolved"]


@virtual_time
async def test_what_was_not_delivered_is_tried_again_after_a_restart(new_desk, new_recorder, open_store):
    deaf = new_recorder(faults=[DeliveryError("refused")] * 3)
    async with new_desk(deaf, store=open_store(), retries=2) as desk:
        await desk.say(gave_up())
        await asyncio.sleep(20)
    people = new_recorder()
    async with new_desk(people, store=open_store()):
        await asyncio.sleep(1)
    assert people.told == ["firing"]
