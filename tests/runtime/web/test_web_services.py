import asyncio
import json

import pytest

from modules.contracts.errors import RepairError
from modules.contracts.events import HealthChanged

REPAIR = "/api/v1/services/api/repair"


def health_changed(service):
    return HealthChanged(service=service, previous="healthy", current="unhealthy", detail="503", affected_by=("store",))


async def test_a_service_comes_with_its_own_events_records_and_output(parts, client_of, audit_record):
    for service in ("api", "store"):
        parts.events.publish(health_changed(service))
        parts.store.append_audit(audit_record(service=service, incident=f"i-{service}", data={"rung": 0}))
    async with client_of(parts) as client:
        store = (await client.get("/api/v1/services/store")).json()
        api = (await client.get("/api/v1/services/api")).json()
    assert [(event["id"], event["current"], event["affected_by"]) for event in store["events"]] == [
        (2, "unhealthy", ["store"])
    ]
    assert [(record["incident"], record["data"]) for record in store["audit"]] == [("i-store", {"rung": 0})]
    assert (store["output"], api["output"]) == ("store listens\n", None)


async def test_a_repair_goes_on_in_the_background_with_its_reason(parts, client_of):
    async with client_of(parts) as client:
        answer = await client.post(REPAIR, json={"reason": "deployed by hand"})
    assert (answer.status_code, answer.json()) == (202, {"service": "api", "finished": False, "result": None})
    assert parts.repair.asked == [("api", "deployed by hand")]


async def test_waiting_brings_the_report(parts, client_of):
    parts.repair.gate.set()
    async with client_of(parts) as client:
        answer = await client.post(REPAIR, params={"wait": True})
    assert answer.status_code == 200
    assert answer.json()["finished"]
    assert answer.json()["result"]["actions"] == ["restart api"]


async def test_waiting_is_bounded_and_the_repair_goes_on(parts, client_of):
    async with client_of(parts) as client:
        first = await client.post(REPAIR, params={"wait": True, "timeout_s": 0.02})
        parts.repair.gate.set()
        second = await client.post(REPAIR, params={"wait": True})
    assert (first.status_code, first.json()["finished"]) == (202, False)
    assert (second.status_code, second.json()["result"]["repaired"]) == (200, True)
    assert parts.repair.asked == [("api", "asked for")], "the second request joins the first"


async def test_a_repair_that_fails_later_is_published_once(parts, client_of):
    parts.repair.error = RepairError("restart api: no such program")
    async with client_of(parts) as client:
        await client.post(REPAIR)
        await client.post(REPAIR)
    parts.repair.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [event.message for event in parts.events.recent()] == ["repair failed: api: restart api: no such program"]


async def test_a_recovery_manager_is_asked_where_there_is_one(make_parts, client_of):
    parts = make_parts()

    class Recovery:
        async def recover(self, name, reason):
            parts.repair.gate.set()
            return await parts.repair.repair(name, f"{reason}, by the recovery manager")

    parts.recovery = Recovery()
    async with client_of(parts) as client:
        await client.post(REPAIR, params={"wait": True}, json={"reason": "slow"})
    assert parts.repair.asked == [("api", "slow, by the recovery manager")]


async def test_pausing_and_resuming_one_service_leaves_the_others(parts, client_of):
    async with client_of(parts) as client:
        paused = await client.post("/api/v1/services/api/pause")
        assert paused.json()["repair"]["paused"]
        assert parts.repair.paused == {"api"}
        resumed = await client.post("/api/v1/services/api/resume")
        assert not resumed.json()["repair"]["paused"]


async def test_every_repair_can_be_paused_and_resumed_at_once(parts, client_of):
    async with client_of(parts) as client:
        paused = (await client.post("/api/v1/repair/pause")).json()["services"]
        resumed = (await client.post("/api/v1/repair/resume")).json()["services"]
    assert {name: view["paused"] for name, view in paused.items()} == {"api": True, "store": True, "worker": True}
    assert {False} == {view["paused"] for view in resumed.values()}


CONTROLS = [REPAIR, "/api/v1/services/api/pause", "/api/v1/repair/pause"]


@pytest.mark.parametrize("path", [*CONTROLS, "/api/v1/services/api/resume", "/api/v1/repair/resume"])
async def test_without_self_healing_nothing_can_be_repaired_or_paused(make_parts, client_of, path):
    async with client_of(make_parts(selfhealing="none")) as client:
        answer = await client.post(path)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "no_repair")
    assert "selfhealing=v2" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", CONTROLS)
async def test_in_quarantine_the_answer_names_the_call_to_use(make_parts, client_of, path):
    async with client_of(make_parts(selfhealing="v3")) as client:
        answer = await client.post(path)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "read_only")
    assert "SelfHealing_V2" in answer.json()["error"]["message"]


async def test_a_service_without_a_ladder_is_told_where_to_write_one(parts, client_of):
    parts.repair.services = ("store",)
    async with client_of(parts) as client:
        answer = await client.post(REPAIR)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "no_ladder")
    assert "services.api.repair" in answer.json()["error"]["message"]


async def test_a_heartbeat_is_taken_from_a_service_that_is_watched_by_heartbeat(parts, client_of):
    async with client_of(parts) as client:
        answer = await client.put("/api/v1/services/worker/heartbeat")
    assert (answer.status_code, answer.content) == (204, b"")
    assert parts.heartbeats.age("worker") is not None


async def test_a_heartbeat_that_nobody_would_look_at_is_refused(parts, client_of):
    async with client_of(parts) as client:
        answer = await client.put("/api/v1/services/api/heartbeat")
    assert answer.status_code == 409
    assert "it has: http" in answer.json()["error"]["message"]
    assert parts.heartbeats.age("api") is None


async def test_the_audit_trail_is_read_page_by_page_newest_first(parts, client_of, audit_record):
    for _ in range(5):
        parts.store.append_audit(audit_record(service="api"))
    seen, before = [], {}
    async with client_of(parts) as client:
        while True:
            page = (await client.get("/api/v1/audit", params={"limit": 2, **before})).json()
            seen.append([record["id"] for record in page["records"]])
            if page["next"] is None:
                break
            before = {"before": page["next"]}
    assert seen == [[5, 4], [3, 2], [1]]


async def test_the_audit_trail_is_followed_oldest_first_and_filtered(parts, client_of, audit_record):
    for kind, service, incident in (
        ("a", "api", "i-1"),
        ("b", "api", "i-1"),
        ("a", "store", "i-2"),
        ("a", "api", "i-3"),
    ):
        parts.store.append_audit(audit_record(kind=kind, service=service, incident=incident))

    async with client_of(parts) as client:

        async def ids(**query):
            return [record["id"] for record in (await client.get("/api/v1/audit", params=query)).json()["records"]]

        assert await ids(after=1) == [2, 3, 4]
        assert await ids(kind="a", service="api") == [4, 1]
        assert await ids(incident="i-2") == [3]


async def test_events_in_a_service_read_like_those_in_the_stream(parts, client_of):
    event = parts.events.publish(health_changed("api"))
    async with client_of(parts) as client:
        shown = (await client.get("/api/v1/services/api")).json()["events"][0]
    assert shown == json.loads(json.dumps(event.as_dict()))
