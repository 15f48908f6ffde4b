"""From a command line to validated settings: Hydra composes, one strict validation follows, all problems at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, cast

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from modules.contracts.errors import did_you_mean
from runtime.arguments import Arguments, parse_arguments
from runtime.consistency import inconsistencies
from runtime.imports import Joined, join_imports
from runtime.loader import LARGEST_FILE, Loader, to_path
from runtime.overrides import read_overrides
from runtime.problems import CompositionError, Path, Problem, describe, scrub
from runtime.provenance import Origins, shown_file
from runtime.settings import RootSettings
from runtime.validation import problems_of


@dataclass(frozen=True)
class Composed:
    """A configuration that may be run.

    Attributes:
        settings: the validated root model.
        raw: the same as plain JSON types, every interpolation resolved. It may hold secrets: never print it.
        choices: group -> option.
        overrides: as they were handed to the loader. They may hold secrets.
        digest: 12 hexadecimal digits that are equal for equal configurations.
    """

    settings: RootSettings
    raw: Mapping[str, Any]
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    digest: str
    _origins: Callable[[], Origins]

    @property
    def deployment(self) -> str:
        return self.choices.get("deployment", "none")

    @cached_property
    def sources(self) -> Origins:
        """Where each key was set; read from the files when first asked."""
        return self._origins()


def compose(arguments: Arguments | Sequence[str] = ()) -> Composed:
    """Compose and validate a command line without the program's name. Raises CompositionError with every problem."""
    if not isinstance(arguments, Arguments):
        arguments = parse_arguments(arguments, os.environ)
    loader = Loader(arguments.config_dir)
    overrides = read_overrides(arguments.overrides, os.environ, loader)
    problems = list(overrides.problems)
    if too_large := loader.too_large():
        raise CompositionError([*problems, *map(_too_large, too_large)])
    try:
        composition = loader.compose(overrides.texts)
        OmegaConf.set_struct(composition.config, False)
        config = composition.config
        _fill(config, _defaults())
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError) as error:
        raise CompositionError([*problems, _broken(error, loader)]) from error

    raw, unresolved = _resolve(config)
    joined = join_imports(raw)

    def origins() -> Origins:
        return Origins(loader.layers(overrides.texts), (*overrides.settings, *joined.settings))

    raw = joined.raw
    settings, wrong = _validate(joined, [problem.path for problem in unresolved], loader)
    if found := [*unresolved, *joined.problems, *wrong]:
        problems += _with_sources(found, origins())
    if problems or settings is None:
        raise CompositionError(problems)
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:12]
    return Composed(settings, raw, composition.choices, overrides.texts, digest, origins)


def _too_large(file: FilePath) -> Problem:
    found = f"has {file.stat().st_size / (1 << 20):.1f} MiB, more than a configuration may have"
    return Problem((shown_file(file),), found, f"at most {LARGEST_FILE >> 20} MiB", "split it, or move it elsewhere")


def _broken(error: Exception, loader: Loader) -> Problem:  # noqa: PLR0911  a case a kind of failure
    """Explain why the files do not even compose."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        place = f"{shown_file(FilePath(mark.name))}:{mark.line + 1}"
        text = error.problem or str(error)
        if text.startswith("found duplicate key "):
            name = text.removeprefix("found duplicate key ")
            return Problem(
                (place,), f"{name!r} stands here for the second time", hint="names are unique: rename or remove one"
            )
        context = f" {error.context}" if error.context else ""
        return Problem((place,), f"is no YAML, at column {mark.column + 1}: {text}{context}")
    if isinstance(error, UnicodeDecodeError):
        where = next((shown_file(file) for file in loader.files() if not _is_utf8(file)), "configuration")
        return Problem((where,), f"is not UTF-8: {error}", hint="save it as UTF-8")
    text = scrub(str(error).strip())
    listed = re.match(r"In '([^']+)'", text)
    source = f"the defaults list of {listed[1]}.yaml" if listed else ""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        name = str(error.missing_cfg_file)
        group, _, option = name.rpartition("/")
        options = list(error.options or ())
        if group:
            near = did_you_mean(option, [each.rpartition("/")[2] for each in options])
            return Problem(
                (group,),
                f"there is no option {option!r}{near}",
                ", ".join(options),
                "correct the 'override' in a defaults list",
            )
        return Problem((name,), "a defaults list names this, and there is no such file")
    if wrong := re.search(r"Could not override '([^']+)'\. No match", text):
        near = did_you_mean(wrong[1], loader.groups)
        return Problem((wrong[1],), f"there is no such group{near}", ", ".join(loader.groups), source=source)
    if missing := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        found = "cannot be left out: there is no such key"
        return Problem(to_path(missing[1]), found, source=f"command line: ~{missing[1]}")
    return Problem(("configuration",), text or scrub(str(error.__cause__ or type(error).__name__)), source=source)


def _defaults() -> dict[str, Any]:
    """The models' defaults, but for the table of burn alerts: whether it was written makes a difference to its rows."""
    unsaid = {"slo": {"alerting": {"burn_alerts"}}}
    return RootSettings().model_dump(mode="json", by_alias=True, exclude=unsaid)


