"""Monitoring V1's tracer: nothing is recorded until that is asked for."""

from __future__ import annotations

import pytest

from modules.contracts.clock import SystemClock
from modules.Monitoring_V1.src.backend_integration import get_tracer
from modules.settings import TracingSettings


@pytest.mark.parametrize("use_backend", [None, True, False])
def test_a_tracer_that_nobody_configured_records_nothing(use_backend: bool | None) -> None:
    with get_tracer(use_backend=use_backend).span("work") as span:
        assert not span.recording


async def test_a_tracer_that_is_switched_on_records_with_identifiers_of_its_own() -> None:
    tracer = get_tracer("shop", settings=TracingSettings(enabled=True, exporter="none"), clock=SystemClock())
    with tracer.span("one") as one, tracer.span("two") as two:
        assert one.recording
        assert one.context is not None
        assert two.context is not None
        assert (one.context.trace_id, one.context.span_id != two.context.span_id) == (two.context.trace_id, True)
    await tracer.stop()
