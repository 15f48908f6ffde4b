"""A user's async function as a probe: True or None passes, False fails, an exception fails with its text."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from backend.shared.self_healing.settings import CallableProbeSettings
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import PASS, BuildContext, Check, ProbeOutcome, ProbeResult

FAILED = ProbeResult(ProbeOutcome.FAIL, "the check returned False")


def is_async(check: object) -> bool:
    """Whether calling ``check`` gives a coroutine: an async function, a partial of one, or an async ``__call__``."""
    return inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(type(check), "__call__", None))  # noqa: B004  the method itself is looked at, not whether there is one


class CallableProbe:
    """Awaits ``check`` and reads its answer."""

    kind = "callable"

    def __init__(self, check: Check) -> None:
        self._check = check

    async def probe(self) -> ProbeResult:
        try:
            answer: Any = await self._check()
        except Exception as error:  # whatever a user's check raises is its verdict
            text = str(error)
            return ProbeResult(ProbeOutcome.FAIL, f"{type(error).__name__}{': ' if text else ''}{text}")
        if answer is True or answer is None:
            return PASS
        if answer is False:
            return FAILED
        if isinstance(answer, ProbeResult):
            return answer
        return ProbeResult(
            ProbeOutcome.FAIL,
            f"the check returned {_short(answer)}; it must return True, False, None or a ProbeResult",
        )

    async def close(self) -> None:
        """Nothing is held."""


def build(settings: CallableProbeSettings, context: BuildContext) -> CallableProbe:
    """Load the function. Raises ConfigurationError when it is not async or does not take the arguments."""
    where = f"services.{context.service}: the callable probe {settings.target!r}"
    target = context.load(settings.target)
    if not is_async(target):
        raise ConfigurationError(f"{where} is {_short(target)}; it must be an async function ('async def')")
    try:
        inspect.signature(target).bind(**settings.arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"{where} cannot be called with the arguments {sorted(settings.arguments)}: {error}; it takes"
            f" {inspect.signature(target)}"
        ) from None
    return CallableProbe(functools.partial(target, **settings.arguments))


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a user's object may not even have a repr
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
