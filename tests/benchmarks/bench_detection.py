"""How soon a broken service is known: the demo deployment, real processes, seconds from the fault to unhealthy."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
import urllib.request

from demo import Demo, demo

ROUNDS = 3
INTERVAL_S, REPROBE_S, TIMEOUT_S = 2.0, 0.25, 0.8
KUBERNETES_S = 30.0
"""Three failures at the default period of 10 s."""


def main() -> list[tuple[str, str, str, str]]:
    """Return the medians and the worst of several rounds."""
    killed, hung, healed = [], [], []
    with demo() as running:
        running.wait_for("runtime_state_changed", current="running")
        for _ in range(ROUNDS):
            for times, breaks in ((killed, _kill), (hung, _hang)):
                time.sleep(1.3)  # not in step with the probes
                began = time.time()
                breaks(running)
                times.append(running.wait_for("health_changed", service="store", current="unhealthy") - began)
                healed.append(running.wait_for("incident_closed", service="store") - began)
    bound = INTERVAL_S + 3 * TIMEOUT_S + 2 * REPROBE_S
    return [
        _row("detection after kill -9, s", killed, f"at most {INTERVAL_S + 2 * REPROBE_S:g}"),
        _row("detection of a hang, s", hung, f"at most {bound:g} with three time-outs"),
        _row("fault to incident closed, s", healed, f"Kubernetes detects in {KUBERNETES_S:g}"),
    ]


def _row(figure: str, times: list[float], goal: str) -> tuple[str, str, str, str]:
    median = statistics.median(times)
    return figure, f"{median:.2f} ({max(times):.2f})", goal, f"{median / KUBERNETES_S:.3f} x"


def _kill(running: Demo) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports[0]}/api/v1/services/store") as answer:
        os.kill(json.loads(answer.read())["process"]["pid"], signal.SIGKILL)


def _hang(running: Demo) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{running.ports[1]}/_fault?kind=hang", method="POST", data=b"")
    urllib.request.urlopen(request).close()


if __name__ == "__main__":
    for row in main():
        print(*row, sep="  ")
