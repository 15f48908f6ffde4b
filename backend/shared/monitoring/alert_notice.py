"""An alert, and the message about it in the formats that targets take.

Alerts are identified by their labels, as in Prometheus: the fingerprint is its hash over them (FNV-1a, 64 bits,
names and values ended by 0xFF), the same in every run, so a receiver can tell a repetition from news. The second
format is the payload of Alertmanager's webhooks (https://prometheus.io/docs/alerting/latest/configuration, version 4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modules.contracts.alerts import AlertState

SERVICE_INCIDENT = "ServiceIncident"
COMPONENT_FAILED = "ComponentFailed"
ERROR_BUDGET_BURN = "ErrorBudgetBurn"

_NOT_ENDED = "0001-01-01T00:00:00Z"
_FNV_OFFSET, _FNV_PRIME = 14695981039346656037, 1099511628211


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about. ``severity`` is ``page`` (now) or ``ticket`` (soon), as in the Google SRE workbook."""

    key: str
    name: str
    severity: str
    service: str | None = None
    objective: str | None = None
    component: str | None = None
    incident: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """What routes and silences match, and what identifies the alert. An incident is not a part of it: the next
        one of the same service is the same trouble again."""
        every = {
            "alertname": self.name,
            "severity": self.severity,
            "service": self.service,
            "objective": self.objective,
            "component": self.component,
        }
        return {name: value for name, value in every.items() if value}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.labels)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people should know, or may soon have to. Times in unix seconds; ``starts_at`` of one that is
    pending is when that began."""

    subject: Subject
    state: AlertState
    summary: str
    starts_at: float
    ends_at: float | None = None

    @property
    def key(self) -> str:
        return self.subject.key


@dataclass(frozen=True, slots=True)
class Notice:
    """One message about an alert."""

    alert: Alert
    reminder: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the message as JSON types, times in RFC 3339."""
        alert, subject = self.alert, self.alert.subject
        return {
            "status": alert.state.value,
            "reminder": self.reminder,
            "alert": subject.key,
            "service": subject.service,
            "objective": subject.objective,
            "incident": subject.incident,
            "severity": subject.severity,
            "summary": alert.summary,
            "startsAt": _rfc3339(alert.starts_at),
            "endsAt": None if alert.ends_at is None else _rfc3339(alert.ends_at),
            "fingerprint": subject.fingerprint,
        }

    def as_alertmanager(self, receiver: str, external_url: str) -> dict[str, Any]:
        """Return the message as Alertmanager sends it: a group of this one alert, grouped by all of its labels."""
        alert, labels = self.alert, self.alert.subject.labels
        annotations = {"summary": alert.summary}
        if alert.subject.incident:
            annotations["incident"] = alert.subject.incident
        group = ", ".join(f"{name}={json.dumps(labels[name], ensure_ascii=False)}" for name in sorted(labels))
        return {
            "version": "4",
            "groupKey": f"{{}}:{{{group}}}",
            "truncatedAlerts": 0,
            "status": alert.state.value,
            "receiver": receiver,
            "groupLabels": labels,
            "commonLabels": labels,
            "commonAnnotations": annotations,
            "externalURL": external_url,
            "alerts": [
                {
                    "status": alert.state.value,
                    "labels": labels,
                    "annotations": annotations,
                    "startsAt": _rfc3339(alert.starts_at),
                    "endsAt": _NOT_ENDED if alert.ends_at is None else _rfc3339(alert.ends_at),
                    "generatorURL": external_url and f"{external_url.rstrip('/')}/api/v1/alerts",
                    "fingerprint": alert.subject.fingerprint,
                }
            ],
        }

    @property
    def title(self) -> str:
        subject = self.alert.subject
        what = "still firing" if self.reminder else self.alert.state.value
        return f"[{what}] {subject.objective or subject.service or subject.key}"

    @property
    def body(self) -> str:
        alert = self.alert
        until = "" if alert.ends_at is None else f" until {_rfc3339(alert.ends_at)}"
        return f"{alert.summary}\n{alert.subject.severity}, since {_rfc3339(alert.starts_at)}{until}"


def objective_key(objective: str, severity: str) -> str:
    """Return the key of an objective's alert."""
    return f"slo/{objective}/{severity}"


def fingerprint(labels: Mapping[str, str]) -> str:
    """Return Prometheus' fingerprint of a label set, 16 hexadecimal digits."""
    value = _FNV_OFFSET
    for name in sorted(labels):
        for byte in (*name.encode(), 0xFF, *labels[name].encode("utf-8", "backslashreplace"), 0xFF):
            value = (value ^ byte) * _FNV_PRIME % 2**64
    return f"{value:016x}"


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
