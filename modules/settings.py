"""The settings models of every backend room: the one door through which the runtime reaches them.

They need pydantic alone, so they load where the backend's own dependencies are missing.
"""

from __future__ import annotations

from backend.shared.monitoring.alert_settings import AlertSettings, SilenceMatchers
from backend.shared.monitoring.settings import AlertingSettings, BudgetStepSettings, ObjectiveSettings
from backend.shared.monitoring.tracing_settings import TracingSettings
from backend.shared.self_healing.settings import (
    AnyProbe,
    AnyRung,
    SelfHealingSettings,
    ServiceSettings,
    ServiceSLOSettings,
)
from backend.shared.settings import Settings

__all__ = [
    "AlertSettings",
    "AlertingSettings",
    "AnyProbe",
    "AnyRung",
    "BudgetStepSettings",
    "ObjectiveSettings",
    "SelfHealingSettings",
    "ServiceSLOSettings",
    "ServiceSettings",
    "Settings",
    "SilenceMatchers",
    "TracingSettings",
]
