"""Awaits a function: what it returns is the sentence, an exception is its failure."""

from __future__ import annotations

import inspect

from backend.shared.self_healing.probes.callable import is_async
from backend.shared.self_healing.settings import CallableRungSettings
from modules.contracts.errors import ConfigurationError, RepairError
from modules.contracts.health import BuildContext, RepairContext, RepairFunction


class FunctionAction:
    """Awaits ``function`` with the RepairContext."""

    kind = "callable"

    def __init__(self, function: RepairFunction) -> None:
        self._function = function
        self._name = str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def describe(self) -> str:
        return f"call {self._name}"

    async def run(self, context: RepairContext) -> str:
        try:
            said: object = await self._function(context)
        except RepairError:
            raise
        except Exception as error:  # whatever a user's function raises is why it did not help
            text = str(error)
            raise RepairError(f"{self._name} raised {type(error).__name__}{': ' if text else ''}{text}") from error
        return said if isinstance(said, str) and said else f"called {self._name}"


def build(settings: CallableRungSettings, context: BuildContext) -> FunctionAction:
    """Load the function. Raises ConfigurationError when it is not async or does not take one argument."""
    where = f"services.{context.service}.repair: the function {settings.target!r}"
    function = context.load(settings.target)
    if not is_async(function):
        raise ConfigurationError(f"{where} must be an async function ('async def'), found {type(function).__name__}")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise ConfigurationError(
            f"{where} is called with one argument, the RepairContext, but it takes"
            f" {inspect.signature(function)}: {error}"
        ) from None
    return FunctionAction(function)
