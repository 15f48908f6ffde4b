"""What the admin API answers about objectives. Percentages lie in 0..100, times are unix seconds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from modules.contracts.slo import AlertSeverity, BudgetingMethod, SLOStatus, WindowKind


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, from_attributes=True)


class WindowView(_Model):
    """An objective over one of its windows."""

    name: str
    """Such as ``30d`` or ``month``."""
    kind: WindowKind
    starts_at: float
    ends_at: float | None
    """Null for a rolling window, which ends now."""
    good: float
    """Good events, or slices of time; a fraction where ratios are counted."""
    total: float
    sli: float | None
    """Percent of good; null without data."""
    error_budget_remaining: float | None
    """Percent of the budget left; negative when overspent; null without data."""
    status: SLOStatus
    """The verdict on these counts alone."""


class BurnAlertView(_Model):
    """A row of the burn-rate table that is pending or fires."""

    severity: AlertSeverity
    """page: now; ticket: soon."""
    state: str
    """pending or firing."""
    window: str
    """Its long window."""
    factor: float
    """The burn rate at which it fires."""
    burn_rate: float | None
    """As last evaluated over the long window; null without data."""
    since: float


class MemberView(_Model):
    """A part of a composite objective."""

    name: str
    weight: float
    sli: float | None
    """Percent of good over the composite's first window; null without data."""


class ObjectiveView(_Model):
    """An objective as it stands now."""

    name: str
    description: str
    service: str | None
    """The service that it belongs to, if any."""
    objective: float
    """Percent that must be good."""
    method: BudgetingMethod
    """What is budgeted: each event, each slice of time, or each slice's ratio."""
    status: SLOStatus
    """Silence is never green: without data it is no_data, or what the objective says for that."""
    sli: float | None
    """Percent of good over the first window; null without data."""
    error_budget_remaining: float | None
    """Percent of the first window's budget left; negative when overspent; null without data."""
    burn_rates: dict[str, float]
    """Speed at which the budget is spent, by window; at 1 it lasts exactly its window. No data, no entry."""
    projected_exhaustion_s: float | None
    """Seconds until the budget is spent at the present rate; 0 when it is; null when it lasts, or without data."""
    value: float | None
    """The newest sample in its own unit, where there is one."""
    windows: tuple[WindowView, ...]
    """Every window; the first is the one that alerts and policy look at."""
    alerts: tuple[BurnAlertView, ...]
    """Burn-rate alerts that are pending or fire."""
    budget_steps: tuple[str, ...]
    """Steps of the error budget policy in force: tighten, shed, freeze."""
    members: tuple[MemberView, ...]
    """The parts of a composite; else empty."""


class ObjectivesView(_Model):
    """Objectives as they stand now, by name."""

    now: float
    objectives: tuple[ObjectiveView, ...]
