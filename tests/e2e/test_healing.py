"""The demo deployment, broken and healed for real: processes, sockets, state file."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import textwrap
import time
from datetime import datetime
from pathlib import Path

import pytest

DETECTION_S = 2.0 + 2 * 0.25 + 1.5  # one interval, two quick re-probes, and slack for a busy machine


def at(event):
    return datetime.fromisoformat(event["time"]).timestamp()


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids, within=3.0):
    deadline = time.monotonic() + within
    while any(runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def deployment(folder, text):
    """Write a deployment of one's own and return the arguments that choose it."""
    file = folder / "conf" / "deployment" / "own.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# @package _global_\n" + textwrap.dedent(text))
    return ("--config-dir", str(folder / "conf"), "deployment=own")


def test_a_killed_child_is_found_repaired_verified_and_told_the_same_everywhere(start):
    program = start("+selfhealing=v2", "slo.latency_ms=1000").ready().healthy()
    victim = program.service("api")["process"]["pid"]
    killed_at = time.time()
    os.kill(victim, signal.SIGKILL)

    unhealthy = program.wait_for("health_changed", service="api", current="unhealthy")
    assert at(unhealthy) - killed_at < DETECTION_S
    opened = program.wait_for("incident_opened", service="api")
    program.wait_for("repair_started", service="api", incident=opened["incident"])
    closed = program.wait_for("incident_closed", service="api", incident=opened["incident"])

    service = program.service("api")
    assert service["status"] == "healthy"
    assert service["process"]["pid"] != victim
    assert service["process"]["restarts"] == 1
    assert service["repair"]["phase"] == "idle"
    assert service["slo"]["good"] < service["slo"]["total"]

    audit = program.get(f"/api/v1/audit?incident={opened['incident']}")["records"]
    kinds = [record["kind"] for record in reversed(audit)]
    assert kinds == ["incident_opened", "repair_started", "repair_ended", "incident_closed"]
    assert audit[0]["at"] == pytest.approx(at(closed), abs=0.001)

    metrics = program.request("GET", "/metrics")[1].decode()
    assert re.search(r'selfright_repairs_total\{outcome="done",service="api"\} 1\.0', metrics)
    assert re.search(r'selfright_incidents_open\{service="api"\} 0\.0', metrics)


