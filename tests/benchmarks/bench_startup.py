"""How long a user waits: ``mode=check``, a refused option, and from the command to a deployment that serves."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 5
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def main() -> list[tuple[str, str, str, str]]:
    """Return the figures: medians of several runs."""
    bare = statistics.median(_timed("-c", "pass") for _ in range(RUNS))
    check = statistics.median(_timed("-m", "runtime", "+selfhealing=v2", "mode=check") for _ in range(RUNS))
    refused = statistics.median(_timed("-m", "runtime", "selfhealing=v9") for _ in range(RUNS))
    serving = statistics.median(_serving() for _ in range(RUNS))
    return [
        ("mode=check, s", f"{check:.2f}", "at most 1.0; python -c pass", f"{check / bare:.1f} x"),
        ("a wrong option is refused, s", f"{refused:.2f}", "at most 1.0", f"{refused / bare:.1f} x"),
        ("command to serving, three children, s", f"{serving:.2f}", "at most 2.0", f"{serving / bare:.1f} x"),
    ]


def _timed(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=tempfile.gettempdir(), env=ENVIRONMENT, capture_output=True, check=False
    )
    return time.perf_counter() - began


def _serving() -> float:
    ports = []
    for _ in range(4):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    keys = ("server.port", "vars.store_port", "vars.api_port", "vars.worker_port")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        program = subprocess.Popen(
            [
                *(sys.executable, "-m", "runtime", "+selfhealing=v2", "log.format=json", "log.view=lines"),
                *(f"{key}={port}" for key, port in zip(keys, ports, strict=True)),
                f"state.path={folder}/state.db",
            ],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            for line in program.stdout or ():
                event = json.loads(line)
                if event.get("kind") == "runtime_state_changed" and event.get("current") == "running":
                    return time.perf_counter() - began
            raise RuntimeError("the program ended before it served")
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(15)


if __name__ == "__main__":
    for row in main():
        print(*row, sep="  ")
