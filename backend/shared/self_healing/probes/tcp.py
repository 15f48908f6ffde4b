"""Opens a TCP connection and closes it at once: somebody listens."""

from __future__ import annotations

import asyncio

from backend.shared.self_healing.probes.faults import fail, judge_connect
from backend.shared.self_healing.settings import TcpProbeSettings
from modules.contracts.health import PASS, BuildContext, ProbeResult


class TcpProbe:
    """Connects to ``settings.host`` and ``settings.port``."""

    kind = "tcp"

    def __init__(self, settings: TcpProbeSettings) -> None:
        self._host = settings.host
        self._port = settings.port
        self._timeout_s = settings.timeout_ms / 1000

    async def probe(self) -> ProbeResult:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                transport, _ = await loop.create_connection(asyncio.Protocol, self._host, self._port)
        except TimeoutError:
            return fail(f"{self._host}:{self._port} did not accept a connection within {self._timeout_s * 1000:g} ms")
        except OSError as error:
            return judge_connect(error, self._host, self._port)
        transport.abort()
        return PASS

    async def close(self) -> None:
        """Nothing is held."""


def build(settings: TcpProbeSettings, context: BuildContext) -> TcpProbe:
    return TcpProbe(settings)
