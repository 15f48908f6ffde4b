"""Tells the prober's own faults from those of the service that it looks at."""

from __future__ import annotations

import errno
import os
import socket

from modules.contracts.health import ProbeOutcome, ProbeResult

# No descriptor, memory, buffer or local port left, not allowed to connect, no route out of this machine.
_OWN = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EAGAIN,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    )
)


def fail(detail: str) -> ProbeResult:
    """The service failed."""
    return ProbeResult(ProbeOutcome.FAIL, detail)


def erred(detail: str) -> ProbeResult:
    """The prober could not look."""
    return ProbeResult(ProbeOutcome.ERROR, detail)


def judge_connect(error: OSError, host: str, port: int | None) -> ProbeResult:
    """Say whose fault a failed connection is, and name it."""
    where = f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        return erred(f"the name {host!r} does not resolve here: {error.strerror or error}")
    if isinstance(error, ConnectionRefusedError):
        return fail(f"{where} refused the connection")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return fail(f"{where} closed the connection")
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _OWN:
        return erred(f"this machine cannot connect to {where}: {text}")
    return fail(f"no connection to {where}: {text}")


def judge_own(error: OSError) -> ProbeResult | None:
    """The prober's error when ``error`` is its own fault, else None."""
    return erred(f"this machine cannot probe: {os.strerror(error.errno)}") if error.errno in _OWN else None
