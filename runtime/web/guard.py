"""What stands before every route: who may ask, how much may be sent, and which headers go out.

The API has no authentication on its loopback address, so a page in the user's own browser is the danger.
Cross-site requests are told by Sec-Fetch-Site, else by Origin against Host (the algorithm of Go's
net/http.CrossOriginProtection); DNS rebinding by the Host header itself. Programs send neither header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.web.errors import RefusedError, error_response

MAX_BODY_BYTES = 65_536
"""A larger request body is refused: the largest one that means anything is a repair's reason."""

_TOO_LARGE = f"the request body is larger than {MAX_BODY_BYTES} bytes, the most that is read; shorten the reason"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """An ASGI middleware around ``app``, which is bound to ``host``."""

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self._app = app
        self._host = host.casefold()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._misdirected(headers) or _cross_site(scope["method"], headers) or _too_large(headers)
        if refusal:
            await error_response(refusal)(scope, receive, send_with_headers)
        else:
            await self._app(scope, _bounded(receive), send_with_headers)

    def _misdirected(self, headers: Headers) -> RefusedError | None:
        found = headers.get("host")
        if found is None:  # HTTP/1.0; browsers, whom this is about, always send one
            return None
        name = (_host_name(found) or "").casefold()
        if name in ("localhost", self._host) or name.endswith(".localhost") or _is_loopback(name):
            return None
        return RefusedError(
            421,
            "misdirected",
            f"the Host header names {found!r}, which is not this server; ask for localhost or {self._host}"
            " (a reverse proxy must set one of them)",
            allowed=dict.fromkeys(("localhost", "127.0.0.1", "[::1]", self._host)),
        )


def _cross_site(method: str, headers: Headers) -> RefusedError | None:
    if method in _SAFE_METHODS:
        return None
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
        found = f"Sec-Fetch-Site is {site!r}"
    else:
        allowed = origin is None or urlsplit(origin).netloc.casefold() == headers.get("host", "").casefold()
        found = f"Origin is {origin!r}"
    if allowed:
        return None
    return RefusedError(
        403,
        "cross_site",
        f"{found}: pages of another origin may not change anything here; use the page at /docs, or a program",
    )


def _too_large(headers: Headers) -> RefusedError | None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) <= MAX_BODY_BYTES:  # what is no number, the server has refused
        return None
    return RefusedError(413, "body_too_large", _TOO_LARGE)


def _bounded(receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Count what comes without a length in advance."""
    seen = 0

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE)
        return message

    return receive_bounded


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
