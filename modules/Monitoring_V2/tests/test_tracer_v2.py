"""Monitoring V2's tracer, as a program uses it that embeds one."""

from __future__ import annotations

import random

from modules.contracts.tracing import active_tracer, span
from modules.Monitoring_V2.src.backend_integration import get_tracer
from modules.settings import TracingSettings


async def test_what_runs_after_the_start_is_traced_without_being_handed_the_tracer() -> None:
    settings = TracingSettings(enabled=True, exporter="none", sample_ratio=0.5)
    tracer = get_tracer("shop", settings=settings, rng=random.Random(7))
    await tracer.start()
    headers: dict[str, str] = {}
    with span("outer") as outer, span("inner"):
        tracer.inject(headers)
    assert active_tracer() is tracer
    assert outer.context is not None
    assert outer.context.trace_id in headers["traceparent"]
    await tracer.stop()


def test_export_tells_settings_and_what_became_of_the_spans() -> None:
    settings = TracingSettings(enabled=True, exporter="none", service_name="shop")
    exported = get_tracer("shop", settings=settings).export()
    assert TracingSettings(**exported["settings"]) == settings
    assert exported["spans"] == {"exported": 0, "failed": 0, "dropped": 0, "waiting": 0}
