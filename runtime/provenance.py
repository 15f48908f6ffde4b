"""Where each key of a configuration was set: a file and line, or a command-line argument.

The files are walked again in the order in which they were merged, then the overrides; the last one that set a key
is its origin. A key that nobody set has the origin of the nearest mapping that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig

from runtime.loader import OWN_FOLDER, Layer
from runtime.problems import Path


@dataclass(frozen=True, slots=True)
class _Place:
    """A key inside a file; its line is looked up only when a message needs it."""

    file: FilePath
    path: Path

    def __str__(self) -> str:
        line = _line_of(self.file, self.path)
        return shown_file(self.file) + (f":{line}" if line else "")


@dataclass(frozen=True, slots=True)
class Setting:
    """A key that an argument or environment variable set, and what to call that: ``command line: slo.latency_ms=3``."""

    path: Path
    value: Any
    said: str


class Origins:
    """Key -> where it was set."""

    def __init__(self, layers: Iterable[Layer], settings: Iterable[Setting] = ()) -> None:
        self._origins: dict[Path, _Place | str] = {}
        for layer in layers:
            self._walk(layer.content, (), lambda path, layer=layer: _Place(layer.file, path[len(layer.package) :]))
        for setting in settings:
            self._walk(setting.value, setting.path, lambda _, said=setting.said: said)

    def of(self, path: Path) -> str:
        """Return where ``path`` was set, or else what is below it, or else the nearest mapping around it.

        Empty for built-in defaults.
        """
        below = (origin for known, origin in self._origins.items() if known[: len(path)] == path)
        if (inside := self._origins.get(path) or next(below, None)) is not None:
            return str(inside)
        for length in range(len(path), 0, -1):
            if (origin := self._origins.get(path[:length])) is not None:
                return str(origin)
        return ""

    def _walk(self, value: Any, path: Path, origin: Any) -> None:
        if path in self._origins and not isinstance(value, (Mapping, DictConfig)):
            # A list or a leaf replaces whatever stood there.
            for below in [known for known in self._origins if known[: len(path)] == path]:
                del self._origins[below]
        if path:
            self._origins[path] = origin(path)
        for key, child in _children(value):
            self._walk(child, (*path, key), origin)


def _children(value: Any) -> Iterable[tuple[str, Any]]:
    match value:
        case DictConfig() | ListConfig():
            if value._is_none() or value._is_missing() or value._is_interpolation():
                return []
            if isinstance(value, ListConfig):
                return [(str(index), value._get_node(index)) for index in range(len(value))]
            return [(str(key), value._get_node(key)) for key in value]
        case Mapping():
            return [(str(key), child) for key, child in value.items()]
        case list():
            return [(str(index), child) for index, child in enumerate(value)]
        case _:
            return []


def shown_file(file: FilePath) -> str:
    """Name a configuration file for people: ``conf/...`` for the program's own, relative to here where it is below."""
    for base, prefix in ((OWN_FOLDER, FilePath("conf")), (FilePath.cwd(), FilePath())):
        if file.is_relative_to(base):
            return str(prefix / file.relative_to(base))
    return str(file)


def _line_of(file: FilePath, path: Path) -> int | None:
    """Find the line, from 1, on which ``path`` or the nearest mapping around it begins."""
    lines = _lines(file)
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), None)


@lru_cache(maxsize=64)
def _lines(file: FilePath) -> Mapping[Path, int]:
    """Return the line of each key of a file; read once, however many problems it has."""
    try:
        root = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return {}  # the file changed since it was read; the message does without a line
    lines: dict[Path, int] = {}
    around: set[int] = set()

    def walk(node: yaml.Node | None, path: Path) -> None:
        if id(node) in around:  # an alias to what it is part of
            return
        around.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines.setdefault((*path, str(key.value)), key.start_mark.line + 1)
                walk(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines.setdefault((*path, str(index)), value.start_mark.line + 1)
                walk(value, (*path, str(index)))
        around.discard(id(node))

    walk(root, ())
    return lines
