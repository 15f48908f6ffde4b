"""Health monitoring: how late scheduled checks begin, and what a probe costs."""

import asyncio
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from backend.shared.self_healing.monitor import HealthMonitor
from backend.shared.self_healing.probes.http import HttpProbe
from backend.shared.self_healing.settings import HttpProbeSettings
from modules.contracts.clock import SystemClock
from modules.contracts.events import EventBus
from modules.contracts.health import ServiceOptions

CHECKS = 10_000
INTERVAL_S = 10.0
ROUNDS = 2
PROBES = 6_000
AT_ONCE = 20

_SERVER = """
import asyncio
async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def lag() -> tuple[list[float], float]:
    """Seconds by which each scheduled check began after its point of the schedule, and the share of a core used."""
    clock = SystemClock()
    monitor = HealthMonitor(clock=clock, events=EventBus(clock), rng=random.Random(1))
    began: dict[str, list[float]] = {}

    def watch(name: str) -> None:
        times = began[name] = []

        async def check() -> bool:
            times.append(time.monotonic())
            return True

        monitor.register_service(name, check, options=ServiceOptions(interval_s=INTERVAL_S))

    for number in range(CHECKS):
        watch(f"service-{number}")
    await monitor.start()
    await asyncio.sleep(INTERVAL_S)  # the first checks run in quick succession: not part of the figure
    late: list[float] = []
    due = {name: entry.due for name, entry in monitor._schedule._entries.items() if entry.due is not None}
    for times in began.values():
        times.clear()
    cpu, wall = _cpu(), time.monotonic()
    await asyncio.sleep(INTERVAL_S * ROUNDS)
    share = (_cpu() - cpu) / (time.monotonic() - wall)
    await monitor.stop()
    for name, first in due.items():
        late += [at - (first + turn * INTERVAL_S) for turn, at in enumerate(began[name])]
    assert len(late) >= CHECKS * ROUNDS * 0.99, len(late)
    return late, share


async def _many(look) -> tuple[float, float]:
    """Call ``look`` PROBES times, AT_ONCE at a time; return CPU and wall seconds."""
    left = PROBES

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await look()

    cpu, wall = _cpu(), time.monotonic()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return _cpu() - cpu, time.monotonic() - wall


async def http() -> tuple[float, float, float]:
    """Probes a CPU second and a wall second, and requests a CPU second of a bare aiohttp loop."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(await server.stdout.readline())}/"
    probe = HttpProbe(HttpProbeSettings(kind="http", url=url), SystemClock())

    async def look() -> None:
        result = await probe.probe()
        assert result.passed, result

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:

        async def bare() -> None:
            async with session.get(url) as answer:
                assert answer.status == 200

        await look()
        await bare()
        cpu, wall = await _many(look)
        bare_cpu, _ = await _many(bare)
    await probe.close()
    server.kill()
    await server.wait()
    return PROBES / cpu, PROBES / wall, PROBES / bare_cpu


def main() -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, goal or peer, ratio) rows."""
    late, share = asyncio.run(lag())
    p99 = statistics.quantiles(late, n=100)[98] * 1000
    per_cpu, per_wall, bare = asyncio.run(http())
    return [
        (f"health: p99 lag of {CHECKS} checks / {INTERVAL_S:g} s", f"{p99:.1f} ms", "100 ms", f"{p99 / 100:.3f}"),
        (f"health: a core's share for {CHECKS} checks / {INTERVAL_S:g} s", f"{share:.1%}", "100%", f"{share:.3f}"),
        ("health: HTTP probes / CPU s", f"{per_cpu:.0f}", "2000", f"{per_cpu / 2000:.2f}"),
        (
            "health: HTTP probes / s, client and server on this machine",
            f"{per_wall:.0f}",
            "2000",
            f"{per_wall / 2000:.2f}",
        ),
        ("health: HTTP probes / CPU s", f"{per_cpu:.0f}", f"bare aiohttp {bare:.0f}", f"{per_cpu / bare:.2f}"),
    ]


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for row in main():
        print("{:<58} {:>16}  {:<34} {:>8}".format(*row))
