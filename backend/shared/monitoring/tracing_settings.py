"""What a user writes about traces: whether there are any, how many of them are recorded, and where they go."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from backend.shared.settings import HttpUrl, Settings


def _collector(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user or password, which would be shown;"
            " credentials belong in the environment variable OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: what follows ? or # is not sent")
    return url


class TracingSettings(Settings):
    """Traces of probes, repairs and admin requests, by OpenTelemetry. Needs the extra ``otel``."""

    enabled: bool = False
    """Whether spans are recorded at all."""
    exporter: Literal["otlp", "console", "none"] = "otlp"
    """otlp: to a collector over HTTP; console: a line of JSON a span on stderr; none: only the context travels."""
    endpoint: Annotated[HttpUrl, AfterValidator(_collector)] = "http://127.0.0.1:4318"
    """The collector's OTLP/HTTP address; /v1/traces is added when missing. Headers and certificates come from the
    environment (OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE)."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of new traces that is recorded, 0..1. Of a trace that came from elsewhere its caller decides."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "selfright"
    """Name of this program in traces (service.name)."""
