"""Joins the objectives of imported OpenSLO files to those that the configuration holds itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.problems import Problem
from runtime.provenance import Setting

_KEY = ("slo", "import")


@dataclass(frozen=True, slots=True)
class Joined:
    """A configuration with its imports.

    Attributes:
        raw: the configuration as plain JSON types, imported objectives among the others.
        problems: what cannot be taken. A problem's path is then the file and line.
        settings: where each imported objective came from.
        objectives: the names of all, or None when some could not be read.
    """

    raw: dict[str, Any]
    problems: tuple[Problem, ...] = ()
    settings: tuple[Setting, ...] = ()
    objectives: tuple[str, ...] | None = ()


def join_imports(raw: dict[str, Any]) -> Joined:
    """Read the files of ``slo.import``. Keys of a wrong type are left to the validation."""
    slo = raw.get("slo")
    if not isinstance(slo, Mapping):
        return Joined(raw)
    written = slo.get("objectives")
    own = dict(written) if isinstance(written, Mapping) else {}
    files = slo.get("import")
    paths = [path for path in files if isinstance(path, str) and path] if isinstance(files, list) else []
    if not paths:
        return Joined(raw, objectives=tuple(own))
    from modules.objectives import OpenSLOError, read_openslo  # noqa: PLC0415  each run pays for what it uses

    monitoring = raw.get("monitoring")
    prefix = monitoring.get("prefix") if isinstance(monitoring, Mapping) else None
    try:
        imported = read_openslo(*paths, prefix=str(prefix or "selfright"))
    except OpenSLOError as error:
        return Joined(raw, tuple(_problem(each) for each in error.problems), objectives=None)
    problems: list[Problem] = []
    settings: list[Setting] = []
    for each in imported:
        key = ("slo", "objectives", each.name)
        if each.name in own:
            found = f"is written here, and imported from {each.place} as well"
            problems.append(Problem(key, found, hint="rename one of them"))
            continue
        own[each.name] = each.settings.model_dump(mode="json")
        settings.append(Setting(key, None, each.place))
    joined = {**raw, "slo": {**slo, "objectives": own}}
    return Joined(joined, tuple(problems), tuple(settings), tuple(own))


def _problem(each: Any) -> Problem:
    found = f"{each.path}: {each.found}" if each.path else each.found
    return Problem((each.place,), found, each.allowed, each.hint)
