"""YAML that is the same for the same objectives, and in which no text can be taken for anything but text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML would read as another type, and writes texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        """The same mapping twice is written twice: readers of rules do not follow references."""
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(*documents: Mapping[str, Any]) -> str:
    """Return the documents as YAML, keys in the order they have."""
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
        explicit_start=len(documents) > 1,
    )


def comment(lines: Iterable[str]) -> str:
    """Return the lines as YAML comments, whatever characters they hold."""
    return "".join(f"# {_printable(line)}".rstrip() + "\n" for line in lines)


def _printable(line: str) -> str:
    return line if line.isprintable() else json.dumps(line)[1:-1]
