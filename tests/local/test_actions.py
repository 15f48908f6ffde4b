from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError, ProcessError, RepairError
from modules.contracts.health import BuildContext, Heartbeats, RepairContext
from modules.local.actions import SUPPORTED, ExecAction, FunctionAction, build_rung

WHY = RepairContext(service="api", incident="api-1", reason="it failed", attempt=2)


class Processes:
    """Writes down what it is told to do."""

    names = ("db", "api")

    def __init__(self, fault: str | None = None) -> None:
        self.told: list[str] = []
        self._fault = fault

    async def restart(self, name: str) -> None:
        if self._fault:
            raise ProcessError(self._fault)
        self.told.append(f"restart {name}")

    async def stop_process(self, name: str) -> None:
        self.told.append(f"stop {name}")

    async def start_process(self, name: str) -> None:
        self.told.append(f"start {name}")


def context(**parts: object) -> BuildContext:
    clock = SystemClock()
    return BuildContext(**{"service": "api", "clock": clock, "heartbeats": Heartbeats(clock), "load": None, **parts})


def settings(kind: str, **fields: object) -> SimpleNamespace:
    return SimpleNamespace(kind=kind, timeout_s=7.0, attempts=3, **fields)


async def test_a_restart_rung_restarts_the_service_and_carries_its_limits():
    processes = Processes()
    rung = build_rung(settings("restart", scope="one"), context(processes=processes))
    assert await rung.action.run(WHY) == "restarted api"
    assert processes.told == ["restart api"]
    assert (rung.timeout_s, rung.attempts, rung.action.describe) == (7.0, 3, "restart api")


async def test_a_wider_restart_stops_dependents_first_and_leaves_out_what_is_not_supervised():
    processes = Processes()
    group = context(processes=processes, restart_group=lambda name, scope: ("db", "external", "api"))
    await build_rung(settings("restart", scope="all"), group).action.run(WHY)
    assert processes.told == ["stop api", "stop db", "start db", "start api"]


async def test_a_restart_that_fails_is_a_failed_repair():
    rung = build_rung(settings("restart", scope="one"), context(processes=Processes("no such program")))
    with pytest.raises(RepairError, match="restart api failed: no such program"):
        await rung.action.run(WHY)


async def test_a_command_gets_the_incident_in_its_environment_and_says_why_it_failed():
    action = ExecAction(
        ("sh", "-c", "echo $SELFRIGHT_SERVICE $SELFRIGHT_INCIDENT $SELFRIGHT_ATTEMPT $SELFRIGHT_REASON $MORE; exit 3"),
        env={"MORE": "more"},
        clock=SystemClock(),
    )
    with pytest.raises(RepairError, match="exit code 3, expected 0; it said: api api-1 2 it failed more"):
        await action.run(WHY)


async def test_a_command_that_succeeds_and_one_that_does_not_exist():
    assert "exit code 0" in await ExecAction(("true",), clock=SystemClock()).run(WHY)
    with pytest.raises(RepairError, match="no-such-program-here"):
        await ExecAction(("no-such-program-here",), clock=SystemClock()).run(WHY)


async def test_a_cancelled_command_leaves_no_process_behind(tmp_path):
    pidfile, ready = tmp_path / "pid", tmp_path / "ready"
    os.mkfifo(ready)
    script = f"trap '' TERM; echo $$ > {pidfile}; echo up > {ready}; while :; do sleep 0.05; done"
    task = asyncio.create_task(ExecAction(("sh", "-c", script), clock=SystemClock()).run(WHY))
    assert await asyncio.to_thread(ready.read_text) == "up\n"
    pid = int(await asyncio.to_thread(pidfile.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_function_says_what_it_did_or_why_it_did_not():
    async def works(context: RepairContext) -> str:
        return f"did it for {context.service}"

    async def breaks(context: RepairContext) -> None:
        raise ValueError("no stock")

    assert await FunctionAction(works).run(WHY) == "did it for api"
    with pytest.raises(RepairError, match="ValueError: no stock"):
        await FunctionAction(breaks).run(WHY)


async def test_every_supported_kind_is_built_from_settings():
    async def mend(context: RepairContext) -> None: ...

    ground = context(processes=Processes(), load=lambda name: mend)
    rungs = [
        settings("restart", scope="one"),
        settings("exec", command=("true",), env={}, cwd=None),
        settings("callable", target="shop.mend"),
    ]
    assert {build_rung(each, ground).action.kind for each in rungs} == SUPPORTED


def test_what_cannot_be_built_is_refused_with_what_to_do():
    with pytest.raises(ConfigurationError, match=r"'webhook' needs the backend.*callable, exec, restart"):
        build_rung(settings("webhook"), context())
    with pytest.raises(ConfigurationError, match=r"services\.api.*supervises"):
        build_rung(settings("restart", scope="one"), context())
    with pytest.raises(ConfigurationError, match="async def"):
        build_rung(settings("callable", target="shop.mend"), context(load=lambda name: print))
