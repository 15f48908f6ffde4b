"""The application: guard, routes, documentation page and the one shape of errors, put together."""

from __future__ import annotations

from fastapi import FastAPI

from modules.contracts.tracing import active_tracer
from runtime.parts import Parts
from runtime.view import program_version
from runtime.web import docs, errors
from runtime.web.guard import Guard
from runtime.web.repairs import RepairRequests
from runtime.web.routes.alerts import alert_routes
from runtime.web.routes.runtime import runtime_routes
from runtime.web.routes.services import repair_routes, service_routes
from runtime.web.routes.slo import slo_routes
from runtime.web.routes.trail import trail_routes
from runtime.web.stream import Subscribers
from runtime.web.tracing import TracedRequests

_DESCRIPTION = """\
How a deployment stands, what happened to it, and the few things that can be done to it by hand.

Every error has one shape, `ErrorAnswer`: a stable `kind` for programs and a `message` for people. Times are
unix seconds. Nothing here needs a login, so the server binds a loopback address only, and refuses requests
that a page of another origin makes (403) or that name another host (421).
"""

_TAGS = [
    {"name": "runtime", "description": "The runtime as a whole."},
    {"name": "services", "description": "One service at a time."},
    {"name": "repair", "description": "All repairs at once."},
    {"name": "alerts", "description": "What people should know, and what they do not want to hear for a while."},
    {"name": "slo", "description": "Objectives and their error budgets."},
    {"name": "trail", "description": "What happened."},
]


def create_app(parts: Parts, requests: RepairRequests | None = None) -> FastAPI:
    """Build the admin API over ``parts``. ``requests`` holds its background repairs; who gives it stops it."""
    app = FastAPI(
        title="Selfright admin API",
        version=program_version(),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,  # ours needs no CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(runtime_routes(parts))
    app.include_router(service_routes(parts, requests or RepairRequests(parts)))
    app.include_router(repair_routes(parts))
    app.include_router(alert_routes(parts))
    app.include_router(slo_routes(parts))
    app.include_router(trail_routes(parts, Subscribers()))
    docs.install(app)
    errors.install(app, parts.events)
    tracer = active_tracer()
    if tracer is not None:
        app.add_middleware(TracedRequests, tracer=tracer)
    app.add_middleware(Guard, host=parts.settings.server.host)  # last, so that it stands outermost
    return app
