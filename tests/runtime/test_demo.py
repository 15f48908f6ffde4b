"""The demo services as a user meets them: real processes, real HTTP, broken on purpose."""

import http.server
import json
import os
import re
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
import yaml

from runtime.demo.faults import Fault, FaultError, parse

ROOT = Path(__file__).parents[2]


class Running:
    """A demo service in a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.demo", *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line).group()

    def ask(self, path: str, method: str = "GET", body: object = None, timeout: float = 2.0, raw: bytes | None = None):
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(2)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def run():
    running: list[Running] = []

    def start(*arguments: str, **environment: str) -> Running:
        running.append(Running(*arguments, **environment))
        return running[-1]

    yield start
    for service in running:
        service.end(signal.SIGKILL)


@pytest.fixture
def store(run):
    return run("store", "--port", "0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_item_that_was_put_is_got_back(store):
    assert store.ask("/items/a%2Fb", "PUT", {"n": 1}) == (200, {"key": "a/b", "value": {"n": 1}})
    assert store.ask("/items/a%2Fb") == (200, {"key": "a/b", "value": {"n": 1}})
    assert store.ask("/items/none")[0] == 404
    assert store.ask("/items/bad", "PUT", raw=b"{")[0] == 400


def test_a_healthy_service_says_so_in_json(store):
    assert store.ask("/healthz") == (200, {"status": "ok"})


def test_wrong_paths_and_methods_name_what_there_is(store):
    status, answer = store.ask("/health")
    assert (status, "/healthz" in answer["error"]) == (404, True)
    assert store.ask("/items/")[0] == 404
    status, answer = store.ask("/items/a", "DELETE")
    assert (status, "GET, PUT" in answer["error"]) == (405, True)


def test_a_body_that_is_too_large_or_chunked_is_refused(store):
    request = urllib.request.Request(store.url + "/items/a", b"1", {"Content-Length": "9999999999"}, method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=2)
    with refused.value as error:
        assert error.code == 413
    chunked = urllib.request.Request(store.url + "/items/a", iter([b"1"]), method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(chunked, timeout=2)
    with refused.value as error:
        assert error.code == 411


def test_a_refusal_is_read_by_a_client_that_is_still_sending(store):
    with socket.create_connection(("127.0.0.1", int(store.url.rpartition(":")[2])), timeout=2) as client:
        client.sendall(b"PUT /items/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):  # it has answered by the first, and a reset would be noticed by the last
            time.sleep(0.05)
            client.sendall(b"1\r\nx\r\n" * 1000)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 411 ")


def test_latency_delays_every_answer_until_it_is_cleared(store):
    assert store.ask("/_fault", "POST", {"kind": "latency", "ms": 150})[0] == 200
    began = time.monotonic()
    assert store.ask("/healthz")[0] == 200
    assert time.monotonic() - began >= 0.15
    assert store.ask("/_fault", "DELETE") == (200, {"service": "store", "fault": None})
    assert store.ask("/_fault") == (200, {"service": "store", "fault": None})


def test_error_answers_every_request_with_its_status(store):
    store.ask("/_fault", "POST", {"kind": "error", "status": 500})
    assert [store.ask("/healthz")[0], store.ask("/items/a")[0]] == [500, 500]
    assert store.ask("/_fault") == (200, {"service": "store", "fault": {"kind": "error", "status": 500}})


def test_hang_never_answers_and_ends_when_it_is_cleared(store):
    assert store.ask("/_fault?kind=hang", "POST")[0] == 200
    with pytest.raises(TimeoutError):
        store.ask("/healthz", timeout=0.15)
    store.ask("/_fault", "DELETE")
    assert store.ask("/healthz")[0] == 200


def test_requests_that_hang_do_not_pile_up_once_their_clients_left(store):
    store.ask("/_fault?kind=hang", "POST")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            store.ask("/healthz", timeout=0.05)
    tasks = Path(f"/proc/{store.process.pid}/task")
    deadline = time.monotonic() + 3
    while len(list(tasks.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(tasks.iterdir())) == 1


def test_crash_exits_at_once_with_code_1(store):
    assert store.ask("/_fault", "POST", {"kind": "crash"})[0] == 200
    assert store.process.wait(1) == 1


def test_a_fault_does_not_survive_a_restart(run):
    port = str(free_port())
    first = run("store", "--port", port)
    first.ask("/_fault?kind=error", "POST")
    first.end()
    assert run("store", "--port", port).ask("/healthz")[0] == 200


def test_a_hanging_service_ends_at_sigterm_with_code_0(run):
    service = run("store", "--port", "0")
    service.ask("/_fault?kind=hang", "POST")
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        began = time.monotonic()
        assert service.end() == 0
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service_with_code_0(run, number):
    assert run("store", "--port", "0").end(number) == 0


def test_the_api_serves_the_stores_items_and_its_troubles(run, store):
    api = run("api", "--port", "0", "--store", store.url)
    store.ask("/items/a%20b", "PUT", 7)
    assert api.ask("/items/a%20b") == (200, {"key": "a b", "value": 7})
    assert api.ask("/items/none")[0] == 404
    assert api.ask("/healthz") == (200, {"status": "ok"})
    store.ask("/_fault?kind=error", "POST")
    status, answer = api.ask("/healthz")
    assert (status, "answered 503" in answer["reason"]) == (503, True)
    store.ask("/_fault?kind=hang", "POST")
    status, answer = api.ask("/healthz")
    assert (status, "no answer within" in answer["reason"]) == (503, True)
    store.end(signal.SIGKILL)
    status, answer = api.ask("/healthz")
    assert (status, "refused" in answer["reason"]) == (503, True)
    assert api.ask("/items/a")[0] == 502


@pytest.fixture
def receiver():
    """An admin API as the worker sees it: counts the heartbeats that are PUT."""
    beats: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            beats.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1/services/worker/heartbeat", beats
    server.shutdown()
    thread.join()
    server.server_close()


def count_grows(beats: list[str], by: int, seconds: float) -> bool:
    goal, deadline = len(beats) + by, time.monotonic() + seconds
    while len(beats) < goal and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(beats) >= goal


def test_a_worker_sends_heartbeats_until_it_hangs(run, receiver):
    url, beats = receiver
    worker = run("worker", "--port", "0", "--report", url, "--every", "0.05")
    assert count_grows(beats, 3, 2.0)
    assert set(beats) == {"/api/v1/services/worker/heartbeat"}
    worker.ask("/_fault?kind=hang", "POST")
    time.sleep(0.1)
    assert not count_grows(beats, 1, 0.2)
    worker.ask("/_fault", "DELETE")
    assert count_grows(beats, 2, 2.0)


def test_a_worker_without_a_report_sends_its_heartbeats_to_the_runtime_that_supervises_it(run, receiver):
    url, beats = receiver
    run("worker", "--port", "0", "--every", "0.05", SELFRIGHT_URL=url.partition("/api")[0])
    assert count_grows(beats, 1, 2.0)
    assert set(beats) == {"/api/v1/services/worker/heartbeat"}


def test_latency_delays_a_workers_heartbeats_as_well_as_its_answers(run, receiver):
    url, beats = receiver
    worker = run("worker", "--port", "0", "--report", url, "--every", "0.01")
    assert count_grows(beats, 3, 2.0)
    worker.ask("/_fault?kind=latency&ms=300", "POST")
    time.sleep(0.1)  # the round that was under way
    seen, began = len(beats), time.monotonic()
    assert worker.ask("/healthz")[0] == 200
    assert time.monotonic() - began >= 0.3
    assert len(beats) - seen <= 2


def test_a_workers_latency_is_by_itself_long_enough_to_be_noticed(run, receiver):
    demo = yaml.safe_load((ROOT / "conf" / "deployment" / "demo.yaml").read_text())["services"]["worker"]
    worker = run("worker", "--port", "0", "--report", receiver[0], "--every", "1")
    _, answer = worker.ask("/_fault?kind=latency", "POST")
    assert answer["fault"]["seconds"] >= 2 * demo["probe"]["ttl_s"] + demo["interval_s"]


def test_a_worker_sends_no_heartbeat_while_the_store_does_not_work(run, receiver, store):
    url, beats = receiver
    store.ask("/_fault?kind=error", "POST")
    worker = run("worker", "--port", "0", "--report", url, "--every", "0.05", "--store", store.url)
    assert not count_grows(beats, 1, 0.2)
    status, answer = worker.ask("/healthz")
    assert (status, store.url in answer["reason"]) == (503, True)
    store.ask("/_fault", "DELETE")
    assert count_grows(beats, 2, 2.0)  # by the second the answer to the first has been read
    assert worker.ask("/healthz")[0] == 200


def test_a_worker_whose_report_is_refused_says_so_and_tries_again(run):
    port = free_port()
    worker = run("worker", "--port", "0", "--report", f"http://127.0.0.1:{port}/beat", "--every", "0.05")
    deadline = time.monotonic() + 2
    while (found := worker.ask("/healthz"))[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found[0] == 503
    assert "refused" in found[1]["reason"]


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "runtime.demo", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SELFRIGHT_URL"} | environment,
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )


def test_a_port_in_use_is_one_clear_line_and_code_1(store):
    port = store.url.rpartition(":")[2]
    ended = demo("store", "--port", port)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"store: port {port} of 127.0.0.1 is taken by another program; stop it or choose another --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("store", "--port", "70000"), "0 to 65535"),
        (("api", "--port", "0"), "--store"),
        (("api", "--port", "0", "--store", "ftp://x"), "http:// address"),
        (("worker", "--port", "0", "--report", "http://127.0.0.1:1", "--every", "0"), "above 0"),
        (("worker", "--port", "0", "--every", "1"), "needs --report: the environment has no SELFRIGHT_URL"),
        (("shop",), "store"),
    ],
)
def test_wrong_arguments_end_with_code_2_and_name_what_is_allowed(arguments, hint):
    ended = demo(*arguments)
    assert (ended.returncode, hint in ended.stderr, "Traceback" in ended.stderr) == (2, True, False)


def test_an_address_from_the_environment_that_is_none_is_named():
    ended = demo("worker", "--port", "0", "--every", "1", SELFRIGHT_URL="http://127.0.0.1:0")
    assert ended.returncode == 2
    assert "SELFRIGHT_URL must be an http:// address" in ended.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "latency"}, Fault("latency", seconds=2)),
        ({"kind": "latency", "ms": "250"}, Fault("latency", seconds=0.25)),
        ({"kind": "latency", "seconds": 0.5}, Fault("latency", seconds=0.5)),
        ({"kind": "error"}, Fault("error", status=503)),
        ({"kind": "error", "status": "502"}, Fault("error", status=502)),
        ({"kind": "hang"}, Fault("hang")),
        ({"kind": "crash"}, Fault("crash")),
    ],
)
def test_a_fault_is_read_with_its_parameter_or_its_default(given, expected):
    assert parse(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no kind was given; allowed: latency, error, hang, crash"),
        ({"kind": "hangs"}, r"did you mean 'hang'\?.*allowed: latency, error, hang, crash"),
        ({"kind": 3}, "3 is no kind"),
        ({"kind": ["hang"]}, "no kind"),
        ({"kind": "hang", "seconds": 3}, "hang takes no 'seconds'"),
        ({"kind": "latency", "second": 3}, "allowed: seconds, ms"),
        ({"kind": "latency", "seconds": "soon"}, "found 'soon'"),
        ({"kind": "latency", "seconds": "nan"}, "number from 0 to 3600"),
        ({"kind": "latency", "seconds": -1}, "found -1"),
        ({"kind": "latency", "seconds": True}, "found True"),
        ({"kind": "latency", "seconds": 1, "ms": 1}, "keep one"),
        ({"kind": "error", "status": 404}, "500 to 599, found 404"),
        ({"kind": "error", "status": 500.5}, "whole number"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_is_allowed(given, message):
    with pytest.raises(FaultError, match=message):
        parse(given)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"kind=hang"])
def test_a_fault_that_is_no_json_object_is_refused_with_an_example(store, body):
    status, answer = store.ask("/_fault", "POST", raw=body)
    assert (status, '{"kind": "hang"}' in answer["error"]) == (400, True)


def test_a_wrong_kind_answers_400_with_the_allowed_ones(store):
    status, answer = store.ask("/_fault?kind=explode", "POST")
    assert (status, "latency, error, hang, crash" in answer["error"]) == (400, True)
    assert store.ask("/_fault", "PUT")[0] == 405
