"""Which targets hear of which alert, and which routes are refused before anything starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backend.shared.monitoring.alert_routes import Routes
from backend.shared.monitoring.alert_settings import AlertSettings, RouteSettings
from modules.contracts.events import ComponentFailed, IncidentClosed, RepairGaveUp
from runtime.simulation.loop import virtual_time

PAGER, CHAT = ({"kind": "webhook", "url": "http://127.0.0.1/", "name": name} for name in ("pager", "chat"))


def route(**keys):
    return RouteSettings(**keys)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"severity": "page", "service": "shop-web"}, ("pager",)),
        ({"severity": "page", "service": "shop-db"}, ("pager",)),
        ({"severity": "ticket", "service": "shop-web"}, ("chat",)),
        ({"severity": "ticket", "service": "batch"}, ()),
        ({"severity": "page", "service": "api"}, ("pager", "chat")),
        ({"severity": "page"}, ("pager", "chat")),
        ({"severity": "ticket"}, ("pager", "chat")),
    ],
)
def test_the_first_route_that_matches_decides_and_without_one_all_are_told(labels, expected):
    routes = Routes(
        (
            route(severity=("page",), service=("shop-*",), targets=("pager",)),
            route(service=("shop-*",), targets=("chat",)),
            route(severity=("ticket",), service=("batch", "cron"), targets=()),
        ),
        ("pager", "chat"),
    )
    assert routes.targets(labels) == expected


@given(severity=st.sampled_from(["page", "ticket"]), service=st.text("ab", max_size=3))
def test_without_routes_every_target_hears_of_everything(severity, service):
    assert Routes((), ("a", "b")).targets({"severity": severity, "service": service}) == ("a", "b")


@virtual_time
async def test_each_target_hears_of_beginning_and_end_of_what_is_routed_to_it(new_desk, new_recorder):
    pager, chat = new_recorder("pager"), new_recorder("chat")
    routes = (route(severity=("page",), targets=("pager",)), route(severity=("ticket",), targets=("chat",)))
    async with new_desk(pager, chat, targets=(PAGER, CHAT), routes=routes) as desk:
        await desk.say(
            RepairGaveUp(service="api", incident="1", attempts=1, reason="none left"),
            ComponentFailed(component="monitor", detail="boom"),
        )
        await desk.say(IncidentClosed(service="api", incident="1", duration_s=1.0, actions=1))
        assert pager.told == ["firing", "resolved"]
        assert [notice.alert.key for _, _, notice in chat.sent] == ["component/monitor"]
        assert desk.status("component/monitor").targets == ("chat",)


@virtual_time
async def test_a_target_that_a_new_configuration_adds_hears_of_what_still_fires(new_desk, new_recorder, open_store):
    pager, chat = new_recorder("pager"), new_recorder("chat")
    gave_up = RepairGaveUp(service="api", incident="1", attempts=1, reason="none left")
    async with new_desk(pager, store=open_store()) as desk:
        await desk.say(gave_up)
    async with new_desk(pager, chat, store=open_store()) as again:
        await again.say()
        assert (pager.told, chat.told) == (["firing"], ["firing"])
    async with new_desk(chat, store=open_store()) as third:
        await third.say(IncidentClosed(service="api", incident="1", duration_s=1.0, actions=1))
        assert chat.told == ["firing", "resolved"]
    assert open_store().documents("alerts") == {}


@pytest.mark.parametrize(
    ("routes", "reason"),
    [
        ([{"targets": ["pagr"]}], r"routes\.0\.targets: no target is named 'pagr' \(did you mean 'pager'\?\)"),
        ([{"targets": ["pager"]}, {"targets": ["chat"]}], r"routes\.1 can never apply: routes\.0 matches every alert"),
        ([{"service": ["*"], "targets": []}, {"targets": ["chat"]}], r"routes\.1 can never apply"),
        ([{"severity": ["sms"], "targets": ["pager"]}], r"'page' or 'ticket'"),
        ([{"service": ["api"]}], r"routes\.0\.targets\n  Field required"),
    ],
)
def test_a_route_that_leads_nowhere_or_never_applies_is_refused(routes, reason):
    with pytest.raises(ValidationError, match=reason):
        AlertSettings.model_validate_json(__import__("json").dumps({"targets": [PAGER, CHAT], "routes": routes}))


def test_targets_of_one_name_are_routed_by_their_numbered_names():
    settings = AlertSettings(targets=(PAGER, PAGER), routes=({"targets": ("pager-2",)},))
    assert settings.routes[0].targets == ("pager-2",)


@pytest.mark.parametrize(
    ("silence", "reason"),
    [
        ({"matchers": {}, "start": "2027-01-01T00:00:00Z", "end": "2027-01-02T00:00:00Z"}, "needs at least one of"),
        ({"matchers": {"host": "x"}, "start": "2027-01-01T00:00:00Z", "end": "2027-01-02T00:00:00Z"}, "Extra inputs"),
        ({"matchers": {"service": "a"}, "start": "2027-01-02T00:00:00Z", "end": "2027-01-01T00:00:00Z"}, "before it"),
        (
            {"matchers": {"service": "a"}, "start": "2027-01-01T00:00:00", "end": "2027-01-02T00:00:00"},
            "with an offset",
        ),
    ],
)
def test_a_silence_of_nothing_of_an_unknown_label_or_of_no_time_is_refused(silence, reason):
    with pytest.raises(ValidationError, match=reason):
        AlertSettings(silences=(silence,))
