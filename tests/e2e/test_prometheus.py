"""A real Prometheus server loads the exported rules and evaluates them to what the engine says.

Debian's package ``prometheus`` brings the server and promtool. Where they are missing the tests are skipped, unless
SELFRIGHT_PROMETHEUS_TESTS=1 asks for them.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from backend.shared.monitoring.burn import WINDOWS
from backend.shared.monitoring.exports.objective import Counters, ExportedObjective, service_objective
from backend.shared.monitoring.exports.prometheus_rules import ALERT, prometheus_rules
from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.settings import AlertingSettings, CompositeIndicatorSettings

ROOT = Path(__file__).resolve().parents[2]
DAY_S = 86_400
SCRAPE_S = 60
NO_REPLY = (urllib.error.URLError, ConnectionError, TimeoutError)


@pytest.fixture(scope="module", autouse=True)
def _programs():
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not on PATH: apt-get install prometheus"
        if os.environ.get("SELFRIGHT_PROMETHEUS_TESTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class Server:
    """A running Prometheus with rules, evaluated every second, over ``data``."""

    def __init__(self, folder: Path, rules: str, scrape: str = "[]") -> None:
        folder.mkdir(exist_ok=True)
        (folder / "rules.yml").write_text(rules, "utf-8")
        (folder / "prometheus.yml").write_text(
            "global: {evaluation_interval: 1s, scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"rule_files: [rules.yml]\nscrape_configs: {scrape}\n"
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
                    *(f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=40d"),
                    *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str, **query: str) -> dict:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=5) as answer:
            return json.load(answer)["data"]

    def series(self, query: str) -> dict[tuple[str, str], tuple[float, float]]:
        """Return (time, value) of the newest recorded samples by objective and window."""
        found = {}
        for series in self.get("/api/v1/query", query=f"{query}[1m]")["result"]:
            at, value = series["values"][-1]
            found[series["metric"]["objective"], series["metric"].get("window", "")] = (at, float(value))
        return found

    def alerts(self) -> set[tuple[str, str, str]]:
        labels = [one["labels"] for one in self.get("/api/v1/alerts")["alerts"] if one["state"] == "firing"]
        assert {one["alertname"] for one in labels} <= {ALERT}
        return {(one["objective"], one["severity"], one["window"]) for one in labels}

    def wait_for(self, condition, what: str, within: float = 20) -> object:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if found := condition():
                    return found
            except NO_REPLY:
                pass  # it still starts
            time.sleep(0.1)
        raise AssertionError(f"no {what} within {within} s: {self.log.read_text()}")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        finally:
            self.process.kill()
            self.process.wait(5)


@pytest.fixture
def serve(tmp_path):
    servers: list[Server] = []

    def begin(*arguments, **keywords) -> Server:
        servers.append(Server(tmp_path / "prometheus", *arguments, **keywords))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


class ReplayedClock:
    """Stands where it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


def objective(name: str, **other: object) -> ExportedObjective:
    made = service_objective(
        name,
        latency_ms=500,
        availability=99.9,
        window_days=30,
        alerting=AlertingSettings(),
        counters=Counters("selfright_slo_events_total", "selfright_slo_good_events_total", ("service", name)),
        prefix="selfright",
    )
    return ExportedObjective(**{name: getattr(made, name) for name in made.__slots__} | other)


def stream(name: str, now: int) -> list[tuple[int, bool]]:
    """Return (time, good) of three days. No event lies where windows end, as both sides see those ends coarsely."""

    def quiet(at: int) -> bool:
        return any(
            -2 * SCRAPE_S < at - (now - length) < 300 + 2 * SCRAPE_S for length in WINDOWS.values() if length > 300
        )

    def good(at: int, number: int) -> bool:
        match name:
            case "steady":
                return number % 5000 != 7
            case "outage":
                return at < now - 600
            case "slow burn":
                return number % 500 != 7
            case "rare":
                return at < now - 1200
        raise AssertionError(name)

    every = 900 if name == "rare" else 10
    times = [at for at in range(now - 3 * DAY_S - 7200, now - 15, every) if not quiet(at)]
    return [(at, good(at, number)) for number, at in enumerate(times)]


def exposition(streams: dict[str, list[tuple[int, bool]]], now: int) -> str:
    """Return what a scrape every minute would have seen, as OpenMetrics with times."""
    lines = {"selfright_slo_events": [], "selfright_slo_good_events": []}
    for name, events in streams.items():
        total = good = position = 0
        for at in range(now - 3 * DAY_S - 7200 - SCRAPE_S, now + 1, SCRAPE_S):
            while position < len(events) and events[position][0] <= at:
                total, good, position = total + 1, good + events[position][1], position + 1
            lines["selfright_slo_events"].append(f'selfright_slo_events_total{{service="{name}"}} {total} {at}')
            lines["selfright_slo_good_events"].append(
                f'selfright_slo_good_events_total{{service="{name}"}} {good} {at}'
            )
    return "".join(f"# TYPE {family} counter\n" + "\n".join(of) + "\n" for family, of in lines.items()) + "# EOF\n"


