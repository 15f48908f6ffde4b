"""Burn-rate alerts in virtual time: pending, firing, resolved, and a page that makes its ticket needless."""

import asyncio

import pytest

from backend.shared.monitoring import alerts as alerts_module
from modules.contracts.alerts import AlertState
from modules.contracts.events import (
    AlertFired,
    AlertResolved,
    IncidentClosed,
    IncidentOpened,
    RepairGaveUp,
    SLOAlertChanged,
)
from runtime.simulation.loop import virtual_time


def burn(severity, state, window="1h", *, objective="checkout", service="shop", factor=14.4):
    summary = f"{objective} {severity} {window} {state}"
    return SLOAlertChanged(
        service=service,
        objective=objective,
        severity=severity,
        state=state,
        window=window,
        factor=factor,
        burn_rate=20.0,
        summary=summary,
    )


def news(recorder):
    return [(notice.alert.subject.severity, state) for _, state, notice in recorder.sent]


# --- states ---


@virtual_time
async def test_a_pending_burn_is_shown_and_told_to_nobody(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "pending"))
        status = desk.status("slo/checkout/page")
        assert (status.state, status.targets, status.told) == (AlertState.PENDING, (), ())
        assert desk.targets[0].told == []
        assert desk.of(AlertFired) == []
        assert desk.manager.firing == ()


@virtual_time
async def test_a_pending_burn_that_ends_leaves_no_trace(new_desk, open_store):
    store = open_store()
    async with new_desk(store=store) as desk:
        await desk.say(burn("page", "pending"))
        await desk.say(burn("page", "resolved"))
        assert desk.manager.alerts() == ()
        assert desk.of(AlertResolved) == []
        assert desk.targets[0].told == []
        assert store.documents("alerts") == {}


@virtual_time
async def test_a_burn_goes_from_pending_over_firing_to_resolved_with_the_time_of_each(new_desk):
    async with new_desk() as desk:
        started = desk.clock.time()
        await desk.say(burn("page", "pending"))
        await asyncio.sleep(30)
        await desk.say(burn("page", "firing"))
        status = desk.status("slo/checkout/page")
        assert (status.state, status.told, round(status.since - started)) == (AlertState.FIRING, ("people",), 30)
        await asyncio.sleep(60)
        await desk.say(burn("page", "resolved"))
        status = desk.status("slo/checkout/page")
        assert (status.state, status.told, round(status.since - started)) == (AlertState.RESOLVED, ("people",), 90)
        assert desk.targets[0].told == ["firing", "resolved"]
        assert [(e.service, e.alert, e.severity) for e in desk.of(AlertFired)] == [
            ("shop", "slo/checkout/page", "page")
        ]
        assert [e.alert for e in desk.of(AlertResolved)] == ["slo/checkout/page"]


