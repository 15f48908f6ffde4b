"""What an event means for the alert book: an incident, the burn of a budget, a failed part of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from backend.shared.monitoring.alert_book import AlertBook
from backend.shared.monitoring.alert_notice import (
    COMPONENT_FAILED,
    ERROR_BUDGET_BURN,
    SERVICE_INCIDENT,
    Alert,
    Subject,
    objective_key,
)
from modules.contracts.events import (
    ComponentFailed,
    Event,
    IncidentClosed,
    IncidentOpened,
    RepairGaveUp,
    SLOAlertChanged,
)

SELF = "alerts"
"""The name under which alerting reports its own faults, which raise no alert."""
QUIET_S = 3600
"""A component's alert ends by itself when the component has not failed again for so long."""
HEARD = (IncidentOpened, IncidentClosed, RepairGaveUp, ComponentFailed, SLOAlertChanged)


class Reader:
    """Writes events into ``book``. ``when`` says whether an open incident is pending or fires at once."""

    def __init__(self, when: Literal["repair_failed", "incident"], book: AlertBook) -> None:
        self._when = when
        self._book = book

    def read(self, event: Event) -> Iterator[Alert]:
        """Take one event; yield the alerts that it began or ended, each as it stands at that moment."""
        match event:
            case IncidentOpened(service=service, incident=incident):
                # A service has one incident at a time: an older one ended unseen, while the program was down.
                for alert in self._book.active:
                    subject = alert.subject
                    if subject.service == service and subject.incident not in (None, incident):
                        over = f"incident {subject.incident} of {service} is over: {incident} began"
                        yield from _some(self._book.resolve(alert.key, over))
                if self._when == "incident":
                    yield from _some(self._book.fire(_incident(service, incident), event.message))
                else:
                    self._book.pend(_incident(service, incident), event.message)
            case RepairGaveUp(service=service, incident=incident):
                yield from _some(self._book.fire(_incident(service, incident), event.message))
            case IncidentClosed(service=service, incident=incident):
                yield from _some(self._book.resolve(_incident(service, incident).key, event.message))
            case ComponentFailed(component=component) if component != SELF:
                subject = Subject(
                    f"component/{component}", COMPONENT_FAILED, "ticket", event.service, component=component
                )
                yield from _some(self._book.fire(subject, event.message, quiet_s=QUIET_S))
            case SLOAlertChanged():
                yield from self._burn(event)
            case _:
                pass

    def gone_quiet(self) -> Iterator[Alert]:
        """End what was not spoken of for its time; yield what ended."""
        for key in self._book.gone_quiet():
            if key.startswith("component/"):
                why = f"{key.removeprefix('component/')} has not failed again for {QUIET_S // 60} minutes"
            else:
                why = "it was not seen again since the restart"
            yield from _some(self._book.resolve(key, why))

    def _burn(self, event: SLOAlertChanged) -> Iterator[Alert]:
        """An objective has one alert a severity; it fires while one of its rows does, a window with its factor."""
        key = objective_key(event.objective, event.severity)
        subject = Subject(key, ERROR_BUDGET_BURN, event.severity, event.service, objective=event.objective)
        row = f"{event.window} at {event.factor:.12g}"
        match event.state:
            case "pending":
                self._book.pend(subject, event.summary, row=row)
            case "firing":
                yield from _some(self._book.fire(subject, event.summary, row=row))
            case _:
                if self._book.release(key, row):
                    yield from _some(self._book.resolve(key, event.summary))


def _incident(service: str, incident: str) -> Subject:
    return Subject(f"{service}/{incident}", SERVICE_INCIDENT, "page", service, incident=incident)


def _some(alert: Alert | None) -> list[Alert]:
    return [] if alert is None else [alert]
