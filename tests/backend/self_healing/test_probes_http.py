"""The http probe against real servers on loopback, most of them nasty."""

import asyncio
import datetime
import errno
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backend.shared.self_healing.probes import build_probe
from backend.shared.self_healing.probes.http import HttpProbe
from backend.shared.self_healing.settings import HttpProbeSettings
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, Heartbeats, ProbeOutcome

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"


@asynccontextmanager
async def serving(handle, tls=None):
    """Run ``handle(request, writer)`` for each connection; yields the port."""
    handlers = set()

    async def connected(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += await reader.readexactly(1)
            await handle(request.decode(), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            handlers.discard(asyncio.current_task())
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def answering(data):
    async def handle(request, writer):
        writer.write(data)

    return handle


async def look(url, **settings):
    probe = HttpProbe(HttpProbeSettings(kind="http", url=url, **{"timeout_ms": 2000, **settings}), SystemClock())
    try:
        return await probe.probe()
    finally:
        await probe.close()


async def look_at(handle, path="/healthz", **settings):
    async with serving(handle) as port:
        return await look(f"http://127.0.0.1:{port}{path}", **settings)


async def test_an_expected_status_passes():
    result = await look_at(answering(OK))
    assert result.passed
    assert result.facts == {"status": 200}


async def test_another_status_fails_and_says_which_were_expected():
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    result = await look_at(answering(answer), expect_status=(200, 204))
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "answered 503, expected 200 or 204")


async def test_a_refused_connection_fails_and_names_the_address():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        result = await look(f"http://127.0.0.1:{port}/")
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, f"127.0.0.1:{port} refused the connection")


async def test_a_name_that_does_not_resolve_is_the_probers_error(monkeypatch):
    async def no_such_name(self, host, *args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_such_name)
    result = await look("http://shop.invalid/")
    assert result.outcome is ProbeOutcome.ERROR
    assert "'shop.invalid' does not resolve" in result.detail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EADDRNOTAVAIL])
async def test_a_lack_of_the_probers_own_resources_is_its_error(monkeypatch, number):
    def none_left(*args, **kwargs):
        raise OSError(number, "none left")

    monkeypatch.setattr(socket, "socket", none_left)
    result = await look("http://127.0.0.1:9/")
    assert result.outcome is ProbeOutcome.ERROR
    assert "this machine" in result.detail


async def test_a_server_that_hangs_fails_at_the_timeout():
    async def hang(request, writer):
        await asyncio.sleep(60)

    result = await look_at(hang, timeout_ms=60)
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "no complete answer within 60 ms")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
async def test_a_server_that_trickles_head_or_body_fails_at_the_timeout(head):
    async def trickle(request, writer):
        writer.write(head)
        for _ in range(1000):
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.005)

    result = await look_at(trickle, timeout_ms=60, expect_body="never")
    assert result.detail == "no complete answer within 60 ms"


async def test_of_a_gigabyte_only_the_first_bytes_are_read():
    sent = 0

    async def flood(request, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\nready")
        for _ in range(1024):
            writer.write(b"x" * 1048576)
            await writer.drain()
            sent += 1

    result = await look_at(flood, expect_body="^ready", max_body_bytes=100_000)
    assert result.passed
    assert sent < 64


async def test_a_compressed_bomb_is_not_unpacked():
    bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nboom"
    assert (await look_at(answering(bomb), expect_body="boom")).passed


async def test_endless_headers_fail():
    async def headers(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100_000):
            writer.write(b"X-More: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    result = await look_at(headers, timeout_ms=1000)
    assert result.outcome is ProbeOutcome.FAIL


@pytest.mark.parametrize("answer", [b"\x00\xffSSH-2.0\r\n\r\n", b"HTTP/9.9 banana\r\n\r\n"])
async def test_garbage_fails_as_what_is_not_http(answer):
    result = await look_at(answering(answer))
    assert result.outcome is ProbeOutcome.FAIL
    assert "not HTTP" in result.detail


async def test_a_server_that_closes_at_once_fails():
    result = await look_at(answering(b""))
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "closed the connection without an answer")


async def test_a_body_that_breaks_off_fails():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nrea"
    result = await look_at(answering(answer), expect_body="ready")
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "the body broke off")


async def test_the_body_must_match_when_a_pattern_is_given():
    assert (await look_at(answering(OK), expect_body="rea.y$")).passed
    result = await look_at(answering(OK), expect_body="failed")
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "the body does not match 'failed'")


async def test_a_slow_answer_fails_even_within_the_timeout():
    async def slow(request, writer):
        await asyncio.sleep(0.05)
        writer.write(OK)

    result = await look_at(slow, max_latency_ms=20)
    assert result.outcome is ProbeOutcome.FAIL
    assert "allowed are 20 ms" in result.detail


