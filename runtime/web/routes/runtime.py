"""The runtime as a whole: whether it lives, whether it is ready, its metrics and its status."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from modules.contracts.health import HealthStatus
from runtime.parts import Parts
from runtime.view import RuntimeView, look, program_version
from runtime.web.errors import RefusedError, documented
from runtime.web.models import Liveness, Readiness, Root


def runtime_routes(parts: Parts) -> APIRouter:
    """Return /, /healthz, /readyz, /metrics and /api/v1/status over ``parts``."""
    router = APIRouter(tags=["runtime"])

    @router.get("/", summary="Where to go from here")
    async def root() -> Root:
        return Root(
            name="selfright",
            version=program_version(),
            deployment=parts.deployment,
            links={
                "documentation": "/docs",
                "status": "/api/v1/status",
                "slo": "/api/v1/slo",
                **({"alerts": "/api/v1/alerts"} if parts.alerts else {}),
                "events": "/api/v1/events",
                "audit": "/api/v1/audit",
                "metrics": "/metrics",
                "health": "/healthz",
                "readiness": "/readyz",
            },
        )

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Whether the runtime lives")
    async def healthz() -> Liveness:
        """Answers 200 as long as the runtime's event loop turns, whatever its services do."""
        return Liveness(alive=True, state=parts.state)

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary="Whether the runtime knows its services",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Not ready, with the reasons."}},
    )
    async def readyz() -> Response:
        """Answers 200 when the runtime runs and every service has been checked, healthy or not; else 503."""
        reasons = tuple(reasons_against(parts))
        readiness = Readiness(ready=not reasons, state=parts.state, reasons=reasons)
        return JSONResponse(readiness.model_dump(), status_code=503 if reasons else 200)

    @router.head("/metrics", include_in_schema=False)
    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "The exposition, as text or as OpenMetrics by the Accept header.",
                "content": _EXPOSITION,
            },
            **documented(404),
        },
    )
    async def metrics(request: Request) -> Response:
        if parts.collector is None:
            raise RefusedError(
                404,
                "no_metrics",
                "monitoring=none collects no metrics; start with monitoring=v2",
                allowed=("monitoring=v1", "monitoring=v2", "monitoring=v3"),
            )
        body, content_type = parts.collector.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    @router.get("/api/v1/status", summary="The whole deployment")
    async def status() -> RuntimeView:
        return look(parts)

    return router


_EXPOSITION = {
    "text/plain": {"schema": {"type": "string"}},
    "application/openmetrics-text": {"schema": {"type": "string"}},
}


def reasons_against(parts: Parts) -> list[str]:
    """Return why the runtime is not ready, or nothing."""
    reasons = [] if parts.state == "running" else [f"the runtime is {parts.state}"]
    for name in parts.monitor.services:
        health = parts.monitor.get_status(name)
        if health.last is None:
            reasons.append(f"{name} has not been checked yet")
        elif health.status is HealthStatus.UNKNOWN:
            reasons.append(f"the health of {name} is unknown: {health.last.detail}")
    return reasons
