"""``python -m runtime.demo store|api|worker``: one demo service on 127.0.0.1, until SIGTERM.

Exit codes: 0 after SIGTERM or Ctrl-C, 1 when the port is taken or the fault ``crash`` was asked for, 2 for
wrong arguments.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from typing import Any, NoReturn
from urllib.parse import urlsplit

from runtime.demo.server import Service
from runtime.demo.services import Worker, api, store

ADMIN = "SELFRIGHT_URL"
"""The environment variable with the address of the admin API."""
HEARTBEAT_PATH = "/api/v1/services/worker/heartbeat"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535 (0 takes a free one), found {text!r}")
    return int(text)


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        fine = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise argparse.ArgumentTypeError(f"must be an http:// address such as http://127.0.0.1:8431, found {text!r}")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"must be seconds above 0 and up to a day, found {text!r}")
    return seconds


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime.demo", description="A demo service that can be broken.")
    kinds = parser.add_subparsers(dest="service", required=True)
    for name, text in (
        ("store", "keeps items in memory"),
        ("api", "serves the store's items"),
        ("worker", "sends heartbeats"),
    ):
        kind = kinds.add_parser(name, help=text, description=f"The {name} {text}.")
        kind.add_argument("--port", type=_port, required=True, help="port on 127.0.0.1; 0 takes a free one")
        if name != "store":
            kind.add_argument("--store", type=_url, required=name == "api", help="address of the store")
        if name == "worker":
            kind.add_argument("--report", type=_url, help=f"where heartbeats are PUT; else ${ADMIN}{HEARTBEAT_PATH}")
            kind.add_argument("--every", type=_seconds, required=True, help="seconds between heartbeats")
    given = parser.parse_args(argv)
    if given.service == "worker" and given.report is None:
        given.report = _report(parser)
    return given


def _report(parser: argparse.ArgumentParser) -> str:
    """Where a worker without ``--report`` sends its heartbeats: to the runtime that supervises it."""
    admin = os.environ.get(ADMIN, "")
    try:
        return _url(admin) + HEARTBEAT_PATH
    except argparse.ArgumentTypeError as error:
        why = f"{ADMIN} {error}" if admin else f"the environment has no {ADMIN}, which a runtime gives its processes"
        parser.error(f"worker needs --report: {why}")


def _end(*_: Any) -> NoReturn:
    os._exit(0)  # at once: there is nothing to keep, and a hanging request must not hold it up


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal; return 1 when the port cannot be had."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    worker: Worker | None = None
    service: Service
    try:
        if given.service == "store":
            service = store(given.port)
        elif given.service == "api":
            service = api(given.port, given.store)
        else:
            worker = Worker(given.port, given.report, given.every, given.store)
            service = worker.service
    except OSError as error:
        taken = "is taken by another program; stop it or choose another --port"
        why = taken if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
        sys.stderr.write(f"{given.service}: port {given.port} of 127.0.0.1 {why}\n")
        return 1
    sys.stdout.write(f"{service.name} listens on http://127.0.0.1:{service.server_port}\n")
    sys.stdout.flush()
    if worker is not None:
        threading.Thread(target=worker.run, name="work", daemon=True).start()
    service.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
