"""Alerts as they stand, and the silences that hold them back."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from modules.contracts.alerts import AlertManager, AlertState, AlertStatus, Silence, UnknownSilenceError
from modules.settings import SilenceMatchers
from runtime.parts import Parts
from runtime.web.errors import RefusedError, documented

_YEAR_S = 86_400 * 366
_LAST_S = 253_402_300_799.0  # the end of the year 9999: what is later is no date

SilenceId = Annotated[str, Path(description="The silence's id.", max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class AlertView(_Model):
    """An alert as it stands."""

    key: str
    state: AlertState
    """pending: nobody is told yet; firing; resolved."""
    labels: dict[str, str]
    """What identifies it, and what routes and silences match."""
    fingerprint: str
    """Hash of the labels, as in Prometheus; the same in every run."""
    summary: str
    since: float
    """Unix seconds at which it took its state."""
    starts_at: float
    ends_at: float | None
    """Null until it is resolved."""
    incident: str | None
    targets: tuple[str, ...]
    """Who is to be told."""
    told: tuple[str, ...]
    """Who took the news of this state."""
    failed: tuple[str, ...]
    """Who did not, after every try."""
    silenced_by: tuple[str, ...]
    """Ids of silences that hold it back."""
    inhibited_by: tuple[str, ...]
    """Keys of alerts that make it needless: the page of the same objective."""


class AlertsView(_Model):
    """Every alert: what is pending or fires, oldest first, then what ended last, newest first."""

    alerts: tuple[AlertView, ...]


class SilenceView(_Model):
    """A time in which nobody is told of some alerts."""

    id: str
    matchers: dict[str, str]
    """Label -> pattern; all must match."""
    starts_at: float
    ends_at: float
    comment: str
    active: bool
    """Whether it is in force now."""
    configured: bool
    """Written in the configuration, and to be ended only there."""


class SilencesView(_Model):
    """The silences in force and to come, by their beginning."""

    silences: tuple[SilenceView, ...]


class SilenceRequest(_Model):
    """What to silence, for how long, and why."""

    model_config = ConfigDict(extra="forbid")

    matchers: SilenceMatchers
    """Which alerts; all that are given must match."""
    starts_at: Annotated[float, Field(ge=0, le=_LAST_S)] | None = None
    """Unix seconds; now when not given."""
    ends_at: Annotated[float, Field(gt=0, le=_LAST_S)] | None = None
    """Unix seconds; this or ``duration_s``."""
    duration_s: Annotated[float, Field(gt=0, le=_YEAR_S)] | None = None
    """Seconds from its beginning; this or ``ends_at``."""
    comment: Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    """Why, on one line."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.ends_at is None) == (self.duration_s is None):
            raise ValueError("needs exactly one of ends_at and duration_s")
        return self

    def span(self, now: float) -> tuple[float, float]:
        """Return beginning and end in unix seconds."""
        starts_at = now if self.starts_at is None else self.starts_at
        return starts_at, starts_at + self.duration_s if self.duration_s is not None else self.ends_at or starts_at


def alert_routes(parts: Parts) -> APIRouter:
    """Return /api/v1/alerts and /api/v1/silences over ``parts``."""
    router = APIRouter(prefix="/api/v1", tags=["alerts"])

    @router.get("/alerts", summary="Every alert", responses=documented(404))
    async def alerts() -> AlertsView:
        """What is pending, what fires and whom that was told, what holds it back, and what ended last."""
        return AlertsView(alerts=tuple(_alert(status) for status in _manager(parts).alerts()))

    @router.get("/silences", summary="Every silence", responses=documented(404))
    async def silences() -> SilencesView:
        """Those that are over are not listed."""
        now = parts.clock.time()
        return SilencesView(silences=tuple(_silence(one, now) for one in _manager(parts).silences()))

    @router.post("/silences", status_code=201, summary="Silence alerts", responses=documented(404, 409, 422, 503))
    async def silence(body: SilenceRequest) -> SilenceView:
        """Tell nobody of these alerts for a time, also across restarts. What still fires at its end is told then."""
        now = parts.clock.time()
        starts_at, ends_at = body.span(now)
        made = _manager(parts).silence(
            body.matchers.patterns, starts_at=starts_at, ends_at=ends_at, comment=body.comment
        )
        return _silence(made, now)

    @router.delete("/silences/{id}", status_code=204, summary="End a silence", responses=documented(404, 409, 422, 503))
    async def end_silence(id: SilenceId) -> None:
        """What still fires is told at once."""
        manager = _manager(parts)
        try:
            manager.end_silence(id)
        except UnknownSilenceError as error:
            known = [one.id for one in manager.silences()]
            raise RefusedError(404, "unknown_silence", str(error), allowed=known) from None

    return router


def _manager(parts: Parts) -> AlertManager:
    if parts.alerts is None:
        raise RefusedError(
            404,
            "no_alerts",
            "nothing keeps alerts in this deployment; start with monitoring=v2, the backend, and alerts.targets",
        )
    return parts.alerts


def _alert(status: AlertStatus) -> AlertView:
    return AlertView.model_validate(status, from_attributes=True)


def _silence(one: Silence, now: float) -> SilenceView:
    return SilenceView(
        id=one.id,
        matchers=dict(one.matchers),
        starts_at=one.starts_at,
        ends_at=one.ends_at,
        comment=one.comment,
        active=one.starts_at <= now < one.ends_at,
        configured=one.configured,
    )
