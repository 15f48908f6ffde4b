"""How long a user waits: ``mode=check``, a refused option, and from the command to a deployment that serves."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from demo import ENVIRONMENT, demo

RUNS = 5


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
    began = time.time()
    with demo() as running:
        return running.wait_for("runtime_state_changed", current="running") - began


if __name__ == "__main__":
    for row in main():
        print(*row, sep="  ")
