"""The settings models of every backend room: the one door through which the runtime reaches them.

They need pydantic alone, so they load where the backend's own dependencies are missing.
"""

from __future__ import annotations

from backend.shared.self_healing.settings import (
    AlertSettings,
    AnyProbe,
    AnyRung,
    SelfHealingSettings,
    ServiceSettings,
    ServiceSLOSettings,
)
from backend.shared.settings import Settings

__all__ = [
    "AlertSettings",
    "AnyProbe",
    "AnyRung",
    "SelfHealingSettings",
    "ServiceSLOSettings",
    "ServiceSettings",
    "Settings",
]
