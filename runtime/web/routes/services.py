"""One service: how it stands, its repair by hand, the pauses of its repair, and its heartbeat."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from modules.contracts.errors import UnknownServiceError
from modules.contracts.health import AutoRepair
from runtime.parts import Parts
from runtime.view import ServiceView, look_at
from runtime.web.errors import RefusedError, documented
from runtime.web.models import (
    AuditView,
    EventView,
    RepairAnswer,
    RepairRequest,
    RepairResult,
    RepairsView,
    ServiceDetail,
)
from runtime.web.repairs import RepairRequests, watching_only

_NEWEST_EVENTS = 50
_NEWEST_RECORDS = 20

_REFUSAL_WAIT_S = 0.05
"""A repair that is refused is refused at once; so long an answer waits to be able to say so."""

Name = Annotated[str, Path(description="A service's name.", examples=["api"])]
Wait = Annotated[bool, Query(description="Answer when the repair has ended, or after ``timeout_s``.")]
Timeout = Annotated[float, Query(gt=0, le=600, description="How long to wait, in seconds.")]


def service_routes(parts: Parts, requests: RepairRequests) -> APIRouter:
    """Return /api/v1/services/{name} and what can be done to a service."""
    router = APIRouter(prefix="/api/v1/services/{name}", tags=["services"])

    @router.get("", summary="One service, with what happened to it last", responses=documented(404, 422))
    async def service(name: Name) -> ServiceDetail:
        view = look_at(parts, name)
        events = [event for event in parts.events.recent() if event.service == name][-_NEWEST_EVENTS:]
        return ServiceDetail(
            **dict(view),
            events=tuple(EventView.model_validate(event.as_dict()) for event in events),
            audit=tuple(
                AuditView.model_validate(record, from_attributes=True)
                for record in parts.store.audit(service=name, limit=_NEWEST_RECORDS)
            ),
            output=_output(parts, name),
        )

    @router.post(
        "/repair",
        status_code=202,
        summary="Repair a service now",
        responses={
            200: {"model": RepairAnswer, "description": "With ``wait``: the repair has ended."},
            202: {"description": "The repair goes on in the background."},
            **documented(404, 409, 422, 503),
        },
    )
    async def repair(
        name: Name, response: Response, body: RepairRequest | None = None, wait: Wait = False, timeout_s: Timeout = 60
    ) -> RepairAnswer:
        """Climb the repair ladder now, or join a repair that is under way."""
        _repairable(parts, name)
        reason = (body or RepairRequest()).reason
        report = await requests.run(name, reason, wait_s=timeout_s if wait else _REFUSAL_WAIT_S)
        if wait and report is not None:
            response.status_code = 200
        result = RepairResult.model_validate(report, from_attributes=True) if report else None
        return RepairAnswer(service=name, finished=report is not None, result=result)

    @router.post("/pause", summary="Pause the repair of a service", responses=documented(404, 409, 422))
    async def pause(name: Name) -> ServiceView:
        """Begin no further rung for this service until it is resumed. It is still checked."""
        _repairable(parts, name).pause(name)
        return look_at(parts, name)

    @router.post("/resume", summary="Resume the repair of a service", responses=documented(404, 409, 422))
    async def resume(name: Name) -> ServiceView:
        _repairable(parts, name).resume(name)
        return look_at(parts, name)

    @router.put(
        "/heartbeat",
        status_code=204,
        response_class=Response,
        summary="Report a service alive",
        responses={204: {"description": "Taken."}, **documented(404, 409, 422)},
    )
    async def heartbeat(name: Name) -> None:
        """For services whose probe is ``kind: heartbeat``: they call this more often than its ``ttl_s``."""
        kinds = _probe_kinds(parts, name)
        if "heartbeat" not in kinds:
            raise RefusedError(
                409,
                "no_heartbeat_probe",
                f"{name} has no heartbeat probe (it has: {', '.join(kinds)}), so nobody would look at its heartbeats;"
                f" set services.{name}.probe.kind=heartbeat",
            )
        parts.heartbeats.beat(name)

    return router


def repair_routes(parts: Parts) -> APIRouter:
    """Return /api/v1/repair/pause and /resume, for all services at once."""
    router = APIRouter(prefix="/api/v1/repair", tags=["repair"])

    @router.post("/pause", summary="Pause every repair", responses=documented(409))
    async def pause_all() -> RepairsView:
        """Begin no further rung for any service until resumed. Everything is still checked."""
        _repairer(parts, "this deployment").pause()
        return _repairs(parts)

    @router.post("/resume", summary="Resume every repair", responses=documented(409))
    async def resume_all() -> RepairsView:
        _repairer(parts, "this deployment").resume()
        return _repairs(parts)

    return router


def _repairer(parts: Parts, what: str) -> AutoRepair:
    if parts.repair is None:
        raise watching_only(what)
    return parts.repair


def _repairable(parts: Parts, name: str) -> AutoRepair:
    if name not in parts.monitor.services:
        raise UnknownServiceError(name, parts.monitor.services)
    repair = _repairer(parts, name)
    if name not in repair.services:
        raise RefusedError(
            409,
            "no_ladder",
            f"{name} has no repair ladder; give it one under services.{name}.repair",
            allowed=sorted(repair.services),
        )
    return repair


def _repairs(parts: Parts) -> RepairsView:
    views = {name: look_at(parts, name).repair for name in parts.monitor.services}
    return RepairsView(services={name: view for name, view in views.items() if view})


def _probe_kinds(parts: Parts, name: str) -> list[str]:
    if name not in parts.settings.services:
        raise UnknownServiceError(name, parts.settings.services)
    service = parts.settings.services[name]
    return [probe.kind for probe in (service.startup, service.liveness, service.readiness) if probe]


def _output(parts: Parts, name: str) -> str | None:
    if name not in parts.processes.names:
        return None
    # Only a supervisor that keeps output has a tail; the contract does not promise one.
    tail = getattr(parts.processes, "tail", None)
    return None if tail is None else str(tail(name))