def _fill(config: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Add the models' defaults where nothing is said, so that ``${server.port}`` always means something.

    Merging the other way round would let a default stand in for a ``???``, which asks for a value.
    """
    said = {str(key) for key in config.keys()}  # noqa: SIM118  ``in`` leaves out ``???``
    for key, value in defaults.items():
        if key not in said:
            config[key] = value
        elif isinstance(value, dict) and isinstance(node := config._get_node(key), DictConfig) and _is_open(node):
            _fill(node, value)


def _is_open(node: DictConfig) -> bool:
    return not (node._is_none() or node._is_missing() or node._is_interpolation())


def _is_utf8(file: FilePath) -> bool:
    try:
        file.read_text("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _resolve(config: DictConfig) -> tuple[dict[str, Any], list[Problem]]:
    """Return the configuration as plain JSON types, and a problem for each value that cannot be known."""
    problems: list[Problem] = []
    around: set[int] = set()

    def plain(container: DictConfig | ListConfig, key: Any, path: Path) -> Any:
        if OmegaConf.is_missing(container, key):
            problems.append(Problem(path, "is still to be given (???)", hint=f"set it: {'.'.join(path)}=VALUE"))
            return None
        try:
            value = container[key]
        except OmegaConfBaseException as error:
            problems.append(_unresolved(container, key, path, error))
            return None
        if id(value) in around:
            problems.append(Problem(path, "refers to a mapping or list that it is part of", hint="break the circle"))
            return None
        if isinstance(value, (DictConfig, ListConfig)):
            around.add(id(value))
            if isinstance(value, DictConfig):
                inner: Any = mapping(value, path)
            else:
                inner = [plain(value, index, (*path, str(index))) for index in range(len(value))]
            around.discard(id(value))
            return inner
        return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)

    def mapping(container: DictConfig, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key in container:
            name = key if isinstance(key, str) else json.dumps(key)
            if not isinstance(key, str):
                found = f"this name is no text: YAML reads it as {describe(key)}"
                problems.append(Problem((*path, name), found, hint="put it in quotes"))
            result[name] = plain(container, key, (*path, name))
        return result

    return mapping(config, ()), problems


def _unresolved(container: DictConfig | ListConfig, key: Any, path: Path, error: OmegaConfBaseException) -> Problem:
    written = cast("dict[Any, Any] | list[Any]", OmegaConf.to_container(container, resolve=False))
    text = str(error).splitlines()[0]
    circular = "Recursive" in text or "parent node" in text
    hint = "break the circle" if circular else "name a key that exists"
    if variable := re.search(r"Environment variable '[^']*' not found", text):
        text = variable[0]
        hint = "set the variable, or give a default: ${oc.env:NAME,default}"
    return Problem(path, f"{scrub(str(written[key]))} cannot be resolved: {text}", hint=hint)


def _validate(joined: Joined, unresolved: Sequence[Path], loader: Loader) -> tuple[RootSettings | None, list[Problem]]:
    """Validate strictly; then ask of all that is valid on its own whether it fits together."""
    raw, objectives = joined.raw, joined.objectives
    services = raw.get("services")
    names = tuple(services) if isinstance(services, Mapping) else ()
    try:
        settings = RootSettings.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        known = problems_of(error, RootSettings, loader.groups, names)
        problems = [p for p in known if not any(p.path[: len(path)] == path for path in unresolved)]
        rest = _without(raw, [problem.path for problem in known])
        try:
            partial = RootSettings.model_validate_json(json.dumps(rest), strict=True)
        except ValidationError:
            return None, problems  # what is left depends on what was left out
        return None, [*problems, *inconsistencies(partial, names, objectives)]
    return settings, list(inconsistencies(settings, names, objectives))


def _without(raw: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """Leave out each wrong service, each wrong objective, and each other wrong section as a whole."""
    rest = dict(raw)
    for path in paths:
        if path[:1] == ("services",) and len(path) > 1 and isinstance(raw["services"], Mapping):
            rest["services"] = {name: value for name, value in rest["services"].items() if name != path[1]}
        elif path[:2] == ("slo", "objectives") and len(path) > 2 and "slo" in rest:
            objectives = {name: value for name, value in rest["slo"]["objectives"].items() if name != path[2]}
            rest["slo"] = {**rest["slo"], "objectives": objectives}
        elif path:
            rest.pop(path[0], None)
    return rest


def _with_sources(problems: Sequence[Problem], origins: Origins) -> list[Problem]:
    return [replace(problem, source=problem.source or origins.of(problem.path)) for problem in problems]
