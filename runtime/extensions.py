"""User code by dotted name, from allowed packages only.

A configuration is data: it can name a function, but only of a package that ``extensions`` lists, so that who may
write a configuration may not thereby run any code on the machine.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from modules.contracts.errors import ConfigurationError, did_you_mean


class Extensions:
    """Loads ``package.module.function`` from the ``allowed`` packages and what lies below them.

    The working directory is importable, after everything else, so that it cannot stand in for a library.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = tuple(allowed)

    def load(self, dotted: str) -> Callable[..., Awaitable[Any]]:
        """Return the async callable of this name. Raises ConfigurationError."""
        if not any(dotted.startswith(f"{package}.") for package in self._allowed):
            raise ConfigurationError(
                f"{dotted!r} is in no allowed package; allowed are {', '.join(self._allowed) or 'none'};"
                f" add {dotted.partition('.')[0]!r} to extensions"
            )
        module_name, _, name = dotted.rpartition(".")
        module = _import(module_name)
        try:
            target = getattr(module, name)
        except AttributeError:
            near = did_you_mean(name, [other for other in vars(module) if not other.startswith("_")])
            raise ConfigurationError(f"module {module_name!r} has no {name!r}{near}") from None
        if not _is_async(target):
            raise ConfigurationError(f"{dotted!r} is {_kind(target)}; it must be an async function: async def {name}")
        return target  # type: ignore[no-any-return]  # _is_async has looked


def _import(module_name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # user code may raise anything while it is imported
        raise ConfigurationError(
            f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _is_async(target: object) -> bool:
    called = target if inspect.isroutine(target) or inspect.isclass(target) else getattr(target, "__call__", None)  # noqa: B004  the method is looked at, not whether there is one
    return inspect.iscoroutinefunction(target) or (not inspect.isclass(target) and inspect.iscoroutinefunction(called))


def _kind(target: object) -> str:
    if inspect.isclass(target):
        return "a class"
    return "a plain function" if callable(target) else f"a {type(target).__name__}"
