"""A YAML file as fields that know where they stand, so that everything wrong with it is told with path and line.

PyYAML's composer keeps the marks that its constructor drops. The files come from elsewhere, so their size and
depth are bounded, and aliases are refused: a few of them, nested, unfold to billions of values (CWE-776).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from modules.contracts.errors import did_you_mean

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 1_000_000
"""Some thousand objectives; larger is no file that a person keeps."""
MAX_DEPTH = 40
"""OpenSLO nests 9 deep; the parser itself would end at its stack."""

# The parser in C where PyYAML was built with it: a tenth of the time.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "null": "nothing",
    "timestamp": "a date",
}


@dataclass(frozen=True, slots=True)
class OpenSLOProblem:
    """Something that cannot be taken. ``line`` counts from 1, 0 for the whole file; ``path`` may be empty."""

    file: str
    line: int
    path: str
    found: str
    allowed: str = ""
    hint: str = ""

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        text = f"{self.place}: " + (f"{self.path}: " if self.path else "") + self.found
        for label, more in (("allowed", self.allowed), ("do", self.hint)):
            if more:
                text += f"; {label}: {more}"
        return text


class Field:
    """A node of a file. What it cannot give as it is asked for goes to ``problems``, and None comes back."""

    __slots__ = ("_node", "_problems", "file", "path")

    def __init__(self, node: yaml.Node, file: str, path: str, problems: list[OpenSLOProblem]) -> None:
        self._node = node
        self._problems = problems
        self.file = file
        self.path = path

    @property
    def line(self) -> int:
        """The line, from 1."""
        return int(self._node.start_mark.line) + 1

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"

    @property
    def is_null(self) -> bool:
        return self._kind == "null"

    @property
    def is_number(self) -> bool:
        return self._kind in ("int", "float")

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, yaml.SequenceNode)

    def refuse(self, found: str, allowed: str = "", hint: str = "") -> None:
        """Note a problem with this field."""
        self._problems.append(OpenSLOProblem(self.file, self.line, self.path, found, allowed, hint))

    def fields(self, required: Collection[str] = (), optional: Collection[str] = ()) -> dict[str, Field]:
        """Return a mapping's fields by key; unknown, repeated and missing keys are problems."""
        known = (*required, *optional)
        result: dict[str, Field] = {}
        if not isinstance(self._node, yaml.MappingNode):
            self.refuse(f"found {self}", f"a mapping of {', '.join(known)}")
            return result
        for key, value in self._node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            field = Field(value, self.file, f"{self.path}.{name}" if self.path else name, self._problems)
            if name in result:
                field.refuse(f"stands here for the second time, first on line {result[name].line}", hint="keep one")
            elif name not in known:
                field.refuse(f"unknown field{did_you_mean(name, known)}", ", ".join(known))
            else:
                result[name] = field
        for name in required:
            if name not in result:
                path = f"{self.path}.{name}" if self.path else name
                self._problems.append(OpenSLOProblem(self.file, self.line, path, "is missing"))
        return result

    def check_mapping(self) -> None:
        """Refuse anything but a mapping; what is in it is nobody's business here."""
        if not isinstance(self._node, yaml.MappingNode):
            self.refuse(f"found {self}", "a mapping")

    def entries(self) -> list[Field]:
        """Return a list's entries."""
        if not isinstance(self._node, yaml.SequenceNode):
            self.refuse(f"found {self}", "a list")
            return []
        return [
            Field(node, self.file, f"{self.path}[{index}]", self._problems)
            for index, node in enumerate(self._node.value)
        ]

    def text(self) -> str | None:
        if self._kind == "str":
            return str(self._node.value)
        hint = f'quote it: "{self._node.value}"' if self._kind in ("int", "float", "bool", "timestamp") else ""
        self.refuse(f"found {self}", "a string", hint)
        return None

    def written(self) -> str | None:
        """Return a scalar as it is written, whatever YAML takes it for."""
        if isinstance(self._node, yaml.ScalarNode) and not self.is_null:
            return str(self._node.value)
        self.refuse(f"found {self}", "a string")
        return None

    def number(self) -> float | None:
        """Return a finite number."""
        # YAML also writes numbers as 0x1F, 1_000 and 1:30; nobody means that in an objective.
        if self.is_number and re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d{1,2})?", self._node.value):
            return float(self._node.value)
        self.refuse(f"found {self}", "a number, in decimal digits")
        return None

    def flag(self) -> bool | None:
        if self._kind == "bool":
            return str(self._node.value).lower() in ("true", "yes", "on")
        self.refuse(f"found {self}", "true or false")
        return None

    def choice(self, options: Mapping[str, T]) -> T | None:
        """Return what the text stands for."""
        text = self.text()
        if text is None:
            return None
        if text not in options:
            self.refuse(f"found {text!r}{did_you_mean(text, options)}", ", ".join(options))
        return options.get(text)

    def build(self, model: type[M], **values: Any) -> M | None:
        """Return the settings model with these values; what it refuses is a problem of this field."""
        try:
            return model(**values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                name = str(detail["loc"][0]) if detail["loc"] else "it"
                message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
                self.refuse(f"found {self}: {name} {message}" if detail["loc"] else message)
            return None

    @property
    def _kind(self) -> str:
        return str(self._node.tag).removeprefix(_TAG) if isinstance(self._node, yaml.ScalarNode) else ""

    def __str__(self) -> str:
        """Say what it is, for people."""
        if isinstance(self._node, yaml.ScalarNode):
            value = str(self._node.value)
            kind = _KINDS.get(self._kind, f"of type {self._node.tag}")
            shown = repr(value if len(value) <= 80 else value[:77] + "...")
            return (
                "nothing" if self.is_null else f"{shown} ({kind})" if self._kind == "str" else f"{value[:80]} ({kind})"
            )
        return "a list" if self.is_list else "a mapping"


def load_documents(path: str, problems: list[OpenSLOProblem]) -> Iterator[Field]:
    """Yield the objects of a file: each document, or the entries of a document that is a list."""
    text = _read(path, problems)
    if text is None:
        return
    try:
        refused = _beyond_bounds(path, text)
        nodes = [] if refused else list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        problems.append(OpenSLOProblem(path, line, "", f"is no YAML, at column {column}: {error.problem}"))
        return
    except yaml.YAMLError as error:  # a character that YAML does not allow
        problems.append(OpenSLOProblem(path, 0, "", f"is no YAML: {' '.join(str(error).split())}"))
        return
    problems += refused
    for node in nodes:
        if node is None:
            continue
        document = Field(node, path, "", problems)
        if document.is_null:
            continue
        yield from document.entries() if document.is_list else [document]


def _read(path: str, problems: list[OpenSLOProblem]) -> str | None:
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("it is no regular file")  # a pipe would be waited for
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "give the path of an OpenSLO file, relative to the working directory"
        problems.append(OpenSLOProblem(path, 0, "", f"cannot be read: {reason}", hint=hint))
        return None
    if len(content) > MAX_BYTES:
        problems.append(
            OpenSLOProblem(path, 0, "", f"is larger than {MAX_BYTES} bytes", hint="split it into several files")
        )
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(OpenSLOProblem(path, line, "", "is not UTF-8", hint="save it as UTF-8"))
        return None


def _beyond_bounds(path: str, text: str) -> list[OpenSLOProblem]:
    """Look at the events, which cost no stack and unfold nothing, before anything is built of them."""
    found: list[OpenSLOProblem] = []
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            found.append(
                OpenSLOProblem(path, line, "", f"alias *{event.anchor} is refused", hint="write the value out")
            )
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return [*found, OpenSLOProblem(path, line, "", f"is nested more than {MAX_DEPTH} deep")]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return found
