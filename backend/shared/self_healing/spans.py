"""The spans of health and repair: what each is called, and what is written down about it.

``probe``: one look at a service. ``repair incident``: from the decision to repair until it is closed, given up or
stopped; the looks that verify it and each ``repair rung`` are its children.
"""

from __future__ import annotations

from backend.shared.self_healing.ladder import Run
from backend.shared.self_healing.repair_case import Case
from modules.contracts.health import ProbeOutcome, ProbeResult, RepairPhase, Role, RungOutcome
from modules.contracts.tracing import (
    ERROR_TYPE,
    INCIDENT_ID,
    INCIDENT_OUTCOME,
    INCIDENT_REASON,
    PEER_SERVICE,
    PROBE_KIND,
    PROBE_OUTCOME,
    PROBE_ROLE,
    RUNG_ACTION,
    RUNG_ATTEMPT,
    RUNG_KIND,
    RUNG_NUMBER,
    RUNG_OUTCOME,
    Span,
    SpanStatus,
    span,
)

_WENT_WELL = (RungOutcome.DONE, RungOutcome.DRY_RUN)


def probe_span(service: str, role: Role, kind: str) -> Span:
    """Begin a look at ``service``."""
    return span("probe", attributes={PEER_SERVICE: service, PROBE_ROLE: role.value, PROBE_KIND: kind})


def end_probe(looking: Span, found: ProbeResult) -> None:
    """Write down what was found."""
    if looking.recording:
        looking.set_attribute(PROBE_OUTCOME, found.outcome.value)
        if found.outcome is not ProbeOutcome.PASS:
            looking.set_attribute(ERROR_TYPE, found.outcome.value)
            looking.set_status(SpanStatus.ERROR, found.detail)


def incident_span(case: Case) -> Span:
    """Begin to drive the open incident of ``case``; it counts as interrupted until ``end_incident``."""
    return span(
        "repair incident",
        attributes={
            PEER_SERVICE: case.name,
            INCIDENT_ID: case.ladder.incident or "",
            INCIDENT_REASON: case.ladder.reason,
            INCIDENT_OUTCOME: "interrupted",
        },
    )


def end_incident(driving: Span, phase: RepairPhase) -> None:
    """Write down how it ended: given up, or verified and closed."""
    if driving.recording:
        outcome = "gave_up" if phase is RepairPhase.GAVE_UP else "closed"
        driving.set_attribute(INCIDENT_OUTCOME, outcome)
        if phase is RepairPhase.GAVE_UP:
            driving.set_attribute(ERROR_TYPE, outcome)
            driving.set_status(SpanStatus.ERROR, "no rung of the ladder helped")


def rung_span(case: Case, run: Run) -> Span:
    """Begin a run of a rung of ``case``; it counts as interrupted until ``end_rung``."""
    rung = case.rungs[run.rung]
    return span(
        "repair rung",
        attributes={
            PEER_SERVICE: case.name,
            INCIDENT_ID: case.ladder.incident or "",
            RUNG_NUMBER: run.rung,
            RUNG_KIND: rung.rung.action.kind,
            RUNG_ACTION: rung.describe,
            RUNG_ATTEMPT: run.attempt,
            RUNG_OUTCOME: RungOutcome.INTERRUPTED.value,
        },
    )


def end_rung(running: Span, outcome: RungOutcome, detail: str) -> None:
    """Write down how the run ended; whether it helped, only the looks after it tell."""
    if running.recording:
        running.set_attribute(RUNG_OUTCOME, outcome.value)
        if outcome not in _WENT_WELL:
            running.set_attribute(ERROR_TYPE, outcome.value)
            running.set_status(SpanStatus.ERROR, detail)
