"""What the admin API answers and takes, beside the views that the terminal shares (``runtime.view``)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from runtime.view import RepairView, ServiceView


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Root(_Model):
    """Where to go from here."""

    name: str
    version: str
    deployment: str
    links: dict[str, str]
    """Paths by what they show."""


class Liveness(_Model):
    """The runtime answers."""

    alive: bool
    state: str
    """starting, running, draining or stopped."""


class Readiness(_Model):
    """Whether the runtime knows the health of all its services."""

    ready: bool
    state: str
    """starting, running, draining or stopped."""
    reasons: tuple[str, ...]
    """Why it is not ready; empty when it is."""


class EventView(BaseModel):
    """Something that happened. Further fields depend on ``kind``."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="allow")

    id: int
    """Grows by one from event to event."""
    kind: str
    """health_changed, repair_started, incident_opened and so on."""
    at: float
    """Unix seconds."""
    service: str | None
    message: str
    """One sentence for a person."""


class AuditView(_Model):
    """One decision or act, kept across restarts."""

    id: int
    """Grows across restarts."""
    at: float
    """Unix seconds."""
    kind: str
    message: str
    service: str | None
    incident: str | None
    data: dict[str, Any]


class AuditPage(_Model):
    """A page of the audit trail."""

    records: tuple[AuditView, ...]
    next: int | None
    """Give this as ``before`` (as ``after``, when ``after`` was given) for the next page; null on the last."""


class ServiceDetail(ServiceView):
    """A service, what happened to it last and what its process wrote last."""

    events: tuple[EventView, ...]
    """The newest events of this service that are still in memory, oldest first."""
    audit: tuple[AuditView, ...]
    """The newest audit records of this service, newest first."""
    output: str | None
    """The newest lines that its process wrote; null without a supervised process whose output is kept."""


class RepairRequest(BaseModel):
    """Why a repair is asked for."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")] = "asked for"
    """One line for the audit trail."""


class RepairResult(_Model):
    """How a repair ended."""

    service: str
    incident: str
    repaired: bool
    """Whether the service is verified healthy again."""
    actions: tuple[str, ...]
    """What was done, in order."""
    detail: str


class RepairAnswer(_Model):
    """A repair that was asked for."""

    service: str
    finished: bool
    """False: it goes on in the background; see ``/api/v1/services/{name}`` and ``/api/v1/events``."""
    result: RepairResult | None
    """How it ended; null while it goes on."""


class RepairsView(_Model):
    """The repair of every service that has one."""

    services: dict[str, RepairView]


class Problem(_Model):
    """One thing wrong with a request."""

    where: str
    """Part and field, such as ``query.limit``."""
    message: str


class ErrorDetail(_Model):
    """What went wrong."""

    kind: str
    """A stable word for programs, such as ``unknown_service``."""
    message: str
    """What was found, what is allowed, what to do."""
    allowed: tuple[str, ...] | None = None
    """What would have been accepted, where that is a list."""
    problems: tuple[Problem, ...] | None = None
    """Each problem of a request that does not validate."""


class ErrorAnswer(_Model):
    """The one shape of every error."""

    error: ErrorDetail
