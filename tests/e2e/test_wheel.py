"""The wheel, installed into an empty environment, works in any folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    os.environ.get("SELFRIGHT_INSTALL_TESTS") != "1", reason="takes a minute: set SELFRIGHT_INSTALL_TESTS=1"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True, timeout=120)
    (wheel,) = folder.glob("selfright-*.whl")
    venv.create(folder / "environment", with_pip=False)
    commands = folder / "environment" / "bin"
    subprocess.run(
        [*pip, "--python", commands / "python", "install", "--constraint", ROOT / "constraints.txt", wheel],
        check=True,
        timeout=300,
    )
    return commands


def bare_environment():
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.mark.parametrize("command", ["run", "selfright"])
def test_both_commands_validate_the_demo(installed, tmp_path, command):
    answer = subprocess.run(
        [installed / command, "+selfhealing=v2", "slo.latency_ms=1000", "mode=check"],
        cwd=tmp_path, env=bare_environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "selfhealing v2" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_serves_in_an_empty_folder(installed, tmp_path):
    ports = []
    for _ in range(4):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    keys = ("server.port", "vars.store_port", "vars.api_port", "vars.worker_port")
    program = subprocess.Popen(
        [
            *(installed / "run", "+selfhealing=v2", "log.format=json", "log.view=lines"),
            *(f"{key}={port}" for key, port in zip(keys, ports, strict=True)),
        ],
        cwd=tmp_path, env={**bare_environment(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        events = (json.loads(line) for line in program.stdout)
        healthy = set()
        for event in events:
            if event["kind"] == "health_changed" and event["current"] == "healthy":
                healthy.add(event["service"])
            if healthy == {"store", "api", "worker"}:
                break
        program.send_signal(signal.SIGTERM)
        rest = program.stdout.read()
        assert program.wait(15) == 0, rest
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert (tmp_path / "var" / "selfright.db").is_file()
