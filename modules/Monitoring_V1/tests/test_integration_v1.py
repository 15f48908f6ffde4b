"""Monitoring V1: a plain collector, whose objectives have one window."""

from __future__ import annotations

import pytest

from modules.contracts.slo import SLOStatus
from modules.Monitoring_V1.src.backend_integration import BACKEND_AVAILABLE, BACKEND_ERROR, get_metrics_collector


def test_the_backend_is_there_and_gives_no_reason() -> None:
    assert (BACKEND_AVAILABLE, BACKEND_ERROR) == (True, None)


@pytest.mark.parametrize("use_backend", [None, True, False])
def test_values_and_objectives_without_burn_rates(use_backend: bool | None) -> None:
    collector = get_metrics_collector("myapp", use_backend)
    collector.define_slo("fast", 1.0, "wait", "<=", objective=50)
    collector.record_metric("wait", 0.5, unit="seconds")
    report = collector.get_slo_status()["fast"]
    assert (report.status, report.error_budget_remaining, report.burn_rates) == (SLOStatus.MET, 100.0, {})
    assert collector.value("wait") == 0.5
    assert b"myapp_wait_seconds_sum 0.5" in collector.render()[0]
