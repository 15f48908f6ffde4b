"""Silences in virtual time: what they hold back, when they end, who may end them, and what a restart remembers."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.monitoring import silences as silences_module
from backend.shared.monitoring.alert_routes import matches
from backend.shared.monitoring.alert_settings import SilenceMatchers, SilenceSettings
from modules.contracts.alerts import UnknownSilenceError
from modules.contracts.errors import ConfigurationError, StateError
from modules.contracts.events import (
    AlertFailed,
    AlertFired,
    ComponentFailed,
    IncidentClosed,
    RepairGaveUp,
    SilenceChanged,
)
from runtime.simulation.loop import virtual_time

EPOCH = 1_700_000_000.0
"""Where a LoopClock begins."""


def gave_up(service="api", incident="1"):
    return RepairGaveUp(service=service, incident=incident, attempts=3, reason="ladder ended")


def closed(service="api", incident="1"):
    return IncidentClosed(service=service, incident=incident, duration_s=12.0, actions=1)


def configured(start_s, end_s, **matchers):
    return SilenceSettings(
        start=datetime.fromtimestamp(EPOCH + start_s, UTC),
        end=datetime.fromtimestamp(EPOCH + end_s, UTC),
        matchers=SilenceMatchers(**matchers),
        comment="deployment",
    )


def hush(desk, seconds=100, **matchers):
    now = desk.clock.time()
    matchers = matchers or {"service": "api"}
    return desk.manager.silence(matchers, starts_at=now, ends_at=now + seconds, comment="known")


# --- what is held back ---


@virtual_time
async def test_a_silenced_alert_is_known_and_counted_but_told_to_nobody_until_the_silence_ends_by_itself(new_desk):
    async with new_desk(silences=(configured(0, 100, service="api", severity="page"),)) as desk:
        await desk.say(gave_up())
        status = desk.status("api/1")
        assert (status.state.value, status.silenced_by, status.targets, status.told) == (
            "firing",
            ("configuration-1",),
            ("people",),
            (),
        )
        assert len(desk.of(AlertFired)) == 1
        await asyncio.sleep(99)
        assert desk.targets[0].told == []
        await asyncio.sleep(2)
        assert desk.targets[0].told == ["firing"]
        assert (desk.status("api/1").silenced_by, desk.status("api/1").told) == ((), ("people",))
        assert desk.manager.silences() == ()
        assert [(e.silence, e.action) for e in desk.of(SilenceChanged)] == [("configuration-1", "expired")]


@virtual_time
async def test_what_ends_within_a_silence_was_never_told(new_desk):
    async with new_desk() as desk:
        hush(desk)
        await desk.say(gave_up(), closed())
        await asyncio.sleep(200)
        assert desk.targets[0].told == []


@virtual_time
async def test_a_silence_that_begins_later_holds_nothing_back_before_it_begins(new_desk):
    async with new_desk(silences=(configured(50, 100, service="api"),)) as desk:
        await desk.say(gave_up())
        assert desk.targets[0].told == ["firing"]
        assert [one.id for one in desk.manager.silences()] == ["configuration-1"]
        assert desk.status("api/1").silenced_by == ()


@virtual_time
async def test_of_an_alert_that_was_told_a_silence_holds_back_the_reminders_and_not_the_end(new_desk):
    async with new_desk(reminder_s=30) as desk:
        await desk.say(gave_up())
        hush(desk, 100)
        await asyncio.sleep(95)
        assert desk.targets[0].told == ["firing"]
        await asyncio.sleep(30)
        assert desk.targets[0].told == ["firing", "reminder"]
        hush(desk, 100)
        await desk.say(closed())
        assert desk.targets[0].told == ["firing", "reminder", "resolved"]


@virtual_time
async def test_a_silence_stops_the_further_tries_of_a_message_and_its_end_sends_it_again(new_desk, new_recorder):
    target = new_recorder(faults=[OSError()])
    async with new_desk(target, retries=3) as desk:
        await desk.say(gave_up())
        hush(desk, 300)
        await asyncio.sleep(200)
        assert len(target.tries) == 1
        assert desk.of(AlertFailed) == []
        await asyncio.sleep(101)
        assert target.told == ["firing"]


@virtual_time
async def test_who_heard_of_no_beginning_hears_of_no_end(new_desk, new_recorder):
    quick, slow = new_recorder("quick"), new_recorder("slow", hang_s=20)
    async with new_desk(quick, slow, timeout_s=60) as desk:
        await desk.say(gave_up("db"), gave_up("api"))
        hush(desk)
        await desk.say(closed("api"))
        await asyncio.sleep(60)
        assert [notice.alert.key for _, _, notice in slow.sent] == ["db/1"]
        assert quick.told == ["firing", "firing", "resolved"]
        assert [status.key for status in desk.manager.alerts()] == ["db/1", "api/1"]


@virtual_time
async def test_only_what_every_matcher_matches_is_silenced(new_desk):
    async with new_desk() as desk:
        hush(desk, service="a*", severity="page")
        await desk.say(gave_up("api"), gave_up("db"), ComponentFailed(component="x", service="api", detail="boom"))
        assert [notice.alert.key for _, _, notice in desk.targets[0].sent] == ["db/1", "component/x"]


@virtual_time
async def test_two_silences_hold_an_alert_until_the_later_one_ends(new_desk):
    async with new_desk() as desk:
        first, second = hush(desk, 50), hush(desk, 100, severity="page")
        await desk.say(gave_up())
        assert set(desk.status("api/1").silenced_by) == {first.id, second.id}
        await asyncio.sleep(60)
        assert desk.targets[0].told == []
        await asyncio.sleep(41)
        assert desk.targets[0].told == ["firing"]


@virtual_time
async def test_a_wall_clock_that_jumps_over_the_end_of_a_silence_is_noticed_within_a_minute(new_desk):
    async with new_desk() as desk:
        hush(desk, 10_000)
        await desk.say(gave_up())
        desk.clock._epoch += 20_000
        await asyncio.sleep(silences_module.LOOK_S + 1)
        assert desk.targets[0].told == ["firing"]


@given(
    labels=st.dictionaries(st.sampled_from("abc"), st.text("xy", max_size=3)),
    patterns=st.dictionaries(st.sampled_from("abc"), st.text("xy", max_size=3)),
)
def test_patterns_without_wildcards_match_exactly_the_labels_that_equal_them(labels, patterns):
    assert matches(labels, patterns) == all(labels.get(name, "") == pattern for name, pattern in patterns.items())
    assert matches(labels, dict.fromkeys(patterns, "*"))


@virtual_time
async def test_the_rhythm_of_reminders_begins_when_people_are_told_first(new_desk):
    async with new_desk(reminder_s=60) as desk:
        hush(desk, 100)
        await desk.say(gave_up())
        await asyncio.sleep(200)
        assert [(round(at), state) for at, state, _ in desk.targets[0].sent] == [(100, "firing"), (160, "reminder")]


# --- by hand ---


@virtual_time
async def test_a_silence_that_is_ended_by_hand_tells_at_once_what_still_fires(new_desk):
    async with new_desk() as desk:
        silence = hush(desk)
        await desk.say(gave_up())
        desk.manager.end_silence(silence.id)
        await desk.say()
        assert desk.targets[0].told == ["firing"]
        assert [e.action for e in desk.of(SilenceChanged)] == ["created", "ended"]
        with pytest.raises(UnknownSilenceError, match=f"no silence has the id '{silence.id}'; there are: none"):
            desk.manager.end_silence(silence.id)


@virtual_time
async def test_a_configured_silence_is_ended_in_the_configuration_only(new_desk):
    async with new_desk(silences=(configured(0, 100, service="api"),)) as desk:
        with pytest.raises(ConfigurationError, match=r"written in the configuration.*alerts\.silences"):
            desk.manager.end_silence("configuration-1")
        assert len(desk.manager.silences()) == 1


@pytest.mark.parametrize(("start", "end"), [(0, -1), (0, 0), (50, 50), (-50, -1), (0, float("inf")), (0, float("nan"))])
@virtual_time
async def test_a_silence_whose_time_is_empty_over_or_endless_is_refused(new_desk, start, end):
    async with new_desk() as desk:
        now = desk.clock.time()
        with pytest.raises(ConfigurationError, match="give a later end"):
            desk.manager.silence({"service": "api"}, starts_at=now + start, ends_at=now + end, comment="")
        assert desk.manager.silences() == ()


@virtual_time
async def test_a_silence_of_nothing_and_one_too_many_are_refused(new_desk):
    async with new_desk() as desk:
        now = desk.clock.time()
        with pytest.raises(ConfigurationError, match="matches no label"):
            desk.manager.silence({}, starts_at=now, ends_at=now + 1, comment="")
        for _ in range(silences_module.SILENCES_MAX):
            hush(desk)
        with pytest.raises(ConfigurationError, match="1000 silences already"):
            hush(desk)


# --- restarts ---


@virtual_time
async def test_a_silence_by_hand_outlives_a_restart_and_a_seed_does_not_give_its_id_again(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        kept = hush(desk)
        await desk.say(gave_up())
    async with new_desk(store=open_store()) as again:
        await again.say()
        assert again.manager.silences() == (kept,)
        assert again.targets[0].told == []
        other = hush(again, 10)
        assert other.id != kept.id
        await asyncio.sleep(101)
        assert again.targets[0].told == ["firing"]
    assert open_store().documents("silences") == {}


@virtual_time
async def test_a_silence_that_ended_while_the_program_was_down_is_gone_after_it(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        hush(desk, 10)
        await desk.say(gave_up())
    await asyncio.sleep(20)
    async with new_desk(store=open_store()) as again:
        await again.say()
        assert again.targets[0].told == ["firing"]
        assert again.manager.silences() == ()
    assert open_store().documents("silences") == {}


@virtual_time
async def test_an_unreadable_silence_of_an_earlier_run_is_dropped_and_told(new_desk, open_store):
    store = open_store()
    store.put("silences", "odd", {"matchers": []})
    async with new_desk(store=store) as desk:
        assert desk.manager.silences() == ()
        assert "silence 'odd' of an earlier run cannot be read" in desk.of(ComponentFailed)[0].detail
    assert store.documents("silences") == {}


@virtual_time
async def test_a_silence_that_cannot_be_kept_is_not_made(new_desk, open_store):
    store = open_store()
    async with new_desk(store=store) as desk:
        store.close()
        with pytest.raises(StateError):
            hush(desk)
        assert desk.manager.silences() == ()
