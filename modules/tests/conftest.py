"""The three ways in which a backend may be there, for every conformance test."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from modules.bridge import detect


@pytest.fixture(params=["on", "off", "missing"])
def use_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool | None]:
    """What a factory is given: True with a backend, False, and None where the backend's packages are missing."""
    detect.cache_clear()
    if request.param == "missing":
        for needed in ("aiohttp", "prometheus_client"):
            monkeypatch.setitem(sys.modules, needed, None)
        monkeypatch.delitem(sys.modules, "backend.shared.monitoring.metrics", raising=False)
    yield {"on": True, "off": False, "missing": None}[request.param]
    detect.cache_clear()
