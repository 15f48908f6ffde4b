"""Each test of a collector runs over both implementations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modules.contracts.metrics import MetricsCollector
from modules.Monitoring_V2.src.backend_integration import get_metrics_collector


@pytest.fixture(params=[True, False], ids=["backend", "local"])
def make_collector(request: pytest.FixtureRequest) -> Callable[..., MetricsCollector]:
    def make(prefix: str = "shop") -> MetricsCollector:
        return get_metrics_collector(prefix, use_backend=request.param)

    return make


@pytest.fixture
def collector(make_collector: Callable[..., MetricsCollector]) -> MetricsCollector:
    return make_collector()
