"""What a user writes about alerts: where they go, which of them go where, and when nobody is to be told.

Needs pydantic alone, as the other settings. The words are Alertmanager's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from backend.shared.settings import HttpUrl, Seconds, Settings, SpanSettings, Wait
from modules.contracts.errors import did_you_mean

Glob = Annotated[str, Field(min_length=1, max_length=200)]
Severity = Literal["page", "ticket"]


class AppriseTargetSettings(Settings):
    """Any service that apprise can reach."""

    kind: Literal["apprise"]
    url: SecretStr
    """The apprise URL. It holds a secret: take it from the environment."""
    name: str = "apprise"
    """How it is called in the log and in routes."""


class WebhookTargetSettings(Settings):
    """POST the alert as JSON."""

    kind: Literal["webhook"]
    url: HttpUrl
    """The address."""
    headers: dict[str, SecretStr] = {}  # noqa: RUF012  pydantic copies defaults
    """Request headers."""
    format: Literal["selfright", "alertmanager"] = "selfright"
    """selfright: one flat object; alertmanager: the payload of Alertmanager's webhooks, version 4, for receivers that
    are made for those."""
    name: str = "webhook"
    """How it is called in the log and in routes."""


AnyTarget = Annotated[AppriseTargetSettings | WebhookTargetSettings, Field(discriminator="kind")]


class RouteSettings(Settings):
    """Which alerts go to which targets."""

    severity: tuple[Severity, ...] = ()
    """Alerts of these severities; all when empty."""
    service: tuple[Glob, ...] = ()
    """Alerts of services whose names match one of these patterns (``shop-*``); all when empty."""
    targets: tuple[str, ...]
    """Names of targets; nobody is told when empty."""


class SilenceMatchers(Settings):
    """Which alerts are silenced: those whose labels match all of the patterns (``shop-*``) that are given."""

    alertname: Glob | None = None
    """ServiceIncident, ComponentFailed or ErrorBudgetBurn."""
    severity: Severity | None = None
    """page or ticket."""
    service: Glob | None = None
    """The service."""
    objective: Glob | None = None
    """The objective."""
    component: Glob | None = None
    """The part of the runtime."""

    @model_validator(mode="after")
    def _not_everything(self) -> Self:
        if not self.patterns:
            raise ValueError(
                f"needs at least one of {', '.join(type(self).model_fields)};"
                ' to silence everything, say so: alertname: "*"'
            )
        return self

    @property
    def patterns(self) -> Mapping[str, str]:
        """Label -> pattern, of those that are given."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class SilenceSettings(SpanSettings):
    """A time in which nobody is told of some alerts."""

    matchers: SilenceMatchers
    """Which alerts."""
    comment: str = ""
    """Why, for people."""


def target_names(targets: Iterable[AnyTarget]) -> list[str]:
    """Return the name of each target. One that is given twice is numbered: ``webhook``, ``webhook-2``."""
    names: list[str] = []
    for target in targets:
        name, number = target.name, 1
        while name in names:
            number += 1
            name = f"{target.name}-{number}"
        names.append(name)
    return names


class AlertSettings(Settings):
    """Who is told, and when."""

    targets: tuple[AnyTarget, ...] = ()
    """Where alerts go; nobody is told when empty. Each hears of an alert once, also over restarts; only when the
    program is killed between sending and noting it down it is sent again, with the same fingerprint and startsAt."""
    routes: tuple[RouteSettings, ...] = ()
    """Which alerts go where; the first that matches decides, and what none matches goes to all targets."""
    silences: tuple[SilenceSettings, ...] = ()
    """Times in which nobody is told of some alerts. Those that still fire at the end are told then."""
    when: Literal["repair_failed", "incident"] = "repair_failed"
    """repair_failed: silent until the ladder has given up or nothing may be repaired; incident: at once."""
    reminder_s: Wait = 3600
    """An alert that still fires is sent again after so long; 0 never."""
    resolved: bool = True
    """Whether the end of an alert is sent too."""
    timeout_s: Seconds = 10
    """For one delivery."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Further tries of a failed delivery, with exponential back-off."""
    external_url: HttpUrl | None = None
    """Where people reach the admin API, for the links in Alertmanager's format; none are given without it."""

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        names = target_names(self.targets)
        open_route: int | None = None
        for index, route in enumerate(self.routes):
            if open_route is not None:
                raise ValueError(
                    f"routes.{index} can never apply: routes.{open_route} matches every alert; put that one last"
                )
            for target in route.targets:
                if target not in names:
                    raise ValueError(
                        f"routes.{index}.targets: no target is named {target!r}{did_you_mean(target, names)};"
                        f" there are: {', '.join(names) or 'none'}"
                    )
            if not route.severity and set(route.service) <= {"*"}:
                open_route = index
        return self
