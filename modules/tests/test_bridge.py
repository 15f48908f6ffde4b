"""Detection, fallback and the read-only guard, which every module shares."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from modules import bridge
from modules.bridge import Backend, ReadOnlyView, detect, resolve
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError, ReadOnlyModuleError
from modules.contracts.events import EventBus, RuntimeStateChanged
from modules.contracts.health import BuildContext, Heartbeats

HERE = Backend(True, None)
GONE = Backend(False, "no module named 'aiohttp'")


def context() -> BuildContext:
    clock = SystemClock()
    return BuildContext("api", clock, Heartbeats(clock), load=lambda name: None)


def test_a_backend_that_can_be_imported_is_available() -> None:
    assert detect("json", "modules.contracts") == HERE


def test_a_missing_module_is_named_with_the_reason() -> None:
    found = detect("json", "no_such_module_here")
    assert not found.available
    assert "no_such_module_here" in str(found.error)


def test_whatever_a_broken_module_raises_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_wheel.py").write_text("raise OSError('libfoo.so: wrong ELF class')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "OSError: libfoo.so: wrong ELF class" in str(detect("broken_wheel").error)


def test_detection_is_remembered_until_it_is_asked_to_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    detect.cache_clear()
    assert detect("colorsys").available
    monkeypatch.setitem(sys.modules, "colorsys", None)
    assert detect("colorsys").available
    detect.cache_clear()
    assert not detect("colorsys").available
    detect.cache_clear()


@pytest.mark.parametrize(
    ("use_backend", "backend", "serves"),
    [(None, HERE, True), (True, HERE, True), (False, HERE, False), (None, GONE, False), (False, GONE, False)],
)
def test_whether_the_backend_serves_is_settled_silently(
    use_backend: bool | None, backend: Backend, serves: bool
) -> None:
    assert resolve(use_backend, backend, "the cache") is serves


def test_a_backend_that_is_preferred_but_gone_is_warned_of_once_with_the_reason() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert resolve(True, GONE, "the cache") is False
    assert [str(warning.message) for warning in caught] == [
        "the cache serves locally, because the backend is unavailable: no module named 'aiohttp';"
        " install what is missing, or pass use_backend=False"
    ]


def test_the_local_store_says_that_it_forgets(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store, notes = bridge.open_store(str(path), clock=SystemClock(), use_backend=False)
    store.put("repair", "api", {"rung": 1})
    assert store.get("repair", "api") == {"rung": 1}
    assert not path.exists()
    assert str(path) in notes[0]
    store.close()


def test_the_backends_store_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store, notes = bridge.open_store(str(path), clock=SystemClock(), use_backend=True)
    store.close()
    assert path.exists()
    assert notes == []


@pytest.mark.parametrize("use_backend", [True, False])
def test_an_audit_trail_writes_what_happens_until_it_is_closed(use_backend: bool) -> None:
    store, _ = bridge.open_store("", clock=SystemClock(), use_backend=False)
    events = EventBus()
    trail = bridge.audit_trail(events, store, use_backend=use_backend)
    events.publish(RuntimeStateChanged(current="running"))
    trail.close()
    events.publish(RuntimeStateChanged(current="stopped"))
    assert [record.message for record in store.audit()] == ["runtime is running"]


def test_probes_and_rungs_come_from_whichever_side_serves() -> None:
    from backend.shared.self_healing.settings import ExecRungSettings, HttpProbeSettings  # noqa: PLC0415  optional

    asks_much = HttpProbeSettings(kind="http", url="http://127.0.0.1/", expect_body="ok")
    assert bridge.build_probe(asks_much, context(), use_backend=True).kind == "http"
    with pytest.raises(ConfigurationError, match=r"expect_body.*needs the backend"):
        bridge.build_probe(asks_much, context(), use_backend=False)
    command = ExecRungSettings(kind="exec", command=("true",), timeout_s=7, attempts=2)
    for use_backend in (True, False):
        rung = bridge.build_rung(command, context(), use_backend=use_backend)
        assert (rung.action.kind, rung.timeout_s, rung.attempts) == ("exec", 7, 2)


class Shelf:
    """Something that can be read and changed."""

    limit = 3

    def __init__(self) -> None:
        self.books = ["a"]

    def read(self) -> list[str]:
        return self.books

    def add(self, book: str) -> None:
        self.books.append(book)


def view(source: object) -> ReadOnlyView[object]:
    return ReadOnlyView(source, module="Library V3", reads=("read", "limit"), instead="library.get_shelf()")


def test_a_read_only_view_lets_reads_through_live() -> None:
    shelf = Shelf()
    looked = view(shelf)
    shelf.add("b")
    assert looked.read() == ["a", "b"]
    assert looked.limit == 3


def test_every_other_public_call_is_refused_and_named_with_the_call_to_use() -> None:
    shelf = Shelf()
    with pytest.raises(ReadOnlyModuleError) as refused:
        view(shelf).add("b")
    assert "Library V3" in str(refused.value)
    assert "add()" in str(refused.value)
    assert str(refused.value).endswith("use library.get_shelf().add()")
    assert shelf.books == ["a"]


def test_attributes_of_a_view_are_neither_set_nor_deleted() -> None:
    looked = view(Shelf())
    for name in ("limit", "books", "_source", "new"):
        with pytest.raises(ReadOnlyModuleError, match=name):
            setattr(looked, name, 1)
        with pytest.raises(ReadOnlyModuleError, match=name):
            delattr(looked, name)


def test_a_name_that_is_nowhere_is_no_attribute_and_the_nearest_is_said() -> None:
    with pytest.raises(AttributeError, match="did you mean 'read'"):
        _ = view(Shelf()).reed
    assert not hasattr(view(SimpleNamespace()), "add")