def test_prometheus_computes_from_recorded_series_what_the_engine_shows(serve, tmp_path):
    now = int(time.time())
    names = ("steady", "outage", "slow burn", "rare")
    streams = {name: stream(name, now) for name in names}
    weights = {"steady": 3.0, "outage": 1.0, "silent": 5.0}
    composite = objective("both", indicator=CompositeIndicatorSettings(kind="composite", weights=weights))
    rules = prometheus_rules([*map(objective, names), objective("silent"), composite])
    assert rules.warnings == ()
    (tmp_path / "recorded").write_text(exposition(streams, now))
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run(
        [*backfill, tmp_path / "recorded", tmp_path / "prometheus" / "data"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    clock = ReplayedClock(now - 4 * DAY_S)
    engines = {name: Objective(name, objective=99.9, window_s=30 * DAY_S, clock=clock) for name in names}
    for at, name, good in sorted((at, of, good) for of, events in streams.items() for at, good in events):
        clock.now = at
        engines[name].record(good)

    server = serve(rules.text)
    budgets = "slo:period_error_budget_remaining:ratio"
    first = server.wait_for(lambda: len(found := server.series(budgets)) == 5 and found, "budgets of all")
    # The alerts stand below the budgets in each group: once there are newer budgets, they were all evaluated.
    left = server.wait_for(
        lambda: all((found := server.series(budgets))[key][0] > at for key, (at, _) in first.items()) and found,
        "second evaluation",
    )
    fired = server.alerts()
    burns = server.series("slo:burn_rate:ratio")

    assert {name for name, _ in left} == {*names, "both"}
    for (name, window), (at, value) in left.items():
        assert window == "30d"
        if name != "both":
            clock.now = at
            assert 100 * value == pytest.approx(engines[name].report().error_budget_remaining, rel=1e-9)
    compared = set()
    for (name, window), (at, value) in burns.items():
        if name != "both" and window != "30d":
            clock.now = at
            assert value == pytest.approx(engines[name].report().burn_rates[window], rel=1e-9, abs=1e-12), (
                name,
                window,
            )
            compared.add((name, window))
    # 5 and 30 minutes hold an event of "rare", or none: then it is absent on both sides.
    reported = {(name, window) for name in names for window in engines[name].report().burn_rates}
    assert compared == reported
    for window in WINDOWS:
        mean = (3 * burns["steady", window][1] + burns["outage", window][1]) / 4
        assert burns["both", window][1] == pytest.approx(mean, rel=1e-9), window

    rows = {("page", "1h"), ("page", "6h"), ("ticket", "1d"), ("ticket", "3d")}
    expected = {("outage", *row) for row in rows} | {("slow burn", "ticket", "3d")}
    assert {one for one in fired if one[0] != "both"} == expected


@pytest.fixture
def listening():
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    listener.accept()[0].close()

        listener.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        stop.set()
        accepting.join(5)


DEPLOYMENT = """\
# @package _global_
services:
  up: {probe: {kind: tcp, port: UP}, interval_s: 0.2, reprobe_ms: 200}
  down: {probe: {kind: tcp, port: 1}, interval_s: 0.2, reprobe_ms: 200}
"""


def test_prometheus_scrapes_the_program_and_computes_what_the_program_shows(serve, start, listening, tmp_path):
    (tmp_path / "conf" / "deployment").mkdir(parents=True)
    (tmp_path / "conf" / "deployment" / "shop.yaml").write_text(DEPLOYMENT.replace("UP", str(listening)))
    arguments = ("selfhealing=v2", "deployment=shop", "--config-dir", str(tmp_path / "conf"))
    exported = subprocess.run(
        [sys.executable, "-m", "runtime", *arguments, "mode=export", "export.what=prometheus-rules"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    program = start(*arguments).ready()
    target = program.url.removeprefix("http://")
    server = serve(exported.stdout, scrape=f"[{{job_name: shop, static_configs: [{{targets: ['{target}']}}]}}]")

    burns = server.wait_for(lambda: len(found := server.series("slo:burn_rate:ratio")) == 16 and found, "burn rates")
    shown = {name: program.service(name)["slo"]["burn_rates"] for name in ("up", "down")}
    for (name, window), (_, value) in burns.items():
        assert value == pytest.approx(shown[name].get(window, shown[name]["5m"]), rel=1e-6), (name, window)
    assert shown["up"]["5m"] == 0
    assert shown["down"]["5m"] == pytest.approx(1000)
    assert server.wait_for(lambda: {one for one in server.alerts() if one[1] == "page"}, "page") == {
        ("down", "page", "1h"),
        ("down", "page", "6h"),
    }
