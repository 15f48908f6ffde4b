"""Where alerts go: one small protocol, a plain webhook, and everything that apprise can reach.

An address may hold a secret (a token in its path), so no address is ever part of a message, an event or a
log line: errors name the target by its name and say what came back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp

from backend.shared.monitoring.alert_notice import Notice
from backend.shared.monitoring.alert_settings import (
    AnyTarget,
    AppriseTargetSettings,
    WebhookTargetSettings,
    target_names,
)
from modules.contracts.alerts import AlertState
from modules.contracts.errors import ConfigurationError, SelfrightError


class DeliveryError(SelfrightError):
    """A target did not take a message. The text holds no address."""


class Target(Protocol):
    """Takes one message at a time. ``send`` is cancelled at its timeout."""

    @property
    def name(self) -> str: ...

    async def send(self, notice: Notice) -> None:
        """Deliver, or raise DeliveryError."""
        ...

    async def close(self) -> None:
        """Give back connections; safe twice."""
        ...


class WebhookTarget:
    """POSTs the message as JSON in the chosen format; a 2xx answer is success, a redirect is not followed."""

    def __init__(self, settings: WebhookTargetSettings, name: str, *, external_url: str = "") -> None:
        self.name = name
        self._payload: Callable[[Notice], dict[str, Any]] = Notice.as_dict
        if settings.format == "alertmanager":
            self._payload = lambda notice: notice.as_alertmanager(name, external_url)
        self._url = settings.url
        self._headers = {key: value.get_secret_value() for key, value in settings.headers.items()}
        self._session: aiohttp.ClientSession | None = None

    async def send(self, notice: Notice) -> None:
        if self._session is None:  # here, not in the constructor: a session belongs to a running loop
            # The caller's timeout is the only one; cookies of one alert are no business of the next.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.post(
                self._url, json=self._payload(notice), headers=self._headers, allow_redirects=False
            ) as response:
                status = response.status
        except aiohttp.ClientConnectorError as error:
            raise DeliveryError(f"cannot connect ({error.os_error.strerror or 'name not resolved'})") from None
        except (aiohttp.ClientError, ValueError) as error:  # their texts may quote the address
            raise DeliveryError(f"the request failed ({type(error).__name__})") from None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise DeliveryError(f"the answer was HTTP status {status}, expected 2xx")

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class AppriseTarget:
    """Any service with an apprise URL. apprise is blocking, so it works in a thread.

    Raises ConfigurationError when apprise is missing or does not know the URL.
    """

    def __init__(self, settings: AppriseTargetSettings, name: str, *, timeout_s: float) -> None:
        self.name = name
        try:
            import apprise  # noqa: PLC0415  a tenth of a second that only its users pay
        except ImportError as error:
            raise ConfigurationError(
                f"alert target {name!r} needs apprise, which cannot be imported ({error}); run: pip install apprise"
            ) from None
        # These loggers quote the URL, token and all.
        for logger in ("apprise", "urllib3.connectionpool"):
            logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
        plugin = apprise.Apprise.instantiate(settings.url.get_secret_value())
        if plugin is None:
            raise ConfigurationError(
                f"alert target {name!r}: apprise does not know its URL (hidden, it may hold a secret); expected"
                " such as mailto://user:password@example.org or tgram://token/chat; see https://appriseit.com"
            )
        # A thread cannot be cancelled: it must end by itself at about the time its caller stops waiting.
        plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s / 2
        self._notify: Callable[..., Any] = plugin.notify
        self._kinds = {
            "page": apprise.NotifyType.FAILURE,
            "ticket": apprise.NotifyType.WARNING,
            "resolved": apprise.NotifyType.SUCCESS,
        }

    async def send(self, notice: Notice) -> None:
        kind = self._kinds["resolved" if notice.alert.state is AlertState.RESOLVED else notice.alert.subject.severity]
        try:
            taken = await asyncio.to_thread(self._notify, body=notice.body, title=notice.title, notify_type=kind)
        except Exception as error:  # whatever a plug-in raises, its text may quote the address
            raise DeliveryError(f"apprise failed ({type(error).__name__})") from None
        if not taken:
            raise DeliveryError("the service did not take it")

    async def close(self) -> None:
        """Nothing is kept open between two messages."""


def build_targets(settings: Sequence[AnyTarget], *, timeout_s: float, external_url: str = "") -> list[Target]:
    """Build the targets in order, named by ``target_names``."""
    return [
        AppriseTarget(one, name, timeout_s=timeout_s)
        if isinstance(one, AppriseTargetSettings)
        else WebhookTarget(one, name, external_url=external_url)
        for one, name in zip(settings, target_names(settings), strict=True)
    ]
