"""Probes that connect: an HTTP status and an open port, over asyncio streams, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from modules.contracts.errors import ConfigurationError
from modules.contracts.health import PASS, ProbeOutcome, ProbeResult

# The prober's own faults: no descriptor, memory or local port left, not allowed to connect, no route out.
_OWN_FAULTS = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    )
)


class HttpProbe:
    """Sends one HTTP/1.1 request on a fresh connection and reads the status line, not more."""

    kind = "http"

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        expect_status: Sequence[int] = (200,),
        verify_tls: bool = True,
        timeout_s: float = 1.0,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = _tls_context(verify_tls) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._expect = tuple(expect_status)
        self._timeout_s = timeout_s
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        lines = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": "selfright", "Accept": "*/*"} | dict(
            headers or {}
        )
        for text in (path, *lines, *lines.values()):
            if not text.isprintable():
                raise ConfigurationError(f"the http probe of {url!r}: {text!r} must not hold control characters")
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
        self._request = ("\r\n".join((*head, "Content-Length: 0", "Connection: close")) + "\r\n\r\n").encode("utf-8")

    async def probe(self) -> ProbeResult:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                writer.write(self._request)
                line = await reader.readline()
        except TimeoutError:
            return fail(f"no answer from {self._host}:{self._port} within {self._timeout_s * 1000:g} ms")
        except ValueError:
            return fail("the answer is no HTTP: its first line does not end")
        except OSError as error:
            return judge(error, f"{self._host}:{self._port}")
        finally:
            if writer is not None:
                writer.transport.abort()
        answer = re.match(rb"HTTP/1\.[01] (\d{3})(?: |\r?\n)", line)
        if answer is None:
            return fail(f"the answer is no HTTP, it begins with {line[:40]!r}" if line else "closed without an answer")
        status = int(answer[1])
        if status in self._expect:
            return ProbeResult(ProbeOutcome.PASS, facts={"status": status})
        return ProbeResult(
            ProbeOutcome.FAIL,
            f"answered {status}, expected {' or '.join(map(str, self._expect))}",
            facts={"status": status},
        )

    async def close(self) -> None:
        """Nothing is held: a connection lives as long as one look."""


class TcpProbe:
    """Opens a connection and closes it."""

    kind = "tcp"

    def __init__(self, host: str, port: int, *, timeout_s: float = 1.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s

    async def probe(self) -> ProbeResult:
        try:
            async with asyncio.timeout(self._timeout_s):
                _, writer = await asyncio.open_connection(self._host, self._port)
        except TimeoutError:
            return fail(f"no connection to {self._host}:{self._port} within {self._timeout_s * 1000:g} ms")
        except OSError as error:
            return judge(error, f"{self._host}:{self._port}")
        writer.transport.abort()
        return PASS

    async def close(self) -> None:
        """Nothing is held."""


def fail(detail: str) -> ProbeResult:
    return ProbeResult(ProbeOutcome.FAIL, detail)


def judge(error: OSError, where: str) -> ProbeResult:
    """Tell the prober's own fault from the service's."""
    if isinstance(error, socket.gaierror):
        return ProbeResult(ProbeOutcome.ERROR, f"the name in {where} does not resolve here: {error.strerror}")
    if error.errno in _OWN_FAULTS:
        return ProbeResult(ProbeOutcome.ERROR, f"this machine cannot reach {where}: {error.strerror}")
    return fail(f"{where}: {error.strerror or error or type(error).__name__}")


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
