import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from modules.contracts.clock import SystemClock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ReadOnlyModuleError, UnknownServiceError
from modules.contracts.events import EventBus
from modules.contracts.health import (
    HealthCheckResult,
    HealthStatus,
    Heartbeats,
    ProbeOutcome,
    ProcessStatus,
    RepairPhase,
    RepairReport,
    RepairStatus,
    ServiceHealth,
)
from modules.contracts.state import AuditRecord
from modules.local.state import MemoryStore
from runtime.parts import Parts
from runtime.settings import RootSettings
from runtime.web.app import create_app

SERVICES = {
    "api": {"probe": {"kind": "http", "url": "http://127.0.0.1:9/"}, "depends_on": ["store"]},
    "store": {"probe": {"kind": "tcp", "port": 9}},
    "worker": {"probe": {"kind": "heartbeat", "ttl_s": 30.0}},
}


class Monitor:
    """Knows what the test says of each service; all are healthy at first."""

    def __init__(self, names):
        self._known = {name: self._healthy(name) for name in names}

    @staticmethod
    def _healthy(name):
        last = HealthCheckResult(name, True, ProbeOutcome.PASS, HealthStatus.HEALTHY, 3.0, "200 OK", 1000.0)
        return ServiceHealth(name, HealthStatus.HEALTHY, 990.0, True, last, (), (), False, False, 1, 0)

    @property
    def services(self):
        return tuple(self._known)

    def get_status(self, name):
        if name not in self._known:
            raise UnknownServiceError(name, self._known)
        return self._known[name]

    def change(self, name, **changes):
        self._known[name] = replace(self._known[name], **changes)


class Repair:
    """Repairs as soon as the test opens ``gate``; remembers what it was asked."""

    def __init__(self, names):
        self.services = tuple(names)
        self.gate = asyncio.Event()
        self.asked = []
        self.cancelled = []
        self.paused = set()
        self.error = None

    async def repair(self, name, reason="asked for"):
        self.asked.append((name, reason))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if self.error:
            raise self.error
        return RepairReport(name, "i-1", True, (f"restart {name}",), "healthy again")

    def get_status(self, name):
        return RepairStatus(name, RepairPhase.IDLE, rungs=(f"restart {name}",), paused=name in self.paused)

    def pause(self, name=None):
        self.paused |= {name} if name else set(self.services)

    def resume(self, name=None):
        self.paused -= {name} if name else set(self.services)


class ReadOnlyRepair(Repair):
    async def repair(self, name, reason="asked for"):
        raise ReadOnlyModuleError("repair() is read-only in V3; call SelfHealing_V2's get_auto_repair().repair()")

    def pause(self, name=None):
        raise ReadOnlyModuleError("pause() is read-only in V3; call SelfHealing_V2's get_auto_repair().pause()")


class Processes:
    names = ("store",)

    def get_status(self, name):
        return ProcessStatus(name, True, 4242, 900.0, 2, -9)

    def tail(self, name):
        return f"{name} listens\n"


class Collector:
    def render(self, accept=""):
        if "openmetrics" in accept:
            return b"# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return b"selfright_up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture
def make_parts():
    """Parts of a running deployment of three healthy services; keywords replace a part."""

    def make(*, selfhealing="v2", **changes):
        clock = SystemClock()
        settings = RootSettings.model_validate_json(
            json.dumps({"services": SERVICES, "selfhealing": {"version": selfhealing}})
        )
        repair = {"none": None, "v3": ReadOnlyRepair(SERVICES)}.get(selfhealing, Repair(SERVICES))
        parts = {
            "settings": settings,
            "clock": clock,
            "events": EventBus(clock),
            "store": MemoryStore(),
            "monitor": Monitor(SERVICES),
            "processes": Processes(),
            "heartbeats": Heartbeats(clock),
            "repair": repair,
            "collector": Collector(),
            "state": "running",
            "components": lambda: {"monitor": ComponentStatus(ComponentState.RUNNING, "3 services")},
        }
        return Parts(**{**parts, **changes})

    return make


@pytest.fixture
def parts(make_parts):
    return make_parts()


@pytest.fixture
def client_of():
    """A client that talks to the application over ``parts`` without a socket."""

    def connect(parts, **options):
        transport = httpx.ASGITransport(app=create_app(parts))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8420", **options)

    return connect


@pytest.fixture
def audit_record():
    def make(**fields):
        return AuditRecord(**{"at": 1000.0, "kind": "repair_started", "message": "repairing api", **fields})

    return make
