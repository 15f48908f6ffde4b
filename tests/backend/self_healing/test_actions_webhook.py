"""The webhook rung against a real server on a free port."""

import asyncio

import pytest
from aiohttp import web
from pydantic import TypeAdapter

from backend.shared.self_healing.actions import build_rung
from backend.shared.self_healing.actions.timed import TimedRung
from backend.shared.self_healing.settings import AnyRung
from modules.contracts.clock import SystemClock
from modules.contracts.errors import RepairError
from modules.contracts.health import BuildContext, Heartbeats, RepairContext, RungOutcome

CONTEXT = RepairContext("api", "api-1", "answered 500", 2)


@pytest.fixture
async def serve():
    """Start servers that answer every request with a handler; returns their address and what they were sent."""
    runners = []

    async def begin(handler):
        seen = []

        async def noted(request):
            seen.append((request.method, request.path_qs, dict(request.headers), await request.json()))
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", noted)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}", seen

    yield begin
    for runner in runners:
        await runner.cleanup()


def build(url, **keys):
    settings = TypeAdapter(AnyRung).validate_python({"kind": "webhook", "url": url} | keys)
    clock = SystemClock()
    return build_rung(settings, BuildContext("api", clock, Heartbeats(clock), lambda name: None))


def answer(status, text="", **headers):
    async def handler(request):
        return web.Response(status=status, text=text, headers=headers)

    return handler


@pytest.mark.parametrize("status", [200, 202, 299])
async def test_the_incident_is_posted_as_json_and_a_2xx_answer_is_success(serve, status):
    url, seen = await serve(answer(status))
    said = await build(f"{url}/page?to=me", headers={"X-Key": "k"}).action.run(CONTEXT)
    assert said.endswith(f"answered {status}")
    method, path, headers, body = seen[0]
    assert (method, path, headers["X-Key"]) == ("POST", "/page?to=me", "k")
    assert body == {"service": "api", "incident": "api-1", "reason": "answered 500", "attempt": 2}


@pytest.mark.parametrize("status", [300, 404, 503])
async def test_any_other_answer_is_a_failure_that_quotes_it(serve, status):
    url, _ = await serve(answer(status, "nobody is on call"))
    with pytest.raises(RepairError, match=f"answered {status}, expected 200 to 299.*nobody is on call"):
        await build(url).action.run(CONTEXT)


async def test_a_redirect_is_not_followed(serve):
    url, seen = await serve(answer(307, Location="/elsewhere"))
    with pytest.raises(RepairError, match="redirects are not followed"):
        await build(url).action.run(CONTEXT)
    assert len(seen) == 1


async def test_an_endless_answer_is_not_read_to_its_end(serve):
    async def endless(request):
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    url, _ = await serve(endless)
    async with asyncio.timeout(2):
        with pytest.raises(RepairError, match="answered 500") as failed:
            await build(url).action.run(CONTEXT)
    assert len(str(failed.value)) < 400


async def test_a_server_that_does_not_answer_is_left_at_the_timeout(serve):
    async def silent(request):
        await asyncio.Event().wait()

    url, _ = await serve(silent)
    ended = await TimedRung(build(url, timeout_s=0.1)).run(CONTEXT)
    assert ended.outcome is RungOutcome.TIMED_OUT
    assert "0.1 s" in ended.detail


async def test_neither_texts_nor_errors_show_the_secrets_of_the_address(unused_tcp_port):
    url = f"http://user:password@127.0.0.1:{unused_tcp_port}/hook/token-1?key=secret"
    action = build(url).action
    assert action.describe == f"post to http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(RepairError, match="could not be asked") as failed:
        await action.run(CONTEXT)
    assert not any(word in str(failed.value) for word in ("password", "token-1", "secret"))
