"""From pydantic's errors to problems that a person can act on.

What is allowed at a key is read from the models' JSON schema (types, ranges, options, descriptions), so nothing is
said here that is not said by a settings model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from modules.contracts.errors import did_you_mean
from runtime.problems import HIDDEN, Path, Problem, describe, is_secret, scrub

Schema = Mapping[str, Any]


def problems_of(
    error: ValidationError, model: type[BaseModel], groups: Iterable[str] = (), services: Iterable[str] = ()
) -> list[Problem]:
    """Translate every error; several about one key (the members of a union) become one. Sources are left empty.

    ``groups`` and ``services`` are the names that a mistaken one may have meant.
    """
    explainer = _Explainer(model.model_json_schema(), tuple(groups), tuple(services))
    problems: dict[Path, Problem] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_below(other["loc"], detail["loc"]) for other in details):
            continue  # its elements are wrong, and were not counted
        problem = explainer.explain(detail)
        problems.setdefault(problem.path, problem)
    return list(problems.values())


def _below(loc: tuple[int | str, ...], above: tuple[int | str, ...]) -> bool:
    return len(loc) > len(above) and loc[: len(above)] == above


class _Explainer:
    def __init__(self, schema: Schema, groups: tuple[str, ...], services: tuple[str, ...]) -> None:
        self._root = schema
        self._services = services
        self._definitions: Schema = schema.get("$defs", {})
        self._groups = groups

    def explain(self, detail: Any) -> Problem:  # noqa: PLR0911  a case a kind of error
        path, parent, schema = self._locate(detail["loc"])
        found = f"found {HIDDEN}" if is_secret(path) else f"found {describe(detail['input'])}"
        context = detail.get("ctx", {})
        match detail["type"]:
            case "extra_forbidden" if path[0] in self._groups and len(path) == 1:
                found = "a file of this group sets keys that do not belong below its own name, or none at all"
                return Problem(path, found, hint="let its first line be: # @package _global_, and keys follow")
            case "extra_forbidden":
                names = [*parent.get("properties", {}), *(self._groups if len(path) == 1 else ())]
                known = sorted(dict.fromkeys(names))
                return Problem(path, f"unknown key{did_you_mean(path[-1], known)}", ", ".join(known))
            case "missing":
                return Problem(path, "is missing", self._allowed(schema))
            case "union_tag_invalid" | "union_tag_not_found":
                tags = [tag.strip(" '") for tag in context.get("expected_tags", "").split(",") if tag.strip()]
                tags = tags or sorted(schema.get("discriminator", {}).get("mapping", {}))
                key = (*path, context["discriminator"].strip("'"))
                if "tag" not in context:
                    return Problem(key, "is missing", _one_of(tags))
                return Problem(key, f"found {context['tag']!r}{did_you_mean(context['tag'], tags)}", _one_of(tags))
            case "literal_error" | "enum":
                options = [str(option) for option in schema.get("enum", [schema.get("const")])]
                near = did_you_mean(str(detail["input"]), options)
                return Problem(path, found + near, self._allowed(schema))
            case "value_error" if path[:1] == ("services",) and len(path) == 2:
                others = [name for name in self._services if name != path[1]]
                return Problem(path, scrub(str(context["error"])) + did_you_mean(path[1], others))
            case "value_error":
                text = HIDDEN + " cannot be used" if is_secret(path) else scrub(str(context["error"]))
                return Problem(path, text, "" if schema.get("type") == "object" else self._note(schema))
            case _ if path and detail["loc"][-1] == "[key]":
                return Problem(path, "this name cannot be used", f"a name that matches {context.get('pattern', '')}")
            case _:
                hint = "" if is_secret(path) else _quoting(detail["input"], schema.get("type"))
                return Problem(path, found, self._allowed(schema), hint)

    def _locate(self, loc: Iterable[int | str]) -> tuple[Path, Schema, Schema]:
        """Walk a pydantic location: its real key, the schema around it and its own; union tags are no keys."""
        path: list[str] = []
        parent: Schema = {}
        schema = self._root
        for step in loc:
            if step == "[key]":
                continue
            schema = self._resolve(schema)
            if "discriminator" in schema:
                schema = self._resolve({"$ref": schema["discriminator"]["mapping"][step]})
                continue
            inner = self._inner(schema, step)
            if inner is None and "anyOf" in schema:
                continue  # the name of a union's member, such as ``int``
            path.append(str(step))
            parent, schema = schema, inner or {}
        return tuple(path), self._resolve(parent), self._resolve(schema)

    def _resolve(self, schema: Schema) -> Schema:
        """Follow references, and look through ``X | None`` where X is the only real choice."""
        while True:
            if "$ref" in schema:
                target = self._definitions[schema["$ref"].rsplit("/", 1)[1]]
                own = {key: value for key, value in schema.items() if key in ("description", "default")}
                schema = {**target, **own}
            elif "anyOf" in schema and len(real := [s for s in schema["anyOf"] if s.get("type") != "null"]) == 1:
                own = {key: value for key, value in schema.items() if key != "anyOf"}
                schema = {**real[0], **own, "nullable": True}
            else:
                return schema

    def _inner(self, schema: Schema, step: int | str) -> Schema | None:
        if isinstance(step, int):
            return schema.get("items", {}) if schema.get("type") == "array" else None
        if step in schema.get("properties", {}):
            return dict(schema["properties"][step])
        if schema.get("type") == "object":
            for inner in (*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")):
                if isinstance(inner, Mapping):
                    return inner
            return {}
        return None

    def _note(self, schema: Schema) -> str:
        return str(schema.get("description", "")).replace("\n", " ").replace("``", "")

    def _allowed(self, schema: Schema) -> str:
        schema = self._resolve(schema)
        shape = self._shape(schema) + (" or null" if schema.get("nullable") else "")
        note = self._note(schema)
        return f"{shape}. {note}" if note and shape else shape or note

    def _shape(self, schema: Schema) -> str:  # noqa: PLR0911  a case a type
        schema = self._resolve(schema)
        if "enum" in schema:
            return _one_of(schema["enum"])
        if "const" in schema:
            return str(schema["const"])
        if "discriminator" in schema:
            union = schema["discriminator"]
            return f"a mapping with {union['propertyName']}: {_one_of(union['mapping'])}"
        if "anyOf" in schema:
            return " or ".join(dict.fromkeys(self._shape(member) for member in schema["anyOf"]))
        match schema.get("type"):
            case "integer":
                return "a whole number" + _range(schema)
            case "number":
                return "a number" + _range(schema)
            case "boolean":
                return "true or false"
            case "null":
                return "null"
            case "string":
                return "a string" + (f" that matches {schema['pattern']}" if "pattern" in schema else "")
            case "array":
                least = " that is not empty" if schema.get("minItems") else ""
                return f"a list{least}, each {self._shape(schema.get('items', {})) or 'anything'}"
            case "object":
                keys = ", ".join(sorted(schema.get("properties", {})))
                return f"a mapping of {keys}" if keys else "a mapping"
            case _:
                return ""


def _one_of(options: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, options)))


def _range(schema: Schema) -> str:
    bounds = (
        ("exclusiveMinimum", "above"),
        ("minimum", "at least"),
        ("exclusiveMaximum", "below"),
        ("maximum", "at most"),
    )
    said = [f"{word} {schema[name]:g}" for name, word in bounds if name in schema]
    return " " + " and ".join(said) if said else ""


def _quoting(value: object, expected: object) -> str:
    """The slip behind a wrong type, where it is one that YAML and shells invite."""
    match value:
        case bool() | int() | float() if expected == "string":
            return f'quote it: "{json.dumps(value)}"'
        case str() if expected == "array":
            return "write a list: [...]"
        case str() if expected in ("number", "integer"):
            try:
                float(value)
            except ValueError:
                return ""
            return "write it without quotes"
        case _:
            return ""
