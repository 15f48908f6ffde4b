"""Whether the objectives of a configuration fit each other, its services, and the module that keeps them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import ConfigurationError, DependencyError, did_you_mean
from modules.settings import AlertingSettings, ObjectiveSettings
from runtime.problems import Path, Problem
from runtime.settings import RootSettings

_KEY = ("slo", "objectives")

_Promise = tuple[str, float, float]
"""Name, objective in percent, period in seconds."""


def unfit_objectives(
    settings: RootSettings, services: Collection[str], objectives: Collection[str] | None
) -> Iterator[Problem]:
    """Yield what does not fit.

    ``services`` and ``objectives`` are all names, also of those whose own settings are wrong; None when the names of
    some objectives are not known.
    """
    yield from _module(settings)
    for name, objective in settings.slo.objectives.items():
        if name in services:
            found = "a service has this name, and each service is an objective already"
            yield Problem((*_KEY, name), found, hint="choose another name")
        yield from _references(name, objective, services, objectives)
        yield from _slices(name, objective)
    yield from _circles(settings)
    yield from _rows_that_never_fire(settings)


def _module(settings: RootSettings) -> Iterator[Problem]:
    for key, wanted in (("objectives", settings.slo.objectives), ("policy", settings.slo.policy)):
        if not wanted:
            continue
        path, version = ("slo", key), settings.monitoring.version
        if version != "v2":
            found = f"needs monitoring=v2, and it is {version}"
            yield Problem(path, found, hint=f"set monitoring=v2, or leave {'.'.join(path)} out")
        if settings.backend == "off":
            yield Problem(path, "needs the backend, and backend is off", hint="set backend=auto")
            continue
        from modules.bridge import detect_monitoring  # noqa: PLC0415  it imports the backend

        if (error := detect_monitoring().error) is not None:
            yield Problem(path, f"needs the backend, which cannot be used: {error}", hint="install what is missing")


def _references(
    name: str, objective: ObjectiveSettings, services: Collection[str], objectives: Collection[str] | None
) -> Iterator[Problem]:
    indicator = objective.indicator
    named: list[tuple[Path, str]] = []
    if objective.service is not None:
        named.append((("service",), objective.service))
    if indicator.kind == "health":
        named.append((("indicator", "service"), indicator.service))
    for path, service in named:
        if service not in services:
            found = f"{service!r} is no service{did_you_mean(service, services)}"
            yield Problem((*_KEY, name, *path), found, ", ".join(services) or "there is none")
    if indicator.kind == "composite" and objectives is not None:
        known = [other for other in dict.fromkeys((*objectives, *services)) if other != name]
        for member in indicator.weights:
            if member not in known and member != name:  # itself is a circle
                found = f"{member!r} is neither objective nor service{did_you_mean(member, known)}"
                yield Problem((*_KEY, name, "indicator", "weights", member), found, ", ".join(known))


def _slices(name: str, objective: ObjectiveSettings) -> Iterator[Problem]:
    if objective.method.kind == "occurrences":
        return
    slice_s, shortest = objective.method.slice_s, min(window.length_s for window in objective.windows)
    if slice_s > shortest:
        found = f"a slice of {slice_s:g} s is longer than the window of {shortest:g} s"
        yield Problem((*_KEY, name, "method", "slice_s"), found, f"at most {shortest:g}")


def _circles(settings: RootSettings) -> Iterator[Problem]:
    members = {
        name: tuple(objective.indicator.weights) if objective.indicator.kind == "composite" else ()
        for name, objective in settings.slo.objectives.items()
    }
    try:
        DependencyGraph({name: [each for each in inner if each in members] for name, inner in members.items()})
    except DependencyError as error:
        circle = str(error).partition(": ")[2].partition(";")[0]
        yield Problem(
            _KEY, f"composites are made of each other in a circle: {circle}", hint="remove one of the weights"
        )


def _rows_that_never_fire(settings: RootSettings) -> Iterator[Problem]:
    """Refuse rows that are written and of no use; of the table that stands by default they are left out."""
    slo = settings.slo
    shared: list[_Promise] = []
    for name, service in settings.services.items():
        days = service.slo.window_days or slo.window_days
        shared.append((name, service.slo.availability or slo.availability, days * 86_400))
    for name, objective in slo.objectives.items():
        promise = (name, objective.objective, objective.windows[0].length_s)
        if objective.alerting is None:
            shared.append(promise)
        else:
            yield from _useless_rows((*_KEY, name, "alerting"), objective.alerting, [promise])
    yield from _useless_rows(("slo", "alerting"), slo.alerting, shared)


def _useless_rows(path: Path, alerting: AlertingSettings, promises: Iterable[_Promise]) -> Iterator[Problem]:
    if "burn_alerts" not in alerting.model_fields_set:
        return
    from modules.objectives import alert_table  # noqa: PLC0415  each run pays for what it uses

    alike: set[tuple[float, float]] = set()
    for name, objective, period_s in promises:
        if (objective, period_s) in alike:
            continue
        alike.add((objective, period_s))
        try:
            alert_table(name, alerting, objective, period_s)
        except ConfigurationError as error:
            hint = "" if path[1] == "objectives" else f"or give {name} an alerting of its own"
            yield Problem((*path, "burn_alerts"), str(error), hint=hint)
