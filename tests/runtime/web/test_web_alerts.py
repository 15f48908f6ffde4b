"""Alerts and silences through the admin API, over a real alert manager and without a socket."""

import asyncio
import time

import pytest

from modules.contracts.clock import SystemClock
from modules.contracts.errors import StateError
from modules.contracts.events import RepairGaveUp, SLOAlertChanged
from modules.local.state import MemoryStore
from modules.Monitoring_V2.src.backend_integration import get_alert_manager
from modules.settings import AlertSettings


@pytest.fixture
async def alerting(make_parts):
    """Parts with a running alert manager that has no target and one configured silence, of the service ``store``."""
    parts = make_parts()
    settings = AlertSettings.model_validate_json(
        '{"silences": [{"matchers": {"service": "store"}, "comment": "moves",'
        ' "start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}]}'
    )
    parts.alerts = get_alert_manager(settings, clock=SystemClock(), events=parts.events, store=parts.store)
    await parts.alerts.start()
    yield parts
    await parts.alerts.stop()


async def say(parts, *events):
    for event in events:
        parts.events.publish(event)
    for _ in range(5):
        await asyncio.sleep(0)


def gave_up(service):
    return RepairGaveUp(service=service, incident=f"{service}-1", attempts=2, reason="no rung left")


def burn(severity, state="firing"):
    return SLOAlertChanged(
        objective="checkout", severity=severity, state=state, window="1h", factor=14.4, burn_rate=20.0, summary="burns"
    )


async def test_every_alert_is_listed_with_its_state_and_what_holds_it_back(alerting, client_of):
    await say(alerting, burn("page"), burn("ticket"), gave_up("store"), burn("page", "resolved"), burn("page"))
    async with client_of(alerting) as client:
        answer = await client.get("/api/v1/alerts")
    alerts = answer.json()["alerts"]
    shown = [(alert["key"], alert["state"], alert["silenced_by"], alert["inhibited_by"]) for alert in alerts]
    assert sorted(shown) == [
        ("slo/checkout/page", "firing", [], []),
        ("slo/checkout/page", "resolved", [], []),
        ("slo/checkout/ticket", "firing", [], ["slo/checkout/page"]),
        ("store/store-1", "firing", ["configuration-1"], []),
    ]
    (incident,) = [alert for alert in alerts if alert["key"] == "store/store-1"]
    assert incident["labels"] == {"alertname": "ServiceIncident", "severity": "page", "service": "store"}
    assert (incident["incident"], incident["targets"], incident["told"], incident["ends_at"]) == (
        "store-1",
        [],
        [],
        None,
    )
    assert abs(incident["since"] - time.time()) < 60


async def test_a_silence_is_made_listed_applied_and_ended(alerting, client_of):
    await say(alerting, gave_up("api"))
    async with client_of(alerting) as client:
        body = {"matchers": {"service": "a*", "severity": "page"}, "duration_s": 600, "comment": "known"}
        made = await client.post("/api/v1/silences", json=body)
        listed = await client.get("/api/v1/silences")
        (alert,) = (await client.get("/api/v1/alerts")).json()["alerts"]
        ended = await client.delete(f"/api/v1/silences/{made.json()['id']}")
        again = await client.delete(f"/api/v1/silences/{made.json()['id']}")
    silence = made.json()
    assert (made.status_code, silence["active"], silence["configured"]) == (201, True, False)
    assert silence["ends_at"] - silence["starts_at"] == pytest.approx(600)
    assert [one["id"] for one in listed.json()["silences"]] == ["configuration-1", silence["id"]]
    assert alert["silenced_by"] == [silence["id"]]
    assert (ended.status_code, ended.content) == (204, b"")
    assert (again.status_code, again.json()["error"]["kind"]) == (404, "unknown_silence")
    assert again.json()["error"]["allowed"] == ["configuration-1"]
    assert alerting.store.documents("silences") == {}


async def test_a_silence_to_come_is_listed_and_not_active(alerting, client_of):
    start = time.time() + 1000
    async with client_of(alerting) as client:
        body = {"matchers": {"alertname": "*"}, "starts_at": start, "ends_at": start + 10}
        made = await client.post("/api/v1/silences", json=body)
    assert made.json() | {"id": ""} == {
        "id": "",
        "matchers": {"alertname": "*"},
        "starts_at": start,
        "ends_at": start + 10,
        "comment": "",
        "active": False,
        "configured": False,
    }


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"matchers": {"service": "a"}}, 422, "exactly one of ends_at and duration_s"),
        ({"matchers": {"service": "a"}, "duration_s": 1, "ends_at": 5e9}, 422, "exactly one of ends_at and duration_s"),
        ({"matchers": {}, "duration_s": 1}, 422, "needs at least one of alertname"),
        ({"matchers": {"host": "a"}, "duration_s": 1}, 422, "body.matchers.host"),
        ({"matchers": {"severity": "sms"}, "duration_s": 1}, 422, "'page' or 'ticket'"),
        ({"matchers": {"service": "a"}, "duration_s": 0}, 422, "greater than 0"),
        ({"matchers": {"service": "a"}, "duration_s": 1, "until": 5}, 422, "body.until"),
        ({"matchers": {"service": "a"}, "duration_s": 1, "comment": "two\nlines"}, 422, "body.comment"),
        ({"matchers": {"service": "a"}, "ends_at": 1000.0}, 409, "must be after its start"),
        ({"matchers": {"service": "a"}, "ends_at": 1e300}, 422, "body.ends_at"),
    ],
)
async def test_a_silence_that_makes_no_sense_is_refused_with_the_reason(alerting, client_of, body, status, says):
    async with client_of(alerting) as client:
        answer = await client.post("/api/v1/silences", json=body)
        listed = await client.get("/api/v1/silences")
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert len(listed.json()["silences"]) == 1


async def test_a_configured_silence_cannot_be_ended_here(alerting, client_of):
    async with client_of(alerting) as client:
        answer = await client.delete("/api/v1/silences/configuration-1")
    assert answer.status_code == 409
    assert "alerts.silences" in answer.json()["error"]["message"]


async def test_a_silence_that_cannot_be_kept_is_refused_with_503(make_parts, client_of):
    class Full(MemoryStore):
        def put(self, namespace, key, document):
            raise StateError("the disk is full")

    parts = make_parts()
    parts.alerts = get_alert_manager(AlertSettings(), clock=SystemClock(), events=parts.events, store=Full())
    async with client_of(parts) as client:
        answer = await client.post("/api/v1/silences", json={"matchers": {"service": "a"}, "duration_s": 1})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the disk is full")
    assert parts.alerts.silences() == ()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/alerts"),
        ("GET", "/api/v1/silences"),
        ("POST", "/api/v1/silences"),
        ("DELETE", "/api/v1/silences/x"),
    ],
)
async def test_without_an_alert_manager_the_answer_says_how_to_get_one(parts, client_of, method, path):
    async with client_of(parts) as client:
        answer = await client.request(method, path, json={"matchers": {"service": "a"}, "duration_s": 1})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "no_alerts")
    assert "alerts.targets" in answer.json()["error"]["message"]
