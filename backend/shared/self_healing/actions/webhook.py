"""Posts the incident as JSON to a URL: a 2xx answer is success."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp

from backend.shared.self_healing.settings import WebhookRungSettings
from modules.contracts.errors import RepairError
from modules.contracts.health import BuildContext, RepairContext
from modules.contracts.tracing import inject

_ANSWER_BYTES = 1024


class WebhookAction:
    """Posts to ``settings.url``. Redirects are not followed: they would carry the headers to another host."""

    kind = "webhook"

    def __init__(self, settings: WebhookRungSettings) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        self._host = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"

    @property
    def describe(self) -> str:
        return f"post to {self._host}"  # user, path and query may hold secrets

    async def run(self, context: RepairContext) -> str:
        body = {
            "service": context.service,
            "incident": context.incident,
            "reason": context.reason,
            "attempt": context.attempt,
        }
        headers = dict(self._settings.headers)
        inject(headers)
        try:
            # The rung's own timeout is the only one; a rung runs too seldom for a connection to be kept.
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
                session.post(self._settings.url, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return f"{self._host} answered {answer.status}"
                text = (await answer.content.read(_ANSWER_BYTES)).decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's own text may hold the whole address.
            raise RepairError(
                f"{self._host} could not be asked: {self._hide(str(error)) or type(error).__name__}"
            ) from error
        moved = "; redirects are not followed, give the final address" if 300 <= answer.status < 400 else ""
        raise RepairError(
            f"{self._host} answered {answer.status}, expected 200 to 299{moved}"
            f"{f'; it said: {text[:200]}' if text else ''}"
        )

    def _hide(self, text: str) -> str:
        return text.replace(self._settings.url, self._host)


def build(settings: WebhookRungSettings, context: BuildContext) -> WebhookAction:
    return WebhookAction(settings)
