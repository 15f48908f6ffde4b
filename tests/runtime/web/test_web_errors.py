import logging

import pytest

from modules.contracts.errors import StateError


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "says"),
    [
        ("GET", "/api/v1/statu", 404, "not_found", "did you mean '/api/v1/status'?"),
        ("GET", "/docs/assets/none.js", 404, "not_found", "see /docs"),
        ("DELETE", "/healthz", 405, "method_not_allowed", "allowed: GET"),
        ("GET", "/api/v1/services/api/pause", 405, "method_not_allowed", "allowed: POST"),
        ("POST", "/static/docs.js", 405, "method_not_allowed", "POST is not allowed"),
        ("GET", "/api/v1/services/stor", 404, "unknown_service", "did you mean 'store'?"),
        ("POST", "/api/v1/services/stor/repair", 404, "unknown_service", "did you mean 'store'?"),
        ("POST", "/api/v1/services/stor/pause", 404, "unknown_service", "did you mean 'store'?"),
        ("PUT", "/api/v1/services/stor/heartbeat", 404, "unknown_service", "did you mean 'store'?"),
        ("GET", "/api/v1/audit?limit=1001", 422, "invalid_request", "query.limit"),
        ("GET", "/api/v1/audit?before=x", 422, "invalid_request", "query.before"),
        ("GET", "/api/v1/events?after=-1", 422, "invalid_request", "query.after"),
        ("POST", "/api/v1/services/api/repair?wait=true&timeout_s=0", 422, "invalid_request", "query.timeout_s"),
    ],
)
async def test_a_bad_request_is_answered_in_the_one_shape(parts, client_of, method, path, status, kind, says):  # noqa: PLR0917  a table
    async with client_of(parts) as client:
        answer = await client.request(method, path)
    error = answer.json()["error"]
    assert (status, kind) == (answer.status_code, error["kind"])
    assert says in error["message"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"reson": "x"}', b'{"reason": ""}', b'{"reason": "a\\u001b[2Jb"}', b'{"reason": 7}', b"\xff"],
)
async def test_a_body_that_is_no_repair_request_is_refused_and_nothing_is_repaired(parts, client_of, body):
    async with client_of(parts, headers={"Content-Type": "application/json"}) as client:
        answer = await client.post("/api/v1/services/api/repair", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["kind"] == "invalid_request"
    assert parts.repair.asked == []


async def test_a_body_that_was_not_sent_as_json_is_told_how_to_be(parts, client_of):
    async with client_of(parts) as client:
        answer = await client.post("/api/v1/services/api/repair", data={"reason": "x"})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


async def test_a_state_file_that_cannot_be_read_is_told(parts, client_of):
    def broken(**filters):
        raise StateError("state.path var/selfright.db: disk I/O error; move the file aside")

    parts.store.audit = broken
    async with client_of(parts) as client:
        answer = await client.get("/api/v1/audit")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "state")
    assert "move the file aside" in answer.json()["error"]["message"]


async def test_what_nobody_expected_is_logged_and_published_and_shows_no_traceback(parts, client_of, caplog):
    def broken(name):
        raise RuntimeError("secret detail")

    parts.monitor.get_status = broken
    async with client_of(parts) as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.get("/api/v1/status")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (500, "internal")
    assert "secret detail" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret detail" in caplog.text
    assert [event.kind for event in parts.events.recent()] == ["component_failed"]
