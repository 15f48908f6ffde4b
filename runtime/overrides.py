"""Overrides from the command line as Hydra takes them: ``key=v``, ``+key=v`` and ``++key=v`` mean the same.

Groups and their options are checked here, where every wrong one can be named at once; keys are checked later, by
the settings models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from modules.contracts.errors import did_you_mean
from runtime.loader import Loader, to_path
from runtime.problems import Problem, describe, shown_override
from runtime.provenance import Setting


@dataclass(frozen=True, slots=True)
class Overrides:
    """What can be handed to the loader, where each key of it came from, and what cannot be used."""

    texts: tuple[str, ...]
    settings: tuple[Setting, ...]
    problems: tuple[Problem, ...]


def read_overrides(arguments: Iterable[str], environ: Mapping[str, str], loader: Loader) -> Overrides:
    """Read the arguments, and APP_ENV where ``env`` is not among them."""
    given = [(text, f"command line: {shown_override(text)}") for text in arguments]
    if (env := environ.get("APP_ENV")) and not any(text.lstrip("+").startswith("env=") for text, _ in given):
        given.append((f"env={env}", f"environment variable APP_ENV={env}"))
    texts: list[str] = []
    settings: list[Setting] = []
    problems: list[Problem] = []
    for text, said in given:
        read = _read(text, said, loader)
        if isinstance(read, Problem):
            problems.append(read)
        else:
            texts.append(read[0])
            settings.extend(read[1:])
    return Overrides(tuple(texts), tuple(settings), tuple(problems))


def _read(text: str, said: str, loader: Loader) -> Problem | tuple[str] | tuple[str, Setting]:  # noqa: PLR0911  a case a slip
    shown = shown_override(text)
    if "=" not in text and not text.startswith("~"):
        return Problem((shown,), "is no override: the '=' is missing", "key=value, group=option or ~key", source=said)
    try:
        override = loader.parse(text)
    except HydraException as error:
        hint = "put values with spaces or any of = , : { } [ ] ( ) ' \" in quotes: key='\"a=b\"'"
        # The parser's message repeats a piece of the value, which may be a secret.
        reason = "" if shown != text else f": {error}"
        return Problem((shown.partition("=")[0],), f"cannot be read{reason}", hint=hint, source=said)
    key = override.key_or_group
    path = to_path(key)
    if not path:
        return Problem((shown,), "names no key", "key=value or group=option", source=said)
    if override.is_hydra_override() or path == ("hydra",):
        return Problem(path, "Hydra's own keys are not used here", hint="--config-dir DIR adds a folder", source=said)
    if override.is_sweep_override():
        hint = "give one value; a list is written [a,b], a string with commas \"'a,b'\""
        return Problem(path, "several values: sweeps are not part of this version", hint=hint, source=said)
    if key in loader.groups or override.package is not None:
        return _group(override, text, said, loader)
    if override.is_delete():
        return (text,)
    return "++" + text.lstrip("+"), Setting(path, override.value(), said)


def _group(override: Override, text: str, said: str, loader: Loader) -> Problem | tuple[str] | tuple[str, Setting]:
    key = override.key_or_group
    value: Any = override.value()
    if override.package is not None:
        return Problem((f"{key}@{override.package}",), "a group cannot be moved", f"{key}=OPTION", source=said)
    if override.is_delete():
        return (text,)
    options = loader.groups[key]
    if isinstance(value, (dict, list)):
        example = f"one of {', '.join(options)}; single keys as {key}.KEY=VALUE"
        return Problem((key,), f"found {describe(value)} for a group", example, source=said)
    option = override.get_value_element_as_str()
    if value is None or option not in options:
        hint = ""
        if key == "deployment" and loader.directory is None:
            hint = "your own deployments come from a folder: --config-dir DIR finds DIR/deployment/NAME.yaml"
        near = did_you_mean(option, options)
        return Problem((key,), f"there is no option {option!r}{near}", ", ".join(options), hint, said)
    return (text.lstrip("+"),)
