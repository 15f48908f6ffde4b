"""Objectives: what is promised, what is kept, how fast the budget is spent, and what follows from it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from modules.contracts.errors import did_you_mean
from modules.contracts.slo import ObjectiveReport, SLOStatus
from runtime.parts import Parts
from runtime.web.errors import RefusedError, documented
from runtime.web.slo_models import BurnAlertView, MemberView, ObjectivesView, ObjectiveView, WindowView

_NAMED = 20
"""So many names a message holds; ``allowed`` has them all."""

Name = Annotated[str, Path(description="An objective's name; that of a service is its checks' objective.")]
Service = Annotated[str | None, Query(description="Only the objectives of this service.")]
Status = Annotated[SLOStatus | None, Query(description="Only the objectives in this status.")]


def slo_routes(parts: Parts) -> APIRouter:
    """Return /api/v1/slo and /api/v1/slo/{name} over ``parts``."""
    router = APIRouter(prefix="/api/v1/slo", tags=["slo"])

    @router.get("", summary="All objectives", responses=documented(422))
    async def slo(service: Service = None, status: Status = None) -> ObjectivesView:
        """Status, SLI, budget left, burn rates, projected exhaustion, alerts and policy steps of each objective."""
        steps = parts.budget_steps()
        reports = (report for _, report in sorted(parts.objectives().items()))
        return ObjectivesView(
            now=parts.clock.time(),
            objectives=tuple(
                _view(report, steps.get(report.name, ()))
                for report in reports
                if service in (None, report.service) and status in (None, report.status)
            ),
        )

    @router.get("/{name}", summary="One objective", responses=documented(404, 422))
    async def objective(name: Name) -> ObjectiveView:
        reports = parts.objectives()
        if name not in reports:
            raise _unknown(name, sorted(reports))
        return _view(reports[name], parts.budget_steps().get(name, ()))

    return router


def _view(report: ObjectiveReport, steps: tuple[str, ...]) -> ObjectiveView:
    return ObjectiveView(
        name=report.name,
        description=report.description,
        service=report.service,
        objective=report.objective,
        method=report.method,
        status=report.status,
        sli=report.sli,
        error_budget_remaining=report.error_budget_remaining,
        burn_rates=dict(report.burn_rates),
        projected_exhaustion_s=report.projected_exhaustion_s,
        value=report.value,
        windows=tuple(WindowView.model_validate(window) for window in report.windows),
        alerts=tuple(BurnAlertView.model_validate(alert) for alert in report.alerts),
        budget_steps=steps,
        members=tuple(MemberView.model_validate(member) for member in report.members),
    )


def _unknown(name: str, names: list[str]) -> RefusedError:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    known = ", ".join(names[:_NAMED]) + more if names else "none; declare one under slo.objectives"
    message = f"no objective named {name!r}{did_you_mean(name, names)}; known: {known}"
    return RefusedError(404, "unknown_objective", message, allowed=names)