@virtual_time
async def test_two_windows_of_one_severity_are_one_alert_that_ends_with_the_last(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing", "1h"))
        await desk.say(burn("page", "pending", "6h"))
        await desk.say(burn("page", "firing", "6h"))
        await desk.say(burn("page", "pending", "3h"))
        await desk.say(burn("page", "resolved", "1h"))
        assert desk.targets[0].told == ["firing"]
        await desk.say(burn("page", "resolved", "6h"))
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_two_rows_of_one_window_are_told_apart_by_their_factors(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing", factor=14.4), burn("page", "firing", factor=6.0))
        await desk.say(burn("page", "resolved", factor=14.4))
        assert desk.targets[0].told == ["firing"]
        await desk.say(burn("page", "resolved", factor=6.0))
        assert desk.targets[0].told == ["firing", "resolved"]


@virtual_time
async def test_after_a_restart_a_window_that_is_pending_keeps_the_alert_when_another_ceases(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        await desk.say(burn("page", "firing", "1h"))
    async with new_desk(store=open_store()) as again:
        await again.say(burn("page", "pending", "1h"), burn("page", "pending", "6h"))
        await again.say(burn("page", "resolved", "1h"))
        await again.say(burn("page", "firing", "6h"))
        assert again.targets[0].told == []
        await again.say(burn("page", "resolved", "6h"))
        assert again.targets[0].told == ["resolved"]


@virtual_time
async def test_an_end_that_names_no_known_window_ends_the_whole_alert(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing", "1h"), burn("page", "resolved", "all"))
        assert desk.manager.firing == ()


@virtual_time
async def test_an_open_incident_is_pending_until_repair_gives_up_on_it(new_desk):
    async with new_desk() as desk:
        await desk.say(IncidentOpened(service="api", incident="api-1", reason="no answer"))
        assert desk.status("api/api-1").state is AlertState.PENDING
        await desk.say(RepairGaveUp(service="api", incident="api-1", attempts=3, reason="ladder ended"))
        assert desk.status("api/api-1").state is AlertState.FIRING


@virtual_time
async def test_an_incident_that_repair_could_end_leaves_no_alert(new_desk):
    async with new_desk() as desk:
        await desk.say(IncidentOpened(service="api", incident="api-1", reason="no answer"))
        await desk.say(IncidentClosed(service="api", incident="api-1", duration_s=2.0, actions=1))
        assert desk.manager.alerts() == ()


# --- page over ticket ---


@virtual_time
async def test_while_a_page_fires_its_ticket_is_inhibited_and_told_when_only_the_page_resolves(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing"))
        await desk.say(burn("ticket", "firing", "1d"))
        ticket = desk.status("slo/checkout/ticket")
        assert (ticket.state, ticket.inhibited_by, ticket.told) == (AlertState.FIRING, ("slo/checkout/page",), ())
        assert news(desk.targets[0]) == [("page", "firing")]
        await desk.say(burn("page", "resolved"))
        assert news(desk.targets[0]) == [("page", "firing"), ("page", "resolved"), ("ticket", "firing")]
        ticket = desk.status("slo/checkout/ticket")
        assert (ticket.inhibited_by, ticket.told) == ((), ("people",))


@virtual_time
async def test_a_ticket_that_arrives_together_with_its_page_is_not_sent_whichever_comes_first(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("ticket", "firing", "1d"), burn("page", "firing"))
        assert news(desk.targets[0]) == [("page", "firing")]


@virtual_time
async def test_a_ticket_that_ends_together_with_its_page_is_never_sent(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing"), burn("ticket", "firing", "1d"))
        await desk.say(burn("page", "resolved"), burn("ticket", "resolved", "1d"))
        assert news(desk.targets[0]) == [("page", "firing"), ("page", "resolved")]
        assert {status.state for status in desk.manager.alerts()} == {AlertState.RESOLVED}


@virtual_time
async def test_a_ticket_that_was_told_before_its_page_is_not_repeated_meanwhile_nor_told_again_after(new_desk):
    async with new_desk(reminder_s=100) as desk:
        await desk.say(burn("ticket", "firing", "1d"))
        await asyncio.sleep(50)
        await desk.say(burn("page", "firing"))
        await asyncio.sleep(130)
        assert news(desk.targets[0]) == [("ticket", "firing"), ("page", "firing"), ("page", "reminder")]
        await desk.say(burn("page", "resolved"))
        assert news(desk.targets[0])[3:] == [("page", "resolved")]
        await asyncio.sleep(100)
        assert news(desk.targets[0])[4:] == [("ticket", "reminder")]


@virtual_time
async def test_the_end_of_a_ticket_that_was_told_is_told_even_while_its_page_fires(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("ticket", "firing", "1d"))
        await desk.say(burn("page", "firing"))
        await desk.say(burn("ticket", "resolved", "1d"))
        assert news(desk.targets[0]) == [("ticket", "firing"), ("page", "firing"), ("ticket", "resolved")]


@pytest.mark.parametrize("other", [{"objective": "search"}, {"severity": "page", "objective": "search"}])
@virtual_time
async def test_a_page_inhibits_the_ticket_of_its_own_objective_only(new_desk, other):
    async with new_desk() as desk:
        await desk.say(burn("page", "firing"))
        await desk.say(burn(**{"severity": "ticket", "state": "firing", **other}))
        assert len(desk.targets[0].sent) == 2


@virtual_time
async def test_a_page_that_is_only_pending_inhibits_nothing(new_desk):
    async with new_desk() as desk:
        await desk.say(burn("page", "pending"), burn("ticket", "firing", "1d"))
        assert news(desk.targets[0]) == [("ticket", "firing")]


# --- restarts ---


@virtual_time
async def test_a_restart_neither_pages_again_nor_sends_the_ticket_that_its_page_inhibits(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        await desk.say(burn("page", "firing"), burn("ticket", "firing", "1d"))
    async with new_desk(store=open_store()) as again:
        await again.say(burn("page", "pending"), burn("ticket", "pending", "1d"))
        await asyncio.sleep(2 * alerts_module.CONFIRM_S)
        await again.say(burn("page", "firing"), burn("ticket", "firing", "1d"))
        assert news(again.targets[0]) == []
        await again.say(burn("page", "resolved"))
        assert news(again.targets[0]) == [("page", "resolved"), ("ticket", "firing")]


@virtual_time
async def test_after_a_restart_only_the_windows_that_burn_in_this_run_hold_the_alert(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        await desk.say(burn("page", "firing", "1h"), burn("page", "firing", "6h"))
    async with new_desk(store=open_store()) as again:
        await again.say(burn("page", "firing", "6h"))
        await again.say(burn("page", "resolved", "6h"))
        assert news(again.targets[0]) == [("page", "resolved")]


@virtual_time
async def test_a_burn_that_ended_while_the_program_was_down_ends_when_it_is_not_seen_again(new_desk, open_store):
    async with new_desk(store=open_store()) as desk:
        await desk.say(burn("page", "firing"))
    async with new_desk(store=open_store()) as again:
        await asyncio.sleep(alerts_module.CONFIRM_S - 5)
        assert [alert.key for alert in again.manager.firing] == ["slo/checkout/page"]
        await asyncio.sleep(10)
        assert news(again.targets[0]) == [("page", "resolved")]
        assert "not seen again" in again.of(AlertResolved)[0].summary


# --- one key again and again ---


@virtual_time
async def test_what_fires_again_while_its_end_still_waits_is_told_after_that_end(new_desk, new_recorder):
    slow = new_recorder(hang_s=5)
    async with new_desk(slow, timeout_s=60) as desk:
        await desk.say(burn("page", "firing"))
        await asyncio.sleep(6)
        await desk.say(burn("page", "firing", objective="search"))
        await desk.say(burn("page", "resolved"))
        await desk.say(burn("page", "firing"))
        await asyncio.sleep(30)
        assert [(notice.alert.subject.objective, state) for _, state, notice in slow.sent] == [
            ("checkout", "firing"),
            ("search", "firing"),
            ("checkout", "resolved"),
            ("checkout", "firing"),
        ]


@virtual_time
async def test_an_end_that_is_still_to_be_told_is_not_forgotten_for_what_may_come_next(
    new_desk, new_recorder, open_store
):
    target = new_recorder()
    async with new_desk(target, store=open_store()) as desk:
        await desk.say(burn("page", "firing"))
        target.hang_s = 1e6
        await desk.say(burn("page", "resolved"))
        await desk.say(burn("page", "pending"))
        await desk.say(burn("page", "resolved"))
    target.hang_s = 0
    async with new_desk(target, store=open_store()) as again:
        await again.say()
        assert target.told == ["firing", "resolved"]


@virtual_time
async def test_what_is_only_pending_is_never_written_down_as_firing(new_desk, new_recorder, open_store):
    slow, store = new_recorder(hang_s=5), open_store()
    async with new_desk(slow, store=store, resolved=False) as desk:
        await desk.say(burn("page", "firing"))
        await desk.say(burn("page", "resolved"))
        await desk.say(burn("page", "pending"))
        await asyncio.sleep(10)
        assert slow.told == ["firing"]
        assert store.documents("alerts") == {}


@virtual_time
async def test_who_did_not_take_the_news_is_shown_and_a_reminder_that_fails_changes_nothing(new_desk, new_recorder):
    well, broken = new_recorder("well"), new_recorder("broken", faults=[OSError()])
    async with new_desk(well, broken, retries=0, reminder_s=100) as desk:
        await desk.say(burn("page", "firing"))
        status = desk.status("slo/checkout/page")
        assert (status.told, status.failed) == (("well",), ("broken",))
        well.faults.append(OSError())
        await asyncio.sleep(101)
        status = desk.status("slo/checkout/page")
        assert (status.told, status.failed) == (("well", "broken"), ())
        await desk.say(burn("page", "resolved"))
        status = desk.status("slo/checkout/page")
        assert (status.told, status.failed) == (("well", "broken"), ())