def redirecting(to, status=302):
    async def handle(request, writer):
        path = request.split()[1]
        writer.write(
            OK if path == "/end" else f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    return handle


async def test_a_redirect_is_the_answer_unless_redirects_are_followed():
    assert (await look_at(redirecting("/end"))).detail == "answered 302, expected 200"
    assert (await look_at(redirecting("/end"), expect_status=(302,))).passed
    assert (await look_at(redirecting("/end"), max_redirects=1)).passed


async def test_redirects_without_end_fail_at_the_allowed_number():
    result = await look_at(redirecting("/again"), max_redirects=5)
    assert (result.outcome, result.detail) == (ProbeOutcome.FAIL, "redirected 6 times, allowed are 5")


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[broken", "http:///"])
async def test_a_redirect_to_anything_but_http_fails(to):
    result = await look_at(redirecting(to), max_redirects=5)
    assert result.outcome is ProbeOutcome.FAIL


async def test_headers_are_sent_but_not_to_another_origin():
    seen = {}

    async def other(request, writer):
        seen["other"] = request
        writer.write(OK)

    async with serving(other) as other_port:

        async def first(request, writer):
            seen["first"] = request
            location = f"http://127.0.0.1:{other_port}/"
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

        async with serving(first) as port:
            headers = {"X-Api-Key": "s3cret", "Authorization": "Bearer s3cret"}
            result = await look(f"http://127.0.0.1:{port}/", headers=headers, max_redirects=3)
    assert result.passed
    assert seen["first"].count("s3cret") == 2
    assert "s3cret" not in seen["other"]


async def test_the_method_is_the_one_that_was_asked_for():
    async def only_head(request, writer):
        writer.write(OK[:-5] if request.startswith("HEAD ") else b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")

    assert (await look_at(only_head, method="HEAD")).passed
    assert (await look_at(only_head, method="GET")).detail == "answered 405, expected 200"


async def test_every_look_opens_a_connection_of_its_own_and_says_so():
    requests = []

    async def keep_alive(request, writer):
        requests.append(request)
        writer.write(OK)
        await asyncio.sleep(60)

    async with serving(keep_alive) as port:
        settings = HttpProbeSettings(kind="http", url=f"http://127.0.0.1:{port}/")
        probe = HttpProbe(settings, SystemClock())
        assert all([(await probe.probe()).passed for _ in range(5)])
        await probe.close()
    assert len(requests) == 5
    assert all("Connection: close\r\n" in request for request in requests)


async def test_a_server_that_drops_idle_connections_never_fails_the_next_look():
    connections = 0

    async def once(request, writer):
        nonlocal connections
        connections += 1
        writer.write(OK)  # keep-alive by HTTP/1.1, and yet it closes

    async with serving(once) as port:
        settings = HttpProbeSettings(kind="http", url=f"http://127.0.0.1:{port}/")
        probe = HttpProbe(settings, SystemClock())
        assert all([(await probe.probe()).passed for _ in range(20)])
        await probe.close()
        assert (await probe.probe()).passed  # a closed probe opens anew
        await probe.close()
        await probe.close()
    assert connections == 21


async def test_a_cancelled_look_closes_its_connection():
    asked, closed = asyncio.Event(), asyncio.Event()

    async def notice(request, writer):
        asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        try:
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            closed.set()

    async with serving(notice) as port:
        probe = HttpProbe(HttpProbeSettings(kind="http", url=f"http://127.0.0.1:{port}/"), SystemClock())
        task = asyncio.create_task(probe.probe())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 2)
        await probe.close()


@pytest.mark.parametrize(("name", "value"), [("X-Key", "s3cret\r\nX-Evil: 1"), ("Bad Name", "s3cret")])
def test_a_header_that_cannot_be_sent_is_refused_without_telling_its_value(name, value):
    clock = SystemClock()
    context = BuildContext("api", clock, Heartbeats(clock), load=lambda name: None)
    settings = HttpProbeSettings(kind="http", url="http://127.0.0.1/", headers={name: value})
    with pytest.raises(ConfigurationError, match=r"services\.api") as caught:
        build_probe(settings, context)
    assert "s3cret" not in str(caught.value)


# --- TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate_for(tmp_path_factory):
    """A function that makes a server context with a certificate valid for so many days more."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())

    def make(days):
        now = datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        file = folder / f"{days}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    return make


async def look_over_tls(tls, **settings):
    async with serving(answering(OK), tls) as port:
        return await look(f"https://127.0.0.1:{port}/", **settings)


async def test_a_certificate_that_nobody_vouches_for_fails_unless_it_is_not_verified(certificate_for):
    result = await look_over_tls(certificate_for(90))
    assert result.outcome is ProbeOutcome.FAIL
    assert "certificate is not valid: self-signed certificate" in result.detail
    assert (await look_over_tls(certificate_for(90), verify_tls=False)).passed


async def test_a_certificate_that_expires_too_soon_fails_even_unverified(certificate_for):
    soon = await look_over_tls(certificate_for(5), verify_tls=False, min_certificate_days=14)
    assert soon.outcome is ProbeOutcome.FAIL
    assert soon.detail == "the certificate expires in 5.0 days, expected at least 14"
    assert (await look_over_tls(certificate_for(20), verify_tls=False, min_certificate_days=14)).passed
    gone = await look_over_tls(certificate_for(-1), verify_tls=False, min_certificate_days=0)
    assert gone.detail == "the certificate expired 1.0 days ago"


async def test_a_server_that_speaks_no_tls_fails(certificate_for):
    async def connected(reader, writer):
        writer.write(b"hello, no TLS here\r\n")
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        result = await look(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert result.outcome is ProbeOutcome.FAIL
