"""OpenSLO's alert policies, as rows of our table of burn alerts.

A condition gives the burn rate over a window at which to alert; our rows give the share of the budget that is
spent in that window, which is burn rate x window / period. Whatever a policy asks for beyond that is a problem
rather than forgotten, because nobody should wait for an alert that never comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.shared.monitoring.openslo.fields import Field
from backend.shared.monitoring.openslo.indicators import read_description
from backend.shared.monitoring.openslo.periods import read_seconds
from backend.shared.monitoring.settings import AlertingSettings, BurnAlertSettings

Severity = Literal["page", "ticket"]

_SEVERITIES: Mapping[str, Severity] = {"page": "page", "ticket": "ticket"}
# The specification's example writes ``op: lte, threshold: 2`` for "the burn rate exceeds 2": the threshold is at
# most the rate. Others write it the other way round. Nobody wants an alert while the budget is hardly touched.
_OPERATORS = {"lte": True, "gte": True, "lt": True, "gt": True}
_KINDS = {"burnrate": True}


@dataclass(frozen=True, slots=True)
class Condition:
    """Alert while the burn rate over the last ``long_s`` seconds is ``threshold`` or more for ``after_s``."""

    severity: Severity
    threshold: float
    long_s: float
    after_s: float
    field: Field


def read_policy(spec: Field, condition_named: Callable[[Field], Condition | None]) -> Condition | None:
    """Read the ``spec`` of an AlertPolicy; ``condition_named`` resolves a ``conditionRef``."""
    given = spec.fields(
        ("conditions",),
        ("description", "alertWhenNoData", "alertWhenResolved", "alertWhenBreaching", "notificationTargets"),
    )
    read_description(given)
    _check_wishes(given)
    conditions = given.get("conditions")
    if conditions is None:
        return None
    entries = conditions.entries()
    if len(entries) != 1:
        if conditions.is_list:
            conditions.refuse(f"found {len(entries)} conditions", "exactly one", "write a policy for each further one")
        return None
    inline = entries[0].fields((), ("conditionRef", "apiVersion", "kind", "metadata", "spec"))
    if "conditionRef" in inline:
        return condition_named(inline["conditionRef"])
    if "spec" not in inline:
        entries[0].refuse("needs conditionRef, or spec")
        return None
    return read_condition(inline["spec"])


def _check_wishes(given: Mapping[str, Field]) -> None:
    """Refuse what is set for all objectives together, or not at all, when a policy wants it otherwise."""
    for name, kept, hint in (
        ("alertWhenBreaching", True, "remove the policy"),
        ("alertWhenResolved", True, "remove it: alerts.resolved says whether ends are sent, for all objectives"),
        ("alertWhenNoData", False, "remove it: without data an objective is no_data, which alerts nobody"),
    ):
        if name in given and given[name].flag() is (not kept):
            given[name].refuse(f"is {str(not kept).lower()}, which no single policy decides", hint=hint)
    targets = given.get("notificationTargets")
    if targets is not None and targets.entries():
        targets.refuse("names who is told", "an empty list", "alerts.targets and alerts.routes say who is told")


def read_condition(spec: Field) -> Condition | None:
    """Read the ``spec`` of an AlertCondition."""
    given = spec.fields(("severity", "condition"), ("description",))
    read_description(given)
    severity = given["severity"].choice(_SEVERITIES) if "severity" in given else None
    if "condition" not in given:
        return None
    condition = given["condition"]
    inner = condition.fields(("op", "threshold", "lookbackWindow"), ("kind", "alertAfter"))
    kind = inner["kind"].choice(_KINDS) if "kind" in inner else True
    op = inner["op"].choice(_OPERATORS) if "op" in inner else None
    threshold = inner["threshold"].number() if "threshold" in inner else None
    long_s = read_seconds(inner["lookbackWindow"]) if "lookbackWindow" in inner else None
    after_s = read_seconds(inner["alertAfter"], zero=True) if "alertAfter" in inner else 0.0
    if severity is None or kind is None or op is None or threshold is None or long_s is None or after_s is None:
        return None
    return Condition(severity, threshold, long_s, after_s, condition)


def as_alerting(conditions: Sequence[Condition], period_s: float, around: Field) -> AlertingSettings | None:
    """Return the conditions of one SLO as its own alerting over a period (seconds)."""
    rows: list[BurnAlertSettings] = []
    for condition in conditions:
        # The rounding takes back what a division by the period left in the last digits.
        share = round(condition.threshold * condition.long_s / period_s, 12)
        if not 0 < share <= 1:
            sum_ = f"{condition.threshold:g} x {condition.long_s:g} s / {period_s:g} s = {share:g}"
            condition.field.refuse(
                f"spends {share:.4g} of the budget within its lookbackWindow ({sum_})", "a share above 0, at most 1"
            )
            continue
        row = condition.field.build(
            BurnAlertSettings, severity=condition.severity, budget_share=share, long_s=condition.long_s
        )
        rows += [row] if row else []
    if len(rows) != len(conditions):
        return None
    waits = {condition.after_s for condition in conditions}
    if len(waits) > 1:
        found = ", ".join(f"{wait:g} s" for wait in sorted(waits))
        around.refuse(f"its conditions have different alertAfter ({found})", "one for all conditions of an SLO")
        return None
    return AlertingSettings(burn_alerts=tuple(rows), pending_s=waits.pop())
