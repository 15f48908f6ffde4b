"""What a message says in each format, and the fingerprint by which it is known."""

import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.monitoring.alert_notice import Alert, Notice, Subject, fingerprint
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alert_targets import build_targets
from modules.contracts.alerts import AlertState

INCIDENT = Subject("api/api-1", "ServiceIncident", "page", "api", incident="api-1")
BURN = Subject("slo/checkout/ticket", "ErrorBudgetBurn", "ticket", "shop", objective="checkout")


def notice(subject, state=AlertState.FIRING, ends_at=None, summary="gave up on api"):
    return Notice(Alert(subject, state, summary, 1_795_000_000.0, ends_at))


def test_a_firing_alert_is_alertmanagers_payload_to_the_letter():
    labels = {"alertname": "ServiceIncident", "severity": "page", "service": "api"}
    annotations = {"summary": "gave up on api", "incident": "api-1"}
    assert notice(INCIDENT).as_alertmanager("pager", "https://ops.example.org/selfright/") == {
        "version": "4",
        "groupKey": '{}:{alertname="ServiceIncident", service="api", severity="page"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "pager",
        "groupLabels": labels,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "https://ops.example.org/selfright/",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2026-11-18T11:06:40.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "https://ops.example.org/selfright/api/v1/alerts",
                "fingerprint": fingerprint(labels),
            }
        ],
    }


def test_a_resolved_alert_has_its_end_and_the_same_group_and_fingerprint():
    firing = notice(BURN).as_alertmanager("pager", "")
    resolved = notice(BURN, AlertState.RESOLVED, 1_795_000_060.0).as_alertmanager("pager", "")
    assert (resolved["status"], resolved["alerts"][0]["status"]) == ("resolved", "resolved")
    assert resolved["alerts"][0]["endsAt"] == "2026-11-18T11:07:40.000Z"
    assert resolved["alerts"][0]["generatorURL"] == resolved["externalURL"] == ""
    assert (resolved["groupKey"], resolved["alerts"][0]["fingerprint"]) == (
        firing["groupKey"],
        firing["alerts"][0]["fingerprint"],
    )
    assert resolved["commonLabels"] == {
        "alertname": "ErrorBudgetBurn",
        "severity": "ticket",
        "service": "shop",
        "objective": "checkout",
    }


def test_the_next_incident_of_a_service_has_the_fingerprint_of_the_one_before():
    later = Subject("api/api-2", "ServiceIncident", "page", "api", incident="api-2")
    assert later.fingerprint == INCIDENT.fingerprint
    assert BURN.fingerprint != INCIDENT.fingerprint


def test_the_fingerprint_is_that_of_prometheus():
    """The expected number stands in the tests of prometheus/common, for this set of labels."""
    labels = {"name": "garland, briggs", "fear": "love is not enough"}
    assert fingerprint(labels) == f"{5799056148416392346:016x}"
    assert fingerprint({}) == f"{14695981039346656037:016x}"


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), st.text("ab", max_size=2), max_size=3))
def test_the_fingerprint_does_not_depend_on_the_order_of_the_labels(labels):
    assert fingerprint(dict(reversed(labels.items()))) == fingerprint(labels)


def test_the_title_names_the_objective_where_there_is_one():
    assert (notice(BURN).title, notice(INCIDENT).title) == ("[firing] checkout", "[firing] api")


@pytest.mark.parametrize(("form", "key"), [("alertmanager", "groupKey"), ("selfright", "incident")])
async def test_a_webhook_posts_the_chosen_format(form, key):
    posts = []

    async def take(request):
        posts.append((request.content_type, json.loads(await request.text())))
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    settings = AlertSettings(targets=({"kind": "webhook", "url": url, "format": form, "name": "ops"},))
    (target,) = build_targets(settings.targets, timeout_s=1, external_url="http://here")
    try:
        await target.send(notice(INCIDENT))
    finally:
        await target.close()
        await runner.cleanup()
    ((content_type, body),) = posts
    assert content_type == "application/json"
    assert key in body
    assert body["status"] == "firing"
    assert body.get("receiver", "ops") == "ops"
