"""What is wrong with a configuration, said so that it can be mended: key, finding, source, allowed, nearest name.

Values under keys that hold secrets are never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from modules.contracts.errors import ConfigurationError

Path = tuple[str, ...]
"""A key as its parts: ``("slo", "latency_ms")``. A service's name is one part, also with dots in it."""

HIDDEN = "***"

_SECRET_WORD = r"key|token|password|passwd|secret|credential|authorization|cookie"  # noqa: S105  names, not values
_SECRET = re.compile(_SECRET_WORD, re.IGNORECASE)
_SECRET_IN_VALUE = re.compile(rf"[\"']?\w*(?:{_SECRET_WORD})\w*[\"']?\s*:", re.IGNORECASE)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")
_URL_QUERY = re.compile(rf"([?&][^=&\s]*(?:{_SECRET_WORD})[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a configuration from being used.

    Attributes:
        path: the key, or the command-line option or file that is meant.
        found: what was found, with the nearest right name where there is one.
        allowed: what may stand there; empty when ``found`` says it.
        hint: what to do.
        source: where it was set: a file and line, a command-line argument, an environment variable.
    """

    path: Path
    found: str
    allowed: str = ""
    hint: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def __str__(self) -> str:
        lines = [f"{self.key}: {self.found}"]
        for label, text in (("set in", self.source), ("allowed", self.allowed), ("do", self.hint)):
            if text:
                lines.append(f"    {label + ':':<8} {text}")
        return "\n".join(lines)


class CompositionError(ConfigurationError):
    """A configuration cannot be used; ``problems`` holds every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join((*map(str, self.problems), f"{count} in the configuration; nothing was started")))


def is_secret(path: Path) -> bool:
    """Whether the value under a key must not be shown: by its name, or because it is a header or alert target."""
    if len(path) > 1 and path[:2] == ("alerts", "targets"):
        return path[-1] not in ("kind", "name")
    return any(part == "headers" for part in path[:-1]) or any(_SECRET.search(part) for part in path[-1:])


def scrub(text: str) -> str:
    """Hide user names, passwords and secret query arguments in the addresses of a text."""
    return _URL_QUERY.sub(rf"\1{HIDDEN}", _URL_USER.sub(f"{HIDDEN}@", text))


def shown_override(text: str) -> str:
    """Return a command-line override as it may be shown."""
    key, equals, value = text.partition("=")
    path = tuple(key.lstrip("+~").split("."))
    structured = value.lstrip().startswith(("{", "["))
    if is_secret(path) or (structured and (path[0] == "alerts" or _SECRET_IN_VALUE.search(value))):
        value = HIDDEN
    return scrub(f"{key}{equals}{value}")


def describe(value: object) -> str:  # noqa: PLR0911  a case a type
    """Say what a JSON value is, for people: ``'fast' (a string)``."""
    match value:
        case None:
            return "null"
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case int() | float():
            return f"{value} (a number)"
        case str():
            shown = scrub(value)
            return f"{shown[:77] + '...' if len(shown) > 80 else shown!r} (a string)"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return repr(str(value))
