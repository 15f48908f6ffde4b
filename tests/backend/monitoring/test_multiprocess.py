"""Several workers expose one sum, whatever becomes of each of them. The workers are real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client import values as client_values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from backend.shared.monitoring.metrics import PrometheusCollector
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError, StateError

OPENMETRICS = "application/openmetrics-text"
ROOT = Path(__file__).parents[3]
WORKER = textwrap.dedent(
    """
    import json, os, sys
    from backend.shared.monitoring.metrics import PrometheusCollector
    from modules.contracts.clock import SystemClock

    collector = PrometheusCollector("shop", clock=SystemClock(), multiprocess_dir=sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        call, arguments, keywords = json.loads(line)
        answer = getattr(collector, call)(*arguments, **keywords)
        print(json.dumps(answer[0].decode() if isinstance(answer, tuple) else answer), flush=True)
    """
)


class Worker:
    """A real process with a collector of its own, which does as it is told."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._answer() == "ready"

    @property
    def pid(self):
        return str(self.process.pid)

    def _answer(self):
        return json.loads(self.process.stdout.readline())

    def call(self, name, *arguments, **keywords):
        self.process.stdin.write(json.dumps([name, arguments, keywords]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def record(self, name, value, labels=None, **keywords):
        self.call("record_metric", name, value, labels, **keywords)

    def end(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "workers"


@pytest.fixture
def start(directory):
    workers = []

    def begin():
        workers.append(Worker(directory))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.end()


@pytest.fixture
def make(directory):
    made = []

    def collector(**options):
        made.append(PrometheusCollector("shop", clock=SystemClock(), multiprocess_dir=directory, **options))
        return made[-1]

    yield collector
    for one in made:
        one.close()


def exposed(text):
    """Each sample's value by its name and labels, as a strict parser reads them."""
    families = list(parse_openmetrics(text))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def shown(worker):
    return exposed(
        worker.call("render", OPENMETRICS) if isinstance(worker, Worker) else worker.render(OPENMETRICS)[0].decode()
    )


def test_whichever_worker_is_asked_exposes_the_sum_of_all(start):
    workers = [start() for _ in range(3)]
    for number, worker in enumerate(workers, 1):
        worker.record("sold", number, {"item": "tea"}, kind="counter", unit="items", help="Sold things.")
        worker.record("wait", number, {"item": "tea"}, unit="seconds")
    expositions = [shown(worker) for worker in workers]
    assert expositions[0] == expositions[1] == expositions[2]
    found = expositions[0]
    tea = ("item", "tea")
    assert found["shop_sold_items_total", tea] == 6
    assert found["shop_wait_seconds_count", tea] == 3
    assert found["shop_wait_seconds_sum", tea] == 6
    buckets = [found["shop_wait_seconds_bucket", tea, ("le", le)] for le in ("0.5", "1.0", "2.5", "5.0", "+Inf")]
    assert buckets == [0, 1, 2, 3, 3]
    families = {family.name: family for family in parse_openmetrics(workers[0].call("render", OPENMETRICS))}
    assert (families["shop_sold_items"].unit, families["shop_sold_items"].documentation) == ("items", "Sold things.")
    assert not any(name.startswith(("process_", "python_")) for name in families), "one worker's are not all workers'"


@pytest.mark.parametrize(("mode", "expected"), [("sum", 9), ("min", 2), ("max", 4), ("mostrecent", 3)])
def test_gauges_become_one_by_their_mode(make, mode, expected):
    workers = [make() for _ in range(3)]
    for worker, value in zip(workers, (2, 4, 3), strict=True):
        worker.record_metric("depth", value, kind="gauge", gauge_mode=mode)
    assert shown(workers[0]) == {("shop_depth",): expected}


def test_a_gauge_without_a_mode_is_shown_for_each_worker(start):
    workers = [start() for _ in range(2)]
    for worker, value in zip(workers, (2, 4), strict=True):
        worker.record("depth", value, {"queue": "in"}, kind="gauge")
    assert shown(workers[1]) == {
        ("shop_depth", ("pid", worker.pid), ("queue", "in")): value
        for worker, value in zip(workers, (2, 4), strict=True)
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_leaves_its_counts_and_takes_its_gauges_and_files(start, directory, number):
    alive, dead = start(), start()
    for worker in (alive, dead):
        worker.record("sold", 5, kind="counter")
        worker.record("wait", 3.0)
        worker.record("depth", 7, kind="gauge", gauge_mode="sum")
    dead.end(number)
    for _ in range(2):
        found = shown(alive)
        assert (found["shop_sold_total",], found["shop_wait_count",], found["shop_depth",]) == (10, 2, 7)
        assert found["shop_wait_bucket", ("le", "5.0")] == 2
    assert not list(directory.glob(f"*{dead.pid}*"))


def test_no_total_shrinks_and_no_file_is_left_over_many_deaths(start, directory):
    keeper = start()
    keeper.record("sold", 1, kind="counter")
    before, files = 1.0, set()
    for number in range(5):
        worker = start()
        worker.record("sold", 10, kind="counter")
        worker.record("seen", 1, {"by": worker.pid}, kind="counter")
        worker.end()
        found = shown(keeper)
        assert found["shop_sold_total",] == before + 10
        before += 10
        if number:
            assert {path.name for path in directory.iterdir()} == files
        files = {path.name for path in directory.iterdir()}


def test_the_label_values_of_the_dead_stay_bounded(make):
    keeper = make(max_series=50)
    for generation in range(3):
        worker = make(max_series=50)
        for number in range(50):
            worker.record_metric("seen", 1, {"user": f"{generation}-{number}"}, kind="counter")
        worker.close()
        found = shown(keeper)
    assert len(found) == 51
    assert sum(found.values()) == 150
    assert found["shop_seen_total", ("user", "other")] == 100


def test_the_first_worker_of_a_new_run_begins_at_nothing(start, make, directory):
    old = start()
    old.record("sold", 5, kind="counter")
    old.end()
    (directory / "notes.txt").write_text("not a worker's")
    collector = make()
    assert shown(collector) == {}
    assert (directory / "notes.txt").exists()


@pytest.mark.parametrize("done", ["nothing", "counter renamed", "all renamed", "some deleted"])
def test_a_worker_killed_while_it_retired_another_neither_loses_nor_doubles_a_count(make, directory, done):
    alive, dead = make(), make()
    for collector in (alive, dead):
        collector.record_metric("sold", 5, kind="counter")
        collector.record_metric("wait", 3.0)
    files = alive._files
    worker = dead._files._worker
    dead.close()
    finish, files._finish = files._finish, lambda workers: None
    files._retire([worker])  # up to the journal, and then: killed
    files._finish = finish
    assert json.loads((directory / "retiring.json").read_text()) == [worker]
    renamed = {"nothing": [], "counter renamed": ["counter"]}.get(done, ["counter", "histogram"])
    for kind in renamed:
        (directory / f"{kind}_retired.db.new").rename(directory / f"{kind}_retired.db")
    if done == "some deleted":
        (directory / f"counter_{worker}.db").unlink()
    found = shown(alive)
    assert (found["shop_sold_total",], found["shop_wait_count",]) == (10, 2)
    assert not list(directory.glob("*.new")) + list(directory.glob("retiring*")) + list(directory.glob(f"*{worker}.db"))


def test_a_worker_killed_before_its_journal_has_retired_nobody(make, directory):
    alive, dead = make(), make()
    dead.record_metric("sold", 5, kind="counter")
    dead.close()
    (directory / "counter_retired.db.new").write_bytes(b"half")
    (directory / "retiring.json.new").write_text("[")
    assert shown(alive) == {("shop_sold_total",): 5}


@pytest.mark.parametrize("content", [b"\x01", b"\x40\0\0\0\0\0\0\0\xff\xff\xff\x7f" + b"x" * 60])
def test_a_file_that_was_not_written_to_its_end_costs_only_itself_and_is_told_once(make, directory, caplog, content):
    one, other = make(), make()
    one.record_metric("sold", 5, kind="counter")
    other.record_metric("sold", 2, kind="counter")
    (directory / f"counter_{os.getpid()}-9.db").write_bytes(content)
    for _ in range(2):
        assert shown(one) == {("shop_sold_total",): 7}
    assert [f"counter_{os.getpid()}-9.db" in record.message for record in caplog.records] == [True]


def test_a_file_that_is_just_being_made_is_nothing_to_speak_of(make, directory, caplog):
    one = make()
    one.record_metric("sold", 5, kind="counter")
    (directory / f"counter_{os.getpid()}-9.db").touch()
    assert shown(one) == {("shop_sold_total",): 5}
    assert caplog.records == []


def test_collectors_of_one_process_are_workers_too(make):
    one, other = make(), make()
    one.record_metric("depth", 1, kind="gauge")
    other.record_metric("depth", 2, kind="gauge")
    assert shown(one) == {("shop_depth", ("pid", f"{os.getpid()}{n}")): value for n, value in (("", 1), ("-2", 2))}


FORK = textwrap.dedent(
    """
    import os, sys
    from backend.shared.monitoring.metrics import PrometheusCollector
    from modules.contracts.clock import SystemClock

    collector = PrometheusCollector("shop", clock=SystemClock(), multiprocess_dir=sys.argv[1])
    collector.record_metric("sold", 5, kind="counter")
    collector.record_metric("wait", 3.0)
    child = os.fork()
    collector.record_metric("sold", 2 if child else 1, kind="counter")
    collector.record_metric("wait", 3.0)
    if not child:
        assert collector.value("sold") == 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert collector.value("sold") == 7
    print(collector.render("application/openmetrics-text")[0].decode())
    """
)


def test_a_fork_begins_as_a_worker_of_its_own(directory):
    """In a process without other threads, as forking is unsafe with them."""
    command = [sys.executable, "-c", FORK, str(directory)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert run.stderr == ""
    found = exposed(run.stdout.removesuffix("\n"))
    assert (found["shop_sold_total",], found["shop_wait_count",], found["shop_wait_sum",]) == (8, 3, 9)


def test_an_exemplar_of_the_worker_that_is_asked_stands_beside_the_sum(make):
    workers = [make() for _ in range(2)]
    for number, worker in enumerate(workers):
        worker.record_metric("wait", 3.0, {"item": "tea"}, exemplar={"trace_id": f"t{number}"})
    family = next(iter(parse_openmetrics(workers[0].render(OPENMETRICS)[0].decode())))
    found = [(s.value, s.labels["le"], s.exemplar.labels) for s in family.samples if s.exemplar]
    assert found == [(2, "5.0", {"trace_id": "t0"})]


def test_other_registries_of_the_process_stay_as_they_are(make):
    make().record_metric("sold", 1, kind="counter")
    assert client_values.ValueClass is client_values.MutexValue
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert not any(family.name.startswith("shop") for family in REGISTRY.collect())


def test_a_label_that_tells_workers_apart_is_not_for_others(make, directory):
    with pytest.raises(ConfigurationError, match=r"label name 'pid'.*not le or quantile or pid"):
        make().record_metric("depth", 1, {"pid": "1"}, kind="gauge")
    PrometheusCollector("shop", clock=SystemClock()).record_metric("depth", 1, {"pid": "1"}, kind="gauge")


def test_metrics_of_one_name_and_two_kinds_do_not_spoil_the_exposition(make, caplog):
    one, other = make(), make()
    one.record_metric("sold", 1)
    other.record_metric("sold", 1, kind="counter")
    for _ in range(2):
        assert shown(one) == {("shop_sold_total",): 1}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("taken", ["file", "below a file"])
def test_a_directory_that_cannot_be_used_is_refused(tmp_path, taken):
    (tmp_path / "taken").write_text("")
    path = tmp_path / "taken" / ("" if taken == "file" else "below")
    with pytest.raises(ConfigurationError, match=r"multiprocess_dir .* cannot be used"):
        PrometheusCollector("shop", clock=SystemClock(), multiprocess_dir=path)


def test_a_directory_that_has_gone_is_an_error_that_says_so(make, directory):
    collector = make()
    collector.record_metric("sold", 1, kind="counter")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    with pytest.raises(StateError, match="restart the workers"):
        collector.render()


def test_who_reads_waits_for_who_retires(make, directory):
    collector = make()
    collector.record_metric("sold", 1, kind="counter")
    began, found = threading.Event(), []

    def read():
        began.set()
        found.append(shown(collector))

    with make()._files._exclusive():
        reader = threading.Thread(target=read)
        reader.start()
        began.wait(5)
        reader.join(0.05)
        assert found == []
    reader.join(5)
    assert found == [{("shop_sold_total",): 1}]


def test_files_are_those_that_other_tools_of_prometheus_client_read(make, directory):
    make().record_metric("sold", 3, {"item": "tea"}, kind="counter")
    keys = [
        (json.loads(key)[1:3], value)
        for key, value, *_ in MmapedDict.read_all_values_from_file(directory / f"counter_{os.getpid()}.db")
    ]
    assert keys == [(["shop_sold_total", {"item": "tea"}], 3.0)]
