"""What a user writes about objectives: what is counted, over which windows, by which method, and who is told.

Needs pydantic alone, as the other settings. The words are OpenSLO's and those of the Google SRE workbook.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from backend.shared.settings import Settings

Objective = Annotated[float, Field(gt=0, lt=100)]
Share = Annotated[float, Field(gt=0, le=1)]
METRIC_NAME = r"^[a-z][a-z0-9_]*$"
MetricName = Annotated[str, Field(pattern=METRIC_NAME)]

_DAY_S = 86_400.0


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is no time zone such as Europe/Berlin or UTC, found {name!r}") from None
    return name


# --- what is counted --------------------------------------------------------------------------------


class HealthIndicatorSettings(Settings):
    """The checks of a service: good is one that passed, and within ``latency_ms`` when that is given."""

    kind: Literal["health"]
    service: str
    """The service."""
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """A slower check is not good."""


class ThresholdIndicatorSettings(Settings):
    """The samples of a metric: good is one that compares so with the threshold."""

    kind: Literal["threshold"]
    metric: MetricName
    """The metric, as it is recorded, without prefix."""
    comparison: Literal["<=", "<", ">=", ">"] = "<="
    """How a good sample compares with the threshold."""
    threshold: float
    """The threshold, in the metric's own unit."""


class RatioIndicatorSettings(Settings):
    """Two counters: good (or bad) of total. What is added to them is what is counted."""

    kind: Literal["ratio"]
    total: MetricName
    """Counter of all events."""
    good: MetricName | None = None
    """Counter of good events; this or ``bad``."""
    bad: MetricName | None = None
    """Counter of bad events; this or ``good``."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.good is None) == (self.bad is None):
            raise ValueError("needs exactly one of good and bad")
        return self


class RawRatioIndicatorSettings(Settings):
    """A metric whose samples are ratios, 0 to 1, already; each sample weighs the same."""

    kind: Literal["raw_ratio"]
    metric: MetricName
    """The metric, as it is recorded, without prefix."""
    of: Literal["success", "failure"] = "success"
    """Whether 1 is all good or all bad."""


class CompositeIndicatorSettings(Settings):
    """Other objectives, weighted. Its SLI is the weighted mean of theirs; those without data are left out."""

    kind: Literal["composite"]
    weights: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Objective (or service) -> weight."""


AnyIndicator = Annotated[
    HealthIndicatorSettings
    | ThresholdIndicatorSettings
    | RatioIndicatorSettings
    | RawRatioIndicatorSettings
    | CompositeIndicatorSettings,
    Field(discriminator="kind"),
]


# --- over which windows, by which method ------------------------------------------------------------


class RollingWindowSettings(Settings):
    """The last so many days."""

    kind: Literal["rolling"]
    days: Annotated[float, Field(gt=0, le=366)]
    """Length in days; 0.0417 is an hour."""

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return round(self.days * _DAY_S, 3)


class CalendarWindowSettings(Settings):
    """The current day, week (from Monday), month, quarter or year in a time zone; the budget begins anew with it."""

    kind: Literal["calendar"]
    unit: Literal["day", "week", "month", "quarter", "year"]
    """The calendar unit."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """IANA name of the zone in which it begins at midnight, over daylight-saving changes."""

    @property
    def length_s(self) -> float:
        """Usual length in seconds: burn factors would otherwise differ from month to month."""
        return {"day": 1, "week": 7, "month": 30, "quarter": 90, "year": 365}[self.unit] * _DAY_S


AnyWindow = Annotated[RollingWindowSettings | CalendarWindowSettings, Field(discriminator="kind")]


class OccurrencesSettings(Settings):
    """Each event counts once."""

    kind: Literal["occurrences"]


class TimeslicesSettings(Settings):
    """Each slice of time counts once: it is good when at least ``slice_objective`` percent of its events were."""

    kind: Literal["timeslices"]
    slice_s: Annotated[float, Field(ge=10, le=86_400)] = 60
    """Length of a slice."""
    slice_objective: Objective | Literal[100] = 95
    """Percent of good events that makes a slice good."""


class RatioTimeslicesSettings(Settings):
    """Each slice of time counts with its own ratio, whatever its traffic."""

    kind: Literal["ratio_timeslices"]
    slice_s: Annotated[float, Field(ge=10, le=86_400)] = 60
    """Length of a slice."""


AnyMethod = Annotated[OccurrencesSettings | TimeslicesSettings | RatioTimeslicesSettings, Field(discriminator="kind")]


# --- who is told, and what follows ------------------------------------------------------------------


class BurnAlertSettings(Settings):
    """One row of the table of multi-window, multi-burn-rate alerts: the factor follows from share and period."""

    severity: Literal["page", "ticket"]
    """page: now; ticket: soon."""
    budget_share: Share
    """Share of the budget, 0..1, that may be spent in the long window."""
    long_s: Annotated[float, Field(ge=60)]
    """The long window; the short one is a twelfth."""

    def factor(self, period_s: float) -> float:
        """Return the burn rate that spends the share within the long window, of a budget for so many seconds."""
        return self.budget_share * period_s / self.long_s


class LowTrafficSettings(Settings):
    """So that one failure at ten requests an hour pages nobody, and a full outage still does."""

    min_bad_events: Annotated[int, Field(ge=1)] = 3
    """An alert fires only with so many bad events in its long window."""


_WORKBOOK = (
    BurnAlertSettings(severity="page", budget_share=0.02, long_s=3600),
    BurnAlertSettings(severity="page", budget_share=0.05, long_s=6 * 3600),
    BurnAlertSettings(severity="ticket", budget_share=0.10, long_s=86_400),
    BurnAlertSettings(severity="ticket", budget_share=0.10, long_s=3 * 86_400),
)


class AlertingSettings(Settings):
    """When the budget burns too fast."""

    burn_alerts: tuple[BurnAlertSettings, ...] = _WORKBOOK
    """The table; the workbook's by default. A row that can never fire at an objective is refused when it is written
    here, and left out of the default table."""
    low_traffic: LowTrafficSettings = LowTrafficSettings()
    """The guard for little traffic."""
    pending_s: Annotated[float, Field(ge=0)] = 0
    """How long a row must hold before it fires; until then it is pending."""
    resolve_s: Annotated[float, Field(ge=0)] = 60
    """How long it must have ceased before it resolves, so that it does not flutter."""


class BudgetStepSettings(Settings):
    """A step of the error budget policy, for other modules to act on."""

    below: Annotated[float, Field(ge=-1000, le=100)]
    """It holds while less than so many percent of the budget are left."""
    step: Literal["tighten", "shed", "freeze"]
    """tighten: be careful, repair sooner; shed: refuse the least important load; freeze: no changes."""


class ObjectiveSettings(Settings):
    """A promise: what is counted, how much of it must be good, over which windows."""

    description: str = ""
    """For people."""
    service: str | None = None
    """The service it belongs to, for labels and maintenance windows."""
    indicator: AnyIndicator
    """What is counted."""
    objective: Objective
    """Percent that must be good."""
    windows: Annotated[tuple[AnyWindow, ...], Field(min_length=1)] = (RollingWindowSettings(kind="rolling", days=30),)
    """The windows; the first is the one whose budget alerts and policy look at."""
    method: AnyMethod = OccurrencesSettings(kind="occurrences")
    """How events are budgeted."""
    no_data: Literal["unknown", "violated", "keep"] = "unknown"
    """Without data: no_data; violated; or keep the last status. Never met."""
    alerting: AlertingSettings | None = None
    """Its own alerting; the ``slo`` group's when not given."""
