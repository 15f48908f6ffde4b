"""Ends process groups when the program that started them has died, however it died.

Run as a script by ``modules.local.processes``, never imported: a tiny process in a session of its own, started
with the signals that end programs ignored. It reads ``add PGID`` and ``drop PGID`` lines from a pipe whose only
other end the program holds. The kernel closes that end at any death, ``kill -9`` included; at end of file the
guardian sends SIGKILL to every group that is left. PR_SET_PDEATHSIG alone would reach the leaders and leave
their own children behind.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
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


if __name__ == "__main__":
    main()
