"""Objectives for real: the demo is watched, one service is broken, the budget burns, and a receiver is paged."""

import http.server
import json
import os
import queue
import signal
import threading

import pytest


@pytest.fixture
def receiver():
    """A webhook receiver: its URL and what it was sent."""
    sent = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", sent
        server.shutdown()


def test_monitoring_alone_keeps_objectives_pages_as_the_budget_burns_and_remembers_it(start, receiver):
    url, sent = receiver
    arguments = (
        "+monitoring=v2",
        f"alerts.targets=[{{kind: webhook, url: '{url}', format: alertmanager}}]",
        "slo.objectives={quick: {objective: 99, indicator: {kind: threshold, metric: check_duration, threshold: 5}},"
        " shop: {objective: 99.5, indicator: {kind: composite, weights: {api: 2, store: 1}}}}",
    )
    program = start(*arguments).ready().healthy()
    os.kill(program.service("api")["process"]["pid"], signal.SIGKILL)
    fired = program.wait_for("slo_alert_changed", objective="api", severity="page", state="firing", within=40)
    assert "api" in fired["message"]

    page = sent.get(timeout=10)
    assert (page["version"], page["status"]) == ("4", "firing")
    assert page["commonLabels"]["severity"] == "page"

    objectives = {each["name"]: each for each in program.get("/api/v1/slo")["objectives"]}
    assert set(objectives) == {"store", "api", "worker", "quick", "shop"}
    assert objectives["api"]["status"] == "violated"
    assert objectives["api"]["burn_rates"]["5m"] > 14.4
    assert objectives["quick"]["sli"] == 100
    assert objectives["shop"]["error_budget_remaining"] < 100
    firing = {a["labels"]["objective"] for a in program.get("/api/v1/alerts")["alerts"] if a["state"] == "firing"}
    assert firing == {"api", "shop"}

    counted = objectives["api"]["windows"][0]
    program.stop()
    while not sent.empty():
        sent.get()
    again = start(*arguments, ports=program.ports).ready()
    restored = again.get("/api/v1/slo/api")["windows"][0]
    assert restored["total"] - restored["good"] >= counted["total"] - counted["good"] > 0
    again.wait_for("slo_alert_changed", objective="api", state="firing", within=40)
    assert sent.empty()  # the receiver knows already
