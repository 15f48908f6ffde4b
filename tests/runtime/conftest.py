"""The command, run in this process, in an empty folder, with an environment that says nothing to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what a test makes importable there is forgotten afterwards."""
    for name in ("APP_ENV", "SELFRIGHT_DEBUG", "SELFRIGHT_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "shop":
            del sys.modules[name]


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``run(*arguments)`` as a user types it."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def write(here: Path) -> Callable[[str, str], Path]:
    """``write(path, text)`` makes a file below the working directory."""

    def write(path: str, text: str) -> Path:
        file = here / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    return write


@pytest.fixture
def shop(write: Callable[[str, str], Path]) -> Callable[[str], list[str]]:
    """``shop(text)`` writes a deployment of one's own and returns the arguments that check it."""

    def shop(text: str) -> list[str]:
        write("d/deployment/shop.yaml", f"# @package _global_\n{text}")
        return ["mode=check", "deployment=shop", "--config-dir", "d"]

    return shop
