"""Monitoring V3's tracer reads context and configuration, and begins no span."""

from __future__ import annotations

import threading

import pytest

from modules.contracts.errors import ReadOnlyModuleError
from modules.Monitoring_V3.src.backend_integration import get_tracer
from modules.settings import TracingSettings


def test_it_shows_what_is_configured_and_starts_nothing() -> None:
    before = threading.active_count()
    tracer = get_tracer("shop", settings=TracingSettings(enabled=True, service_name="shop"))
    assert tracer.export()["settings"]["service_name"] == "shop"
    assert (tracer.name, tracer.current) == ("shop", None)
    assert threading.active_count() == before


def test_beginning_a_span_is_refused_and_names_the_call_of_v2() -> None:
    with pytest.raises(ReadOnlyModuleError, match=r"Monitoring_V2.*get_tracer\(\)\.span\(\)"):
        get_tracer().span("work")
