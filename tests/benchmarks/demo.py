"""Starts the demo deployment as a user would, on free ports, for the benchmarks that look at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Demo:
    """A running demo: ``ports`` are those of the admin API, the store, the api and the worker."""

    def __init__(self, folder: str) -> None:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            self.ports = [each.getsockname()[1] for each in sockets]
        keys = ("server.port", "vars.store_port", "vars.api_port", "vars.worker_port")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "runtime", "+selfhealing=v2", "log.format=json", "log.view=lines"),
                *(f"{key}={port}" for key, port in zip(keys, self.ports, strict=True)),
                f"state.path={folder}/state.db",
            ],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, kind: str, **expected: str) -> float:
        """Return when the next such event happened, in unix seconds."""
        for line in self.process.stdout or ():
            event: dict[str, Any] = json.loads(line)
            if event.get("kind") == kind and all(event.get(key) == value for key, value in expected.items()):
                return datetime.fromisoformat(event["time"]).timestamp()
        raise RuntimeError(f"the program ended before {kind}")


@contextlib.contextmanager
def demo() -> Iterator[Demo]:
    """Run the demo; at the end it is stopped in order."""
    with tempfile.TemporaryDirectory() as folder:
        running = Demo(folder)
        try:
            yield running
        finally:
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(15)
