import pytest

from runtime.web.guard import MAX_BODY_BYTES

PAUSE = "/api/v1/services/api/pause"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8420"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:8420"},
    ],
    ids=["a program", "the page at /docs", "typed by the user", "an older browser on our page"],
)
async def test_programs_and_our_own_page_may_change_things(parts, client_of, headers):
    async with client_of(parts) as client:
        assert (await client.post(PAUSE, headers=headers)).status_code == 200
    assert parts.repair.paused == {"api"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(parts, client_of, headers):
    async with client_of(parts) as client:
        for method, path in (("POST", PAUSE), ("PUT", "/api/v1/services/worker/heartbeat")):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "cross_site")
    assert parts.repair.paused == set()
    assert parts.heartbeats.age("worker") is None


async def test_a_link_from_another_site_may_still_be_followed(parts, client_of):
    async with client_of(parts) as client:
        assert (await client.get("/docs", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8420", "localhost:8420", "LOCALHOST", "[::1]:8420", "127.8.9.1", "a.localhost"]
)
async def test_every_name_of_the_loopback_is_served(parts, client_of, host):
    async with client_of(parts) as client:
        assert (await client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8420", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", "[", ""]
)
async def test_a_name_that_was_rebound_to_this_machine_is_refused_for_reading_too(parts, client_of, host):
    async with client_of(parts) as client:
        answer = await client.get("/api/v1/status", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (421, "misdirected")


async def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_its_length(parts, client_of):
    async def in_pieces():
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    async with client_of(parts, headers={"Content-Type": "application/json"}) as client:
        for content in (b" " * (MAX_BODY_BYTES + 1), in_pieces()):
            answer = await client.post("/api/v1/services/api/repair", content=content)
            assert (answer.status_code, answer.json()["error"]["kind"]) == (413, "body_too_large")
    assert parts.repair.asked == []


async def test_a_large_body_is_refused_also_where_none_is_read(parts, client_of):
    async with client_of(parts) as client:
        assert (await client.post(PAUSE, content=b" " * (MAX_BODY_BYTES + 1))).status_code == 413
        assert (await client.post(PAUSE, content=b" " * MAX_BODY_BYTES)).status_code == 200


async def test_every_answer_says_that_nobody_may_frame_or_sniff_it(parts, client_of):
    async with client_of(parts) as client:
        for path in ("/docs", "/healthz", "/nowhere", "/static/docs.js"):
            headers = (await client.get(path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "'unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers
