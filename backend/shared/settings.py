"""The base of every settings model, strict, closed, frozen and documented field by field, and the types they share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an http:// or https:// address with a host, found {url!r}")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"the port must be 1 to 65535, found {url!r}") from None
    return url


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Wait = Annotated[float, Field(ge=0, le=86_400 * 366)]


class Settings(BaseModel):
    """What a user writes. Unknown keys and wrong types are refused; a field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


class SpanSettings(Settings):
    """A time with a beginning and an end."""

    start: AwareDatetime
    """Beginning, ISO 8601 with an offset."""
    end: AwareDatetime
    """End."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        try:
            time = datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            time = None
        if not isinstance(time, datetime) or time.tzinfo is None:
            raise ValueError(f"must be a time with an offset, such as 2026-01-31T03:00:00+01:00, found {value!r}")
        return time

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"ends ({self.end.isoformat()}) before it starts ({self.start.isoformat()})")
        return self
