"""Runs the real program as a child process, on free ports and a state file of its own."""

import contextlib
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Program:
    """A running ``run``, its events as they are printed, and its admin API."""

    def __init__(self, *arguments: str, state: Path, ports: list[int] | None = None) -> None:
        self.ports = ports or free_ports(4)
        admin, self.store_port, self.api_port, self.worker_port = self.ports
        self.url = f"http://127.0.0.1:{admin}"
        command = [
            *(sys.executable, "-m", "runtime", *arguments),
            *(f"server.port={admin}", f"state.path={state}", "log.format=json", "log.view=lines"),
            *(
                f"vars.{name}_port={port}"
                for name, port in zip(("store", "api", "worker"), self.ports[1:], strict=True)
            ),
        ]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=state.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.events: list[dict] = []
        self._cursor = 0
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._error: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self._error.extend(self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    @property
    def stderr(self) -> str:
        """What it wrote there until its end."""
        self._readers[1].join(5)
        return "".join(self._error)

    def wait_for(self, kind: str, *, within: float = 15, **expected: object) -> dict:
        """Return the first event after the last one returned that is of this kind and as expected."""
        deadline = time.monotonic() + within
        for position in itertools.count(self._cursor):
            if position == len(self.events) and not self._read_one(deadline):
                break
            event = self.events[position]
            if event.get("kind") == kind and all(event.get(key) == value for key, value in expected.items()):
                self._cursor = position + 1
                return event
        seen = "\n".join(event.get("message", str(event)) for event in self.events)
        raise AssertionError(f"no {kind} {expected} within {within} s; seen:\n{seen}\n{self.process.poll()}")

    def _read_one(self, deadline: float) -> bool:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if line is None:
            raise AssertionError(f"the program ended with {self.process.wait()}: {self.stderr}")
        self.events.append(json.loads(line))
        return True

    def ready(self) -> "Program":
        self.wait_for("runtime_state_changed", current="running")
        self._cursor = 0  # what was said meanwhile can still be waited for
        return self

    def healthy(self, *names: str) -> "Program":
        deadline = time.monotonic() + 15
        while any(self.service(name)["status"] != "healthy" for name in names or ("store", "api", "worker")):
            assert time.monotonic() < deadline, self.get("/api/v1/status")
            time.sleep(0.05)
        return self

    def request(self, method: str, path: str, body: object = None, *, base: str | None = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request((base or self.url) + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path: str) -> dict:
        status, body = self.request("GET", path)
        assert status == 200, (status, body)
        return json.loads(body)

    def service(self, name: str) -> dict:
        return next(s for s in self.get("/api/v1/status")["services"] if s["name"] == name)

    def children(self) -> list[int]:
        return [s["process"]["pid"] for s in self.get("/api/v1/status")["services"] if s["process"]]

    def stop(self, number: int = signal.SIGTERM, *, within: float = 12) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)
        for reader in self._readers:
            reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start(tmp_path):
    """Start programs; what still runs at the end is killed."""
    programs: list[Program] = []

    def begin(*arguments: str, **keywords) -> Program:
        keywords.setdefault("state", tmp_path / "state.db")
        programs.append(Program(*arguments, **keywords))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()
