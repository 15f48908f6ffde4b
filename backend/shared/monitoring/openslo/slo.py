"""An OpenSLO service level objective as settings of our objectives: one for each of its ``objectives``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from backend.shared.monitoring.openslo.alerting import Condition, as_alerting
from backend.shared.monitoring.openslo.fields import Field
from backend.shared.monitoring.openslo.indicators import Indicator, read_description, with_threshold
from backend.shared.monitoring.openslo.periods import METHODS, read_method, read_percent, read_window
from backend.shared.monitoring.settings import AlertingSettings, AnyWindow, ObjectiveSettings, RollingWindowSettings
from modules.contracts.errors import did_you_mean

T = TypeVar("T")

_OBJECTIVE = ("displayName", "op", "value", "target", "targetPercent", "timeSliceTarget", "timeSliceWindow")
_COMPOSITE = ("indicator", "indicatorRef", "compositeWeight")
_DEFAULT_WINDOW = RollingWindowSettings(kind="rolling", days=30)


def referred(reference: Field, kind: str, known: Mapping[str, T]) -> T | None:
    """Return what a field refers to by name, or None."""
    name = reference.text()
    if name is not None and name not in known:
        allowed = ", ".join(known) or f"no {kind} is imported"
        reference.refuse(f"there is no {kind} {name!r}{did_you_mean(name, known)}", allowed)
    return known.get(name or "")


class SLOReader:
    """Reads SLOs; ``indicators`` and ``policies`` are what they may refer to, None for one that could not be read."""

    def __init__(
        self,
        indicators: Mapping[str, Indicator | None],
        policies: Mapping[str, Condition | None],
        read_indicator: Callable[[Field], Indicator | None],
        read_policy: Callable[[Field], Condition | None],
    ) -> None:
        self._indicators = indicators
        self._policies = policies
        self._read_indicator = read_indicator
        self._read_policy = read_policy

    def read(self, name: str, spec: Field) -> list[tuple[str, ObjectiveSettings]]:
        """Read the ``spec`` of an SLO of this name."""
        given = spec.fields(
            ("service", "budgetingMethod", "objectives"),
            ("description", "indicator", "indicatorRef", "timeWindow", "alertPolicies"),
        )
        description = read_description(given)
        service = given["service"].text() if "service" in given else None
        method = given["budgetingMethod"].choice(METHODS) if "budgetingMethod" in given else None
        window = read_window(given["timeWindow"]) if "timeWindow" in given else _DEFAULT_WINDOW
        entries = given["objectives"].entries() if "objectives" in given else []
        if "objectives" in given and given["objectives"].is_list and not entries:
            given["objectives"].refuse("found an empty list", "at least one objective")
        objectives = [entry.fields((), (*_OBJECTIVE, *_COMPOSITE)) for entry in entries]
        composite = [objective for objective in objectives if _refuses_composite(objective)]
        indicator = None if composite else self._indicator(spec, given)
        alerting = None
        if "alertPolicies" in given:
            alerting = self._alerting(given["alertPolicies"], window)
        found: list[tuple[str, ObjectiveSettings]] = []
        for suffix, entry, objective in zip(_suffixes(objectives), entries, objectives, strict=True):
            percent = _target(entry, objective)
            budgeting = read_method(method, objective, entry) if method else None
            counted = with_threshold(indicator, objective, entry) if indicator else None
            if service is None or window is None or percent is None or budgeting is None or counted is None:
                continue
            settings = ObjectiveSettings(
                description=description,
                # OpenSLO wants a service in any case. No objective shares its name with one of ours, so this is none.
                service=None if service == name else service,
                indicator=counted,
                objective=percent,
                windows=(window,),
                method=budgeting,
                alerting=alerting,
            )
            found.append((name + suffix, settings))
        return found

    def _indicator(self, spec: Field, given: Mapping[str, Field]) -> Indicator | None:
        if ("indicator" in given) == ("indicatorRef" in given):
            spec.refuse("needs exactly one of indicator and indicatorRef")
            return None
        if "indicatorRef" in given:
            return referred(given["indicatorRef"], "SLI", self._indicators)
        inline = given["indicator"].fields(("spec",), ("metadata",))
        if "metadata" in inline:
            inline["metadata"].check_mapping()
        if "spec" not in inline:
            return None
        return self._read_indicator(inline["spec"])

    def _alerting(self, policies: Field, window: AnyWindow | None) -> AlertingSettings | None:
        entries = policies.entries()
        conditions = [self._policy(entry) for entry in entries]
        if not entries or window is None or None in conditions:
            return None
        return as_alerting([condition for condition in conditions if condition], window.length_s, policies)

    def _policy(self, entry: Field) -> Condition | None:
        inline = entry.fields((), ("alertPolicyRef", "apiVersion", "kind", "metadata", "spec"))
        if ("alertPolicyRef" in inline) == ("spec" in inline):
            entry.refuse("needs exactly one of alertPolicyRef and spec")
            return None
        if "spec" in inline:
            return self._read_policy(inline["spec"])
        return referred(inline["alertPolicyRef"], "AlertPolicy", self._policies)


def _refuses_composite(objective: Mapping[str, Field]) -> bool:
    """OpenSLO's composites have a target for each member and none for the whole; ours is the other way round."""
    for name in _COMPOSITE:
        if name in objective:
            hint = "write it under slo.objectives with an indicator of kind composite, which weighs objectives"
            objective[name].refuse("belongs to a composite SLO, which cannot be taken", hint=hint)
    return any(name in objective for name in _COMPOSITE)


def _target(around: Field, objective: Mapping[str, Field]) -> float | None:
    if ("target" in objective) == ("targetPercent" in objective):
        around.refuse("needs exactly one of target and targetPercent")
        return None
    field = objective["target"] if "target" in objective else objective["targetPercent"]
    percent = read_percent(field, of=1 if "target" in objective else 100)
    if percent == 100:
        field.refuse("leaves no error budget", "less, for example 0.999 or 99.9 percent")
        return None
    return percent


def _suffixes(objectives: list[dict[str, Field]]) -> list[str]:
    """Return what is added to an SLO's name for each of its objectives."""
    titles = [objective["displayName"].text() or "" if "displayName" in objective else "" for objective in objectives]
    if len(objectives) == 1:
        return [""]
    words = [re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") for title in titles]
    return [f"-{word or position}" for position, word in enumerate(words, start=1)]
