"""Error budget policy: which steps are in force for which objective, for other modules to act on.

A step holds while less than ``below`` percent of an objective's budget are left (Google SRE workbook, appendix B,
"Error Budget Policy"). It ends ``margin`` percent above that, so that a budget at the threshold does not flutter. No
data decides nothing: what is in force stays so. An objective that is gone takes its steps with it.

``tighten`` makes the recovery manager repair sooner (``modules.contracts.recovery``); ``shed`` is for whoever takes
requests, ``freeze`` for whoever applies changes. None of them stops a repair.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from backend.shared.monitoring.settings import BudgetStepSettings
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import BudgetStepChanged, ComponentFailed, EventBus
from modules.contracts.slo import ObjectiveReport, SLOStatus

MARGIN = 1.0
"""So many percent of the budget above its threshold a step ends."""

StepListener = Callable[[BudgetStepChanged], None]


class BudgetPolicy:
    """Decides from budgets alone which of ``steps`` are in force; ``update`` tells it of them.

    Changes are published as ``BudgetStepChanged`` and told to those who subscribed. Of a step that is written more
    than once, the highest threshold counts. Raises ConfigurationError for a margin below 0.
    """

    def __init__(self, steps: Sequence[BudgetStepSettings], *, events: EventBus, margin: float = MARGIN) -> None:
        if not 0 <= margin < math.inf:
            raise ConfigurationError(
                f"margin of the error budget policy: found {margin!r}; allowed is 0 or more percent"
            )
        self._events = events
        self._margin = margin
        # Ascending, so that the last ones, with the highest thresholds, win, and the mildest step comes first below.
        below: dict[str, float] = {step.step: step.below for step in sorted(steps, key=lambda step: step.below)}
        self._below = dict(sorted(below.items(), key=lambda item: -item[1]))
        self._in_force: dict[str, tuple[str, ...]] = {}
        self._services: dict[str, str | None] = {}
        self._listeners: list[StepListener] = []

    @property
    def steps(self) -> Mapping[str, float]:
        """The threshold of each step in percent, the first to come into force first."""
        return dict(self._below)

    @property
    def in_force(self) -> Mapping[str, tuple[str, ...]]:
        """The steps in force by objective, the mildest first; objectives without any are left out."""
        return dict(self._in_force)

    def for_service(self, service: str) -> tuple[str, ...]:
        """Return the steps that any objective of the service has brought into force, the mildest first."""
        found = {step for name, steps in self._in_force.items() if self._services[name] == service for step in steps}
        return tuple(step for step in self._below if step in found)

    def subscribe(self, callback: StepListener) -> Callable[[], None]:
        """Call ``callback`` with each change from now on; the returned function ends that.

        A callback that raises is reported as ComponentFailed, and the others still hear.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def update(self, reports: Iterable[ObjectiveReport]) -> None:
        """Decide anew from the reports of all objectives. Those that are not among them are gone."""
        changes: list[BudgetStepChanged] = []
        seen: set[str] = set()
        for report in list(reports):  # if it fails, then before anything has changed
            seen.add(report.name)
            self._services[report.name] = report.service
            left = report.error_budget_remaining
            if left is None or math.isnan(left) or report.status is SLOStatus.NO_DATA:
                continue
            changes += self._set(report.name, tuple(self._decide(report.name, left)), left)
        for name in self._services.keys() - seen:
            changes += self._set(name, (), None)
            del self._services[name]
        for change in changes:
            self._tell(change)

    def _decide(self, name: str, left: float) -> Iterable[str]:
        held = self._in_force.get(name, ())
        for step, below in self._below.items():
            # A whole budget ends every step, also one whose margin would lie above it.
            if left < (min(below + self._margin, 100) if step in held else below):
                yield step

    def _set(self, name: str, steps: tuple[str, ...], left: float | None) -> Iterable[BudgetStepChanged]:
        held = self._in_force.get(name, ())
        if steps == held:
            return
        if steps:
            self._in_force[name] = steps
        else:
            del self._in_force[name]
        service = self._services[name]
        for step in self._below:
            if (step in steps) != (step in held):
                yield BudgetStepChanged(
                    service=service, objective=name, step=step, in_force=step in steps, error_budget_remaining=left
                )

    def _tell(self, change: BudgetStepChanged) -> None:
        self._events.publish(change)
        for listener in list(self._listeners):
            try:
                listener(change)
            except Exception as error:  # whoever fails to act must not keep the others from it
                detail = f"a subscriber failed on {change.message!r}: {type(error).__name__}: {error}"
                self._events.publish(ComponentFailed(component="error budget policy", detail=detail))


class Enforcement:
    """A Component that keeps ``policy`` up to date with ``objectives()``, every ``every_s`` seconds.

    A fault is told once as ComponentFailed, and it goes on; meanwhile what is in force stays so.
    """

    def __init__(
        self,
        policy: BudgetPolicy,
        objectives: Callable[[], Mapping[str, ObjectiveReport]],
        *,
        clock: Clock,
        events: EventBus,
        every_s: float = 10.0,
    ) -> None:
        if not 0 < every_s < math.inf:
            raise ConfigurationError(f"every_s of the enforcement must be above 0 seconds, found {every_s!r}")
        self._policy = policy
        self._objectives = objectives
        self._clock = clock
        self._events = events
        self._every_s = every_s
        self._fault = ""
        self._state = ComponentState.CREATED
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> ComponentStatus:
        if self._state is ComponentState.RUNNING and self._fault:
            return ComponentStatus(ComponentState.DEGRADED, self._fault)
        in_force = "; ".join(f"{name}: {', '.join(steps)}" for name, steps in self._policy.in_force.items())
        return ComponentStatus(self._state, in_force or "no step of the error budget policy is in force")

    @property
    def in_force(self) -> Mapping[str, tuple[str, ...]]:
        """The steps in force by objective."""
        return self._policy.in_force

    def for_service(self, service: str) -> tuple[str, ...]:
        """Return the steps that any objective of the service has brought into force."""
        return self._policy.for_service(service)

    def subscribe(self, callback: StepListener) -> Callable[[], None]:
        """Call ``callback`` with each change from now on; the returned function ends that."""
        return self._policy.subscribe(callback)

    async def start(self) -> None:
        """Decide at once, and again every so often."""
        if self._task is not None:
            return
        self._look()
        self._task = asyncio.create_task(self._run(), name="error budget policy")
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        """Decide no more. Safe without a start, and twice."""
        self._state = ComponentState.STOPPED
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._every_s)
            self._look()

    def _look(self) -> None:
        try:
            self._policy.update(self._objectives().values())
        except Exception as error:  # the next look may well succeed
            fault = f"{type(error).__name__}: {error}"
            if fault != self._fault:
                self._fault = fault
                self._events.publish(ComponentFailed(component="error budget policy", detail=fault))
        else:
            self._fault = ""
