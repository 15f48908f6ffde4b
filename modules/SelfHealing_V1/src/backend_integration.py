"""SelfHealing V1: the backend's health monitor and repairer where it can be imported, else the local ones."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from modules.bridge import detect_self_healing, ground_for, resolve, stands_on
from modules.contracts.clock import Clock
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthMonitor
from modules.contracts.state import StateStore

if TYPE_CHECKING:  # needs pydantic, which may be missing
    from backend.shared.self_healing.settings import CapsSettings

__all__ = ["BACKEND_AVAILABLE", "BACKEND_ERROR", "get_auto_repair", "get_health_monitor"]

BACKEND_AVAILABLE: bool = detect_self_healing().available
BACKEND_ERROR: str | None = detect_self_healing().error


def get_health_monitor(
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
    rng: random.Random | None = None,
) -> HealthMonitor:
    """Return a monitor without services. ``use_backend``: None detects, True falls back with a warning, False is local.

    ``clock`` is the machine's unless given, ``events`` a bus of its own, and ``rng`` is seeded by the system.
    """
    clock, events = ground_for(None, clock, events)
    rng = rng or random.Random()  # noqa: S311  phases, not secrets
    monitor: HealthMonitor
    if resolve(use_backend, detect_self_healing(), "the health monitor"):
        from backend.shared.self_healing.monitor import HealthMonitor as BackendMonitor  # noqa: PLC0415  optional

        monitor = BackendMonitor(clock=clock, events=events, rng=rng)
    else:
        from modules.local.health import LocalHealthMonitor  # noqa: PLC0415  only where it serves

        monitor = LocalHealthMonitor(clock=clock, events=events, rng=rng)
    stands_on(monitor, clock, events)
    return monitor


def get_auto_repair(
    monitor: HealthMonitor | None = None,
    use_backend: bool | None = None,
    *,
    clock: Clock | None = None,
    events: EventBus | None = None,
    rng: random.Random | None = None,
    store: StateStore | None = None,
    caps: CapsSettings | None = None,
    dry_run: bool = False,
) -> AutoRepair:
    """Return a repairer over ``monitor``, or over a new one; clock and bus are the monitor's unless given.

    With ``store`` the backend's counters and open incidents outlive a restart; the local ones never do.
    """
    served = resolve(use_backend, detect_self_healing(), "automatic repair")
    clock, events = ground_for(monitor, clock, events)
    rng = rng or random.Random()  # noqa: S311  jitter, not secrets
    monitor = monitor or get_health_monitor(served, clock=clock, events=events, rng=rng)
    if served:
        from backend.shared.self_healing.repair import AutoRepair as BackendRepair  # noqa: PLC0415  optional

        return BackendRepair(monitor, clock=clock, events=events, rng=rng, store=store, caps=caps, dry_run=dry_run)
    from modules.local.repair import LocalAutoRepair  # noqa: PLC0415  only where it serves

    return LocalAutoRepair(monitor, clock=clock, events=events, rng=rng, caps=caps, dry_run=dry_run)
