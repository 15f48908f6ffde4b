"""What the tests of the local fallbacks are built on: a clock, a bus, and services that can be broken."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from modules.contracts.clock import LoopClock
from modules.contracts.events import Event, EventBus
from modules.contracts.health import HealthCheckResult, ServiceOptions
from modules.local.health import LocalHealthMonitor
from modules.local.repair import LocalAutoRepair


@dataclass
class Bench:
    """A monitor and a repairer in virtual time, and whether each service is well."""

    clock: LoopClock = field(default_factory=LoopClock)
    well: dict[str, bool | None] = field(default_factory=dict)
    checks: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events = EventBus(self.clock)
        self.monitor = LocalHealthMonitor(clock=self.clock, events=self.events, rng=random.Random(7))
        self.results: list[HealthCheckResult] = []
        self.monitor.add_listener(self.results.append)

    def repairer(self, **kwargs: object) -> LocalAutoRepair:
        return LocalAutoRepair(self.monitor, clock=self.clock, events=self.events, rng=random.Random(7), **kwargs)

    def watch(self, name: str, **options: object) -> None:
        self.well[name] = True
        self.checks[name] = []

        async def check() -> bool | None:
            self.checks[name].append(self.clock.monotonic())
            return self.well[name]

        self.monitor.register_service(name, check, options=ServiceOptions(**options))

    def told(self, *kinds: str) -> list[Event]:
        return [event for event in self.events.recent() if event.kind in kinds]

    def story(self) -> list[str]:
        return [event.kind for event in self.events.recent()]


@pytest.fixture
def make_bench() -> Callable[[], Bench]:
    return Bench
