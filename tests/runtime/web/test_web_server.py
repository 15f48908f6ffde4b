import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from modules.contracts.component import ComponentState
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import RuntimeStateChanged
from runtime.web.server import AdminServer


@contextlib.asynccontextmanager
async def serving(parts, **options):
    server = AdminServer(parts, host="127.0.0.1", port=0, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def records(lines, count):
    """The next ``count`` server-sent records, as (id, kind, data)."""
    found, fields = [], {}
    async with asyncio.timeout(5):
        async for line in lines:
            if line and not line.startswith((":", "retry")):
                name, value = line.split(": ", 1)
                fields[name] = value
            elif fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields = {}
                if len(found) == count:
                    return found
    return found


async def until(holds):
    """Wait for what the other end of a socket brings about."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  nothing tells when the server has noticed
            await asyncio.sleep(0.005)


async def test_port_0_takes_a_free_one_and_the_address_names_it(parts):
    async with serving(parts) as server, httpx.AsyncClient() as client:
        assert server.address.startswith("http://127.0.0.1:")
        assert server.status.detail == server.address
        assert (await client.get(f"{server.address}/healthz")).json()["alive"]


async def test_a_port_in_use_is_told_with_the_way_to_its_holder_and_out(parts):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = AdminServer(parts, host="127.0.0.1", port=port)
        with pytest.raises(ConfigurationError) as told:
            await server.start()
        await server.stop()
    for word in ("server.port", f"127.0.0.1:{port}", "ss -ltnp", "server.port=0"):
        assert word in str(told.value)


async def test_a_start_that_fails_gives_the_port_back(parts, monkeypatch):
    def broken(parts, *, grace_s):
        raise ConfigurationError("the assets are not installed")

    monkeypatch.setattr("runtime.web.listener.build_listener", broken)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ConfigurationError, match="assets") as told:
        await AdminServer(parts, host="127.0.0.1", port=port).start()
    socket.create_server(("127.0.0.1", port)).close()
    assert told.value.__traceback__ is not None, "still held, so that nothing but the start has closed the port"


def test_a_port_in_use_is_told_before_the_framework_is_imported():
    program = """
import asyncio, socket, sys
from modules.contracts.errors import ConfigurationError
from runtime.web.server import AdminServer
with socket.create_server(("127.0.0.1", 0)) as holder:
    try:
        asyncio.run(AdminServer(None, host="127.0.0.1", port=holder.getsockname()[1]).start())
    except ConfigurationError:
        print("told", "fastapi" in sys.modules, "uvicorn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["told", "False", "False"]


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
async def test_an_address_that_is_not_ours_names_the_key(parts, host):
    with pytest.raises(ConfigurationError, match=r"^server\.host: "):
        await AdminServer(parts, host=host, port=0).start()


async def test_it_serves_on_ipv6_where_there_is_one(parts):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = AdminServer(parts, host="::1", port=0)
    await server.start()
    try:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.address}/healthz")).status_code == 200
    finally:
        await server.stop()


async def test_signals_stay_with_whoever_handles_them(parts):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with serving(parts):
        assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


async def test_events_stream_over_a_socket_and_go_on_where_the_reader_left(parts):
    async with serving(parts) as server, httpx.AsyncClient() as client:
        url = f"{server.address}/api/v1/events"
        async with client.stream("GET", url) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert [await anext(lines), await anext(lines)] == ["retry: 2000", ": connected"]
            parts.events.publish(RuntimeStateChanged(current="one"))
            [(id, kind, data)] = await records(lines, 1)
            assert (kind, data["current"]) == ("runtime_state_changed", "one")
        for word in ("two", "three"):
            parts.events.publish(RuntimeStateChanged(current=word))
        async with client.stream("GET", url, params={"after": 0}, headers={"Last-Event-ID": str(id)}) as answer:
            missed = await records(answer.aiter_lines(), 2)
        assert [data["current"] for _, _, data in missed] == ["two", "three"]


async def test_a_reader_that_hangs_up_frees_its_place(parts):
    async with serving(parts) as server, httpx.AsyncClient() as client:
        async with client.stream("GET", f"{server.address}/api/v1/events") as answer:
            await anext(answer.aiter_lines())
            assert len(parts.events._subscriptions) == 1
        await until(lambda: not parts.events._subscriptions)


async def test_stopping_ends_streams_waiting_requests_and_background_repairs(parts):
    server = AdminServer(parts, host="127.0.0.1", port=0)
    await server.start()
    async with httpx.AsyncClient() as client:
        repair = asyncio.create_task(
            client.post(f"{server.address}/api/v1/services/api/repair", params={"wait": True}, timeout=10)
        )
        async with client.stream("GET", f"{server.address}/api/v1/events") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await until(lambda: parts.repair.asked)
            async with asyncio.timeout(2):
                await server.stop()
            assert await records(lines, 1) == [], "the stream ends whole"
        waited = await repair
    assert (waited.status_code, waited.json()["error"]["kind"]) == (503, "stopping")
    assert parts.repair.cancelled == ["api"]
    assert server.status.state is ComponentState.STOPPED


async def test_a_reader_that_reads_nothing_cannot_hold_up_the_stop(parts):
    server = AdminServer(parts, host="127.0.0.1", port=0, grace_s=1)
    await server.start()
    port = int(server.address.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.pause_reading()
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    await until(lambda: parts.events._subscriptions)
    for _ in range(200):
        parts.events.publish(RuntimeStateChanged(current="x" * 100_000))
        await asyncio.sleep(0)
    connections = server._listener.server_state.connections
    assert len(connections) == 1
    async with asyncio.timeout(4):
        await server.stop()
    assert (parts.events._subscriptions, connections) == ([], set())
    writer.transport.abort()


async def test_after_a_stop_nothing_is_left_and_the_port_is_free(parts):
    before = asyncio.all_tasks()
    async with serving(parts) as server, httpx.AsyncClient() as client:
        address = server.address
        await client.get(f"{address}/healthz")
    assert asyncio.all_tasks() == before
    socket.create_server(("127.0.0.1", int(address.rsplit(":", 1)[1]))).close()


async def test_stopping_is_safe_without_a_start_and_twice(parts):
    server = AdminServer(parts, host="127.0.0.1", port=0)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_server_that_ends_by_itself_says_so(parts):
    async with serving(parts) as server:
        server._serving.cancel()
        await asyncio.wait({server._serving})
        await asyncio.sleep(0)
        assert server.status.state is ComponentState.FAILED
        assert [event.kind for event in parts.events.recent()] == ["component_failed"]
