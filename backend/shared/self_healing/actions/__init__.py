"""Repair actions: one file a kind, and the closed registry from settings to rung."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from backend.shared.self_healing.actions.callable import FunctionAction
from backend.shared.self_healing.probes.callable import is_async
from backend.shared.self_healing.settings import AnyRung
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import BuildContext, RepairAction, RepairFunction, Rung

# Imported by name when first used: a deployment without webhooks does not load the HTTP client.
_KINDS: Mapping[str, str] = {kind: f"{__name__}.{kind}" for kind in ("restart", "exec", "webhook", "callable")}
_NEEDS = {"clear_cache": "caching", "open_breaker": "orchestration"}

__all__ = ["as_rung", "build_rung"]


def build_rung(settings: AnyRung, context: BuildContext) -> Rung:
    """Build the rung of ``settings.kind``. Raises ConfigurationError that names the service and the key."""
    if settings.kind in _NEEDS:
        raise ConfigurationError(
            f"services.{context.service}.repair: a rung of kind {settings.kind!r} needs a"
            f" {_NEEDS[settings.kind]} module in the configuration, and there is none;"
            f" take one of {', '.join(sorted(_KINDS))}"
        )
    build: Callable[[AnyRung, BuildContext], RepairAction] = import_module(_KINDS[settings.kind]).build
    return Rung(build(settings, context), timeout_s=settings.timeout_s, attempts=settings.attempts)


def as_rung(step: Rung | RepairAction | RepairFunction, where: str) -> Rung:
    """Return a step of a ladder as a rung. Raises ConfigurationError, beginning with ``where``, when it is none."""
    if isinstance(step, Rung):
        if not (step.timeout_s > 0 and step.attempts >= 1):
            raise ConfigurationError(
                f"{where}: timeout_s must be above 0 and attempts 1 or more,"
                f" found {step.timeout_s!r} and {step.attempts!r}"
            )
        return Rung(as_rung(step.action, where).action, timeout_s=step.timeout_s, attempts=step.attempts)
    if is_async(getattr(step, "run", None)) and isinstance(getattr(step, "describe", None), str):
        return Rung(cast("RepairAction", step))
    if is_async(step):
        return Rung(FunctionAction(cast("RepairFunction", step)))
    raise ConfigurationError(
        f"{where} is an object of type {type(step).__name__}; give a Rung, a RepairAction or an async function"
    )
