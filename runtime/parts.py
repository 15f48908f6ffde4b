"""The built objects of one running deployment, by role: what modes, admin API and terminal are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modules.contracts.alerts import AlertManager
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentStatus
from modules.contracts.events import EventBus
from modules.contracts.health import AutoRepair, HealthMonitor, Heartbeats, ProcessControl, RecoveryManager
from modules.contracts.metrics import MetricsCollector
from modules.contracts.slo import ObjectiveReport, SLOReport
from modules.contracts.state import StateStore
from runtime.settings import RootSettings


@dataclass(slots=True)
class Parts:
    """Everything of a deployment that others look at.

    ``repair``, ``recovery``, ``collector`` and ``alerts`` are None where not chosen.
    """

    settings: RootSettings
    clock: Clock
    events: EventBus
    store: StateStore
    monitor: HealthMonitor
    processes: ProcessControl
    heartbeats: Heartbeats
    repair: AutoRepair | None = None
    recovery: RecoveryManager | None = None
    collector: MetricsCollector | None = None
    alerts: AlertManager | None = None
    slo: Callable[[str], SLOReport | None] = lambda name: None
    objectives: Callable[[], Mapping[str, ObjectiveReport]] = dict
    """Every objective by its name, as it stands now."""
    budget_steps: Callable[[], Mapping[str, tuple[str, ...]]] = dict
    """The steps of the error budget policy in force, by objective; those without any are left out."""
    backend_available: bool = False
    backend_error: str | None = None
    deployment: str = "demo"
    state: str = "starting"
    state_since: float = 0.0
    components: Callable[[], Mapping[str, ComponentStatus]] = dict
    notes: list[str] = field(default_factory=list)
    """What the user should know about this start, such as a state file that was set aside."""
