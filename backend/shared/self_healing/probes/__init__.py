"""Probes: one file a kind, and the closed registry from settings to probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from backend.shared.self_healing.probes.process import SupervisedProbe, supervision
from backend.shared.self_healing.settings import AnyProbe
from modules.contracts.health import BuildContext, Probe

# Imported by name when first used: a deployment without http probes does not load the HTTP client.
_KINDS: Mapping[str, str] = {
    kind: f"{__name__}.{kind}" for kind in ("http", "tcp", "exec", "process", "heartbeat", "callable")
}

__all__ = ["build_probe"]


def build_probe(settings: AnyProbe, context: BuildContext) -> Probe:
    """Build the probe of ``settings.kind``. Raises ConfigurationError that names the service and the key."""
    build: Callable[[AnyProbe, BuildContext], Probe] = import_module(_KINDS[settings.kind]).build
    probe, processes = build(settings, context), supervision(context)
    return probe if processes is None else SupervisedProbe(probe, context.service, processes)
