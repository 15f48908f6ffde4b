"""Write what other programs need of a configuration: Prometheus rules, a dashboard, OpenSLO, a JSON schema.

Nothing but the export goes to standard output, so that it can be piped; what a format cannot say is told on standard
error. A file appears whole or not at all, and one that is there already is replaced only when that is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modules.contracts.catalog import full_name
from modules.contracts.errors import ConfigurationError
from modules.exports import (
    Counters,
    Export,
    ExportedObjective,
    declared_objective,
    grafana,
    openslo,
    prometheus_rules,
    service_objective,
)
from runtime.compose import Composed
from runtime.settings import RootSettings
from runtime.telemetry import (
    OBJECTIVE_BAD_EVENTS,
    OBJECTIVE_EVENTS,
    OBJECTIVE_GOOD_EVENTS,
    SERVICE_EVENTS,
    SERVICE_GOOD_EVENTS,
    counts_bad,
)

_OF_OBJECTIVES: dict[str, Callable[[Iterable[ExportedObjective]], Export]] = {
    "prometheus-rules": prometheus_rules,
    "grafana": grafana,
    "openslo": openslo,
}


def export(composed: Composed) -> int:
    """Write the export and return the exit code 0. Raises ConfigurationError when it cannot be written."""
    settings = composed.settings
    written = _schema() if settings.export.what == "schema" else _of_objectives(settings)
    for warning in written.warnings:
        sys.stderr.write(f"run: {warning}\n")
    if settings.export.path is None:
        sys.stdout.write(written.text)
    else:
        write_file(Path(settings.export.path), written.text, replace=settings.export.force)
    return 0


def exported_objectives(settings: RootSettings) -> Iterator[ExportedObjective]:
    """Yield the objective of every service, and every declared one."""
    prefix, slo = settings.monitoring.prefix, settings.slo
    for name, service in settings.services.items():
        own = service.slo
        yield service_objective(
            name,
            latency_ms=own.latency_ms or slo.latency_ms,
            availability=own.availability or slo.availability,
            window_days=own.window_days or slo.window_days,
            alerting=slo.alerting,
            counters=_counters(prefix, SERVICE_EVENTS, SERVICE_GOOD_EVENTS, ("service", name)),
            prefix=prefix,
        )
    for name, declared in slo.objectives.items():
        bad = counts_bad(declared)
        part = OBJECTIVE_BAD_EVENTS if bad else OBJECTIVE_GOOD_EVENTS
        counters = _counters(prefix, OBJECTIVE_EVENTS, part, ("objective", name), part_is_bad=bad)
        yield declared_objective(name, declared, alerting=slo.alerting, counters=counters, prefix=prefix)


def write_file(path: Path, text: str, *, replace: bool) -> None:
    """Write a file as a whole. Raises ConfigurationError, and then leaves everything as it was."""
    path = path.resolve()  # a link stays a link, and what it names is replaced
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8", newline="\n")
        try:
            if replace:
                if path.exists():
                    shutil.copymode(path, part)
                part.replace(path)
            else:
                os.link(part, path)  # unlike a rename, this fails where there is something
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError:
        raise ConfigurationError(
            f"export.path: {path} is there already, and was left as it is; add export.force=true to replace it"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"export.path: {path} cannot be written: {error.strerror or error}; name a file in a folder that exists and"
            " may be written to"
        ) from error


def _of_objectives(settings: RootSettings) -> Export:
    what = settings.export.what
    if what is None:
        raise ConfigurationError(
            f"export.what: is missing, and mode=export needs it; allowed: {', '.join((*_OF_OBJECTIVES, 'schema'))}"
        )
    if settings.monitoring.version == "none" and what != "openslo":
        raise ConfigurationError(
            f"export.what: {what} needs the counters at /metrics, and there are none with monitoring=none;"
            " set monitoring=v2"
        )
    return _OF_OBJECTIVES[what](exported_objectives(settings))


def _counters(prefix: str, events: str, part: str, label: tuple[str, str], *, part_is_bad: bool = False) -> Counters:
    total, counted = (full_name(prefix, name, "counter", "") for name in (events, part))
    return Counters(total, counted, label, part_is_bad)


def _schema() -> Export:
    schema = RootSettings.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Selfright configuration"}
    return Export(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
