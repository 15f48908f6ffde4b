"""Error budgets outlive a restart: what objectives count is kept in the state store.

Each second what was recorded since the last time is written in one transaction, so a ``kill -9`` costs at most a
second of samples. An objective is restored when it is first seen, before anything of it is written, so that
nothing is counted twice; one that is registered later is no special case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from backend.shared.monitoring.objectives import Objective
from modules.contracts.clock import Clock
from modules.contracts.component import ComponentState, ComponentStatus
from modules.contracts.errors import ConfigurationError, StateError
from modules.contracts.events import ComponentFailed, EventBus
from modules.contracts.slo import SLOTracker
from modules.contracts.state import StateStore

_HOUR_S = 3600.0
_UNSAVED_SLOTS = 1440
"""A day of minutes: while the store fails for longer, an objective's unsaved samples are merged into hours."""

_Slots = dict[float, tuple[int, int]]


class SampleKeeper:
    """A Component that restores every objective of ``trackers()`` from ``store`` and saves what they count.

    A store that fails is reported once as ComponentFailed and tried again each ``every_s`` seconds; meanwhile
    objectives count on and their samples wait.
    """

    def __init__(
        self,
        trackers: Callable[[], Iterable[SLOTracker]],
        store: StateStore,
        *,
        clock: Clock,
        events: EventBus,
        every_s: float = 1.0,
    ) -> None:
        if not every_s > 0:
            raise ConfigurationError(f"every_s of the sample keeper must be above 0, found {every_s!r}")
        self._trackers = trackers
        self._store = store
        self._clock = clock
        self._events = events
        self._every_s = every_s
        self._restored: dict[str, SLOTracker] = {}
        self._unsaved: dict[str, _Slots] = {}
        self._fault = ""
        self._state = ComponentState.CREATED
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> ComponentStatus:
        if self._state is ComponentState.RUNNING and self._fault:
            return ComponentStatus(ComponentState.DEGRADED, self._fault)
        return ComponentStatus(self._state, f"{len(self._restored)} objectives are kept")

    async def start(self) -> None:
        """Restore all objectives, and save them from now on. A store that fails does not hold up the start."""
        if self._task is not None:
            return
        self._attempt()
        self._task = asyncio.create_task(self._run(), name="sample keeper")
        self._state = ComponentState.RUNNING

    async def stop(self) -> None:
        """Save what is left, and end."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._attempt()
        self._state = ComponentState.STOPPED

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._every_s)
            self._attempt()

    def _attempt(self) -> None:
        try:
            self._save()
        except Exception as error:  # whatever fails, objectives must be kept again once it works again
            first = not self._fault
            expected = isinstance(error, StateError)
            self._fault = (
                f"SLO samples cannot be kept: {error if expected else repr(error)}; they wait for the next try"
            )
            if first:
                self._events.publish(ComponentFailed(component="samples", detail=self._fault))
        else:
            self._fault = ""

    def _save(self) -> None:
        """Restore, drain and write. Raises what the store raises; then everything drained waits in ``_unsaved``."""
        seen: set[str] = set()
        for tracker in self._trackers():
            seen.add(tracker.name)
            if self._restored.get(tracker.name) is not tracker:
                self._restore(tracker)
            waiting = self._unsaved.setdefault(tracker.name, {})
            _add(waiting, tracker.drain())
            if len(waiting) > _UNSAVED_SLOTS:
                self._unsaved[tracker.name] = _by_hours(waiting)
        for name in self._restored.keys() - seen:
            del self._restored[name]
        samples = {name: slots for name, slots in self._unsaved.items() if slots}
        if samples:
            self._store.add_samples(samples)
        self._unsaved.clear()

    def _restore(self, tracker: SLOTracker) -> None:
        history_s = tracker.history_s if isinstance(tracker, Objective) else tracker.report().window_s
        kept = dict(self._store.samples(tracker.name, since=self._clock.time() - history_s))
        _add(kept, self._unsaved.get(tracker.name, {}))
        tracker.restore(kept)
        self._restored[tracker.name] = tracker


def _add(to: _Slots, more: Mapping[float, tuple[int, int]]) -> None:
    for start, (good, total) in more.items():
        kept_good, kept_total = to.get(start, (0, 0))
        to[start] = (kept_good + good, kept_total + total)


def _by_hours(slots: _Slots) -> _Slots:
    merged: _Slots = {}
    for start, counts in slots.items():
        _add(merged, {start // _HOUR_S * _HOUR_S: counts})
    return merged
