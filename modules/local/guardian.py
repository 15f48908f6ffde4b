"""Ends what a program started when the program has died, however it died.

Run as a script by ``modules.local.processes``: a tiny process in a session of its own, started with the signals
that end programs ignored. It reads ``add PGID`` and ``drop PGID`` lines from a pipe whose only other end the
program holds. The kernel closes that end at any death, ``kill -9`` included; at end of file the guardian sends
SIGKILL to every group that is left. PR_SET_PDEATHSIG alone would reach the leaders and leave their own children.

A process may leave its group (``setsid``, a daemon's double fork), but keeps the environment that it was started
with, so every supervised process has a mark there, and who still bears it is found through /proc (as Jenkins'
ProcessTreeKiller finds what a build left behind). What clears its environment, or becomes another user's, is
not found.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress

MARK = "SELFRIGHT_PROCESS"
"""The environment variable that marks a supervised process and all that it starts."""
_STEP = 50
_MOST_ROUNDS = 10


def end_marked(marks: Collection[str]) -> Iterator[None]:
    """Send SIGKILL to every process whose mark begins with one of ``marks``, until a round finds no new one.

    Yields now and then, because a machine may have many processes. Without /proc nothing is found.
    """
    starts = tuple(f"{MARK}={mark}".encode() for mark in marks)
    ended: set[int] = set()
    for _ in range(_MOST_ROUNDS):
        before = len(ended)
        for looked_at, pid in enumerate(_processes()):
            if looked_at % _STEP == _STEP - 1:
                yield
            if pid not in ended and _bears(pid, starts) and _end(pid, starts):
                ended.add(pid)
        if len(ended) == before:  # a process that was forked meanwhile would have been found
            return


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208  pathlib is slow to load
    except OSError:
        return []


def _bears(pid: int, starts: tuple[bytes, ...]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123  the same
            environment = file.read()
    except OSError:  # gone, or another user's
        return False
    return any(entry.startswith(starts) for entry in environment.split(b"\0"))


def _end(pid: int, starts: tuple[bytes, ...]) -> bool:
    """End it, unless its number belongs to another process by now."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        return True
    try:
        if not _bears(pid, starts):
            return False
        with suppress(OSError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    finally:
        os.close(handle)


def main(marks: list[str]) -> None:
    """Read lines from standard input until its end, then end what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        verb, _, group = line.partition(" ")
        if verb == "add":
            groups.add(int(group))
        else:
            groups.discard(int(group))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # gone already, or another user's by now
            os.killpg(group, signal.SIGKILL)
    if marks:
        for _ in end_marked(marks):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
