"""Asks a URL and judges the answer: status, body, latency, redirects, certificate.

Every look opens its own connection, as Kubernetes' http probes do: a connection kept alive from the look before
may have been closed by the server meanwhile and would fail a service that is well. Nothing is read beyond what
the verdict needs, so an endless or huge answer costs no more than a small one.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from backend.shared.self_healing.probes.certificate import not_after
from backend.shared.self_healing.probes.faults import fail, judge_connect, judge_own
from backend.shared.self_healing.settings import HttpProbeSettings
from modules.contracts.clock import Clock
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, ProbeOutcome, ProbeResult
from modules.contracts.tracing import inject

if TYPE_CHECKING:
    from aiohttp.client import ClientRequest, ClientTimeout
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_DAY_S = 86_400
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_TIMEOUT = aiohttp.ClientTimeout()  # one timeout, around the whole look
# Compressed answers could blow up beyond max_body_bytes.
_HEADERS = {"User-Agent": "selfright-probe", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


class HttpProbe:
    """Sends the request of ``settings`` and holds its answer against them."""

    kind = "http"

    def __init__(self, settings: HttpProbeSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._url = URL(settings.url)
        self._pattern = re.compile(settings.expect_body) if settings.expect_body is not None else None
        self._expected = frozenset(settings.expect_status)
        self._session: aiohttp.ClientSession | None = None
        self._connector: _Connector | None = None

    async def probe(self) -> ProbeResult:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000):
                result = await self._look()
        except TimeoutError:
            return fail(f"no complete answer within {self._settings.timeout_ms:g} ms")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _judge(error)
        latency_ms = (self._clock.monotonic() - began) * 1000
        limit = self._settings.max_latency_ms
        if result.passed and limit is not None and latency_ms > limit:
            return fail(f"answered after {latency_ms:.0f} ms, allowed are {limit:g} ms")
        return result

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _look(self) -> ProbeResult:
        settings = self._settings
        url, method, headers = self._url, settings.method, dict(settings.headers)
        inject(headers)
        redirects = 0
        while True:
            async with self._client().request(method, url, headers=headers, allow_redirects=False) as answer:
                location = answer.headers.get("Location") if answer.status in _REDIRECTS else None
                if location is None or settings.max_redirects == 0:
                    return await self._read(answer)
            redirects += 1
            if redirects > settings.max_redirects:
                return fail(f"redirected {redirects} times, allowed are {settings.max_redirects}")
            target = url.join(URL(location))
            if target.scheme not in ("http", "https") or not target.host:
                return fail("redirected to an address that is neither http nor https")
            if target.origin() != url.origin():
                headers = {}  # they may hold secrets that are meant for the first address alone
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method = "HEAD" if method == "HEAD" else "GET"
            url = target

    async def _read(self, answer: aiohttp.ClientResponse) -> ProbeResult:
        if answer.status not in self._expected:
            expected = " or ".join(str(status) for status in self._settings.expect_status)
            return fail(f"answered {answer.status}, expected {expected}")
        if self._settings.min_certificate_days is not None and self._url.scheme == "https":
            short = self._judge_certificate(self._settings.min_certificate_days)
            if short is not None:
                return short
        if self._pattern is not None:
            body = bytearray()
            limit = self._settings.max_body_bytes
            while len(body) < limit and (data := await answer.content.read(limit - len(body))):
                body += data
            if not self._pattern.search(body.decode("utf-8", "replace")):
                more = f" in its first {limit} bytes" if len(body) == limit else ""
                return fail(f"the body does not match {self._pattern.pattern!r}{more}")
        return ProbeResult(ProbeOutcome.PASS, facts={"status": answer.status})

    def _judge_certificate(self, least_days: float) -> ProbeResult | None:
        certificate = self._connector.certificate if self._connector else None
        if certificate is None:
            return fail(f"showed no certificate, expected one that is valid for {least_days:g} days")
        days = (not_after(certificate) - self._clock.time()) / _DAY_S
        if days >= least_days:
            return None
        if days < 0:
            return fail(f"the certificate expired {-days:.1f} days ago")
        return fail(f"the certificate expires in {days:.1f} days, expected at least {least_days:g}")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._connector = _Connector(
                keep_certificate=self._settings.min_certificate_days is not None,
                ssl=self._settings.verify_tls,
                limit=0,
                force_close=True,
            )
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_NO_TIMEOUT,
                auto_decompress=False,
                headers=_HEADERS,
            )
        return self._session


def _judge(error: Exception) -> ProbeResult:
    """Say whose fault an error is and what was found, without the text of headers."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _judge_connection(error)
    match error:
        case aiohttp.ClientResponseError():
            return fail(f"answered what is not HTTP: {(error.message.splitlines() or [''])[0][:100]}")
        case aiohttp.ClientPayloadError():
            return fail("the body broke off")
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return fail("closed the connection without an answer")
        case OSError():
            return judge_own(error) or fail(f"the connection failed: {error.strerror or type(error).__name__}")
        case _:  # an address that a redirect names, a certificate that is none
            return fail(f"answered what cannot be followed or read: {type(error).__name__}")


def _judge_connection(error: aiohttp.ClientConnectorError) -> ProbeResult:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
        return fail(f"the certificate is not valid: {reason}")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return fail(f"no TLS connection: {getattr(error.os_error, 'reason', None) or type(error.os_error).__name__}")
    return judge_connect(error.os_error, error.host or "", error.port)


class _Connector(aiohttp.TCPConnector):
    """Keeps the newest peer certificate: a short answer gives its connection back before it could be asked."""

    def __init__(self, *, keep_certificate: bool, ssl: bool, limit: int, force_close: bool) -> None:
        super().__init__(ssl=ssl, limit=limit, force_close=force_close)
        self._keep_certificate = keep_certificate
        self.certificate: bytes | None = None

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if self._keep_certificate and connection.transport is not None:
            tls = connection.transport.get_extra_info("ssl_object")
            self.certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        return connection


def build(settings: HttpProbeSettings, context: BuildContext) -> HttpProbe:
    """Raises ConfigurationError for a header that cannot be sent, without telling its value."""
    for name, value in settings.headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
            raise ConfigurationError(
                f"services.{context.service}: the header {name!r} of the http probe cannot be sent; a name has"
                " letters, digits and hyphens, a value is one line"
            )
    return HttpProbe(settings, context.clock)