def test_a_hanging_store_is_repaired_alone_and_its_dependents_are_reported_as_affected(start):
    program = start("+selfhealing=v2").ready().healthy()
    api_pid = program.service("api")["process"]["pid"]
    program.request("POST", "/_fault?kind=hang", base=f"http://127.0.0.1:{program.store_port}")

    program.wait_for("incident_opened", service="store")
    program.wait_for("incident_closed", service="store", within=30)
    program.healthy()
    assert program.service("api")["process"]["pid"] == api_pid
    assert not [e for e in program.events if e["kind"] == "repair_started" and e["service"] != "store"]
    affected = [e for e in program.events if e["kind"] == "health_changed" and e.get("affected_by")]
    assert {e["service"] for e in affected} <= {"api", "worker"}
    assert all(e["affected_by"] == ["store"] for e in affected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_children_and_exits_with_zero(start, number):
    program = start("+selfhealing=v2").ready().healthy()
    children = program.children()
    assert len(children) == 3
    assert program.stop(number) == 0
    assert gone(children, within=0.5)
    assert program.stderr == ""


def test_a_second_signal_ends_at_once(start, tmp_path):
    arguments = deployment(
        tmp_path,
        """
        services:
          deaf:
            process:
              command: [sh, -c, "trap '' TERM; while :; do sleep 0.1; done"]
              stop_timeout_s: 8
        """,
    )
    program = start(*arguments).ready().healthy("deaf")
    children = program.children()
    program.process.send_signal(signal.SIGTERM)
    program.wait_for("runtime_state_changed", current="draining")
    began = time.monotonic()
    assert program.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    assert gone(children)


def test_a_signal_during_the_start_ends_within_the_drain_time(start, tmp_path):
    arguments = deployment(
        tmp_path,
        """
        services:
          deaf:
            process:
              command: [sh, -c, "trap '' TERM; while :; do sleep 0.1; done"]
              stop_timeout_s: 30
        """,
    )
    program = start(*arguments, "drain_s=1")
    child = program.wait_for("process_started")["pid"]
    time.sleep(0.05)  # for its trap to be set
    began = time.monotonic()
    assert program.stop() == 0
    assert time.monotonic() - began < 5
    assert gone([child])


def test_a_port_in_use_is_found_before_any_process_starts(start, tmp_path):
    first = start().ready()
    arguments = deployment(tmp_path, f"services: {{a: {{process: {{command: [touch, '{tmp_path}/started']}}}}}}")
    second = start(*arguments, ports=first.ports, state=tmp_path / "other.db")
    assert second.process.wait(15) == 2
    assert not (tmp_path / "started").exists()


def test_kill_nine_of_the_runtime_leaves_no_orphan(start):
    program = start("+selfhealing=v2").ready().healthy()
    children = program.children()
    program.process.kill()
    assert gone(children)


def test_a_kill_in_the_middle_of_a_repair_forgets_no_incident_and_repeats_no_finished_rung(start, tmp_path):
    marks = tmp_path / "marks"
    arguments = (
        *deployment(
            tmp_path,
            f"""
            services:
              ill:
                interval_s: 0.2
                reprobe_ms: 50
                probe: {{kind: exec, command: [test, -e, "{tmp_path}/well"]}}
                repair:
                  - {{kind: exec, command: [sh, -c, "echo first >> {marks}"]}}
                  - {{kind: exec, command: [sh, -c, "echo second >> {marks}; sleep 30"], timeout_s: 60}}
                repair_policy: {{verify_timeout_s: 1, healthy_delay_s: 0.2, backoff_base_s: 0.1}}
            """,
        ),
        "+selfhealing=v2",
    )
    program = start(*arguments).ready()
    incident = program.wait_for("incident_opened", service="ill")["incident"]
    program.wait_for("repair_started", service="ill", rung=1)
    deadline = time.monotonic() + 5
    while "second" not in marks.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    program.process.kill()
    program.process.wait()

    again = start(*arguments).ready()
    again.wait_for("repair_started", service="ill", rung=1, incident=incident)
    (tmp_path / "well").touch()
    again.request("POST", "/api/v1/services/ill/pause")
    assert marks.read_text().splitlines().count("first") == 1
    again.stop()
    with contextlib.closing(sqlite3.connect(f"file:{tmp_path}/state.db?mode=ro", uri=True)) as state:
        assert state.execute("select count(*) from audit where kind = 'incident_opened'").fetchone() == (1,)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("+selfhealing=v1",),
        ("selfhealing=v2", "backend=off"),
        ("+selfhealing=v3", "+monitoring=v3"),
        ("+selfhealing=none", "monitoring=none", "backend=on"),
        ("+selfhealing=v2", "slo=strict", "env=prod"),
    ],
    ids=" ".join,
)
def test_every_version_and_backend_serves_the_demo(start, arguments):
    program = start(*arguments).ready().healthy()
    assert program.request("GET", "/readyz")[0] == 200
    assert program.stop() == 0


def test_watching_alone_repairs_nothing(start):
    program = start().ready().healthy()
    os.kill(program.service("api")["process"]["pid"], signal.SIGKILL)
    program.wait_for("health_changed", service="api", current="unhealthy")
    status, body = program.request("POST", "/api/v1/services/api/repair")
    assert status == 409
    assert "selfhealing" in json.loads(body)["error"]["message"]


def test_a_quarantined_module_watches_and_refuses_to_repair(start):
    program = start("+selfhealing=v3").ready().healthy()
    status, body = program.request("POST", "/api/v1/services/api/repair")
    assert status == 409
    assert "V2" in json.loads(body)["error"]["message"]


def test_a_port_in_use_is_told_and_nothing_stays_behind(start, tmp_path):
    first = start().ready()
    second = start(ports=[first.ports[0], *[p + 0 for p in first.ports[1:]]], state=tmp_path / "other.db")
    assert second.process.wait(15) == 2
    assert "server.port" in second.stderr
    assert "Traceback" not in second.stderr


def test_two_runtimes_do_not_share_a_state_file(start):
    start().ready()
    second = start()
    assert second.process.wait(15) != 0
    assert "state" in second.stderr
    assert "Traceback" not in second.stderr
