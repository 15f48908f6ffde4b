"""What is kept of repairs across restarts: one document a service, in the namespace ``repair``.

What happens is written first and told then, and the document holds what is about to be told (a transactional
outbox). So after a kill between the two the audit trail lacks nothing: the next run tells what it does not find there.
A state file that cannot be written is no reason to leave services unrepaired: it is reported once, and each later
record is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from backend.shared.self_healing.repair_case import Case, Milestone
from modules.contracts.clock import Clock
from modules.contracts.errors import StateError
from modules.contracts.events import (
    EventBus,
    IncidentClosed,
    IncidentOpened,
    RepairEnded,
    RepairGaveUp,
    RepairStarted,
)
from modules.contracts.health import RepairPhase, RungOutcome
from modules.contracts.state import StateStore

NAMESPACE = "repair"

_KINDS: Mapping[str, Callable[..., Milestone]] = {
    kind.kind: kind for kind in (IncidentOpened, RepairStarted, RepairEnded, RepairGaveUp, IncidentClosed)
}


class RepairRecords:
    """Writes and reads cases; without a store nothing is kept. ``report`` is given sentences about faults."""

    def __init__(
        self, store: StateStore | None, clock: Clock, events: EventBus, report: Callable[[str], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._report = report
        self._failing = False

    def tell(self, case: Case, milestone: Milestone) -> None:
        """Write a case as it stands after ``milestone``, then publish that."""
        case.untold = replace(milestone, at=self._clock.time())
        self.save(case)
        self._events.publish(case.untold)
        case.untold = None

    def tell_rest(self, case: Case) -> None:
        """Publish what an earlier run had written and was killed before it told it."""
        if case.untold is not None:
            if not self._is_told(case.untold):
                self._events.publish(case.untold)
            case.untold = None

    def save(self, case: Case) -> None:
        """Write a case as it stands; durable when this returns."""
        if self._store is None:
            return
        document = {
            "ladder": case.ladder.to_document(self._clock.monotonic(), self._clock.time()),
            "rungs": [rung.describe for rung in case.rungs],
            "paused": case.paused,
            "until_healthy": case.until_healthy,
            "done": case.done,
            "untold": None if case.untold is None else {"kind": case.untold.kind, **_fields(case.untold)},
        }
        try:
            self._store.put(NAMESPACE, case.name, document)
        except StateError as error:
            if not self._failing:
                self._report(f"repairs go on, but after a restart they may be repeated: {error}")
            self._failing = True
        else:
            self._failing = False

    def load(self, case: Case) -> None:
        """Take back what an earlier run knew of the case, if it did.

        A rung that was running then is an interrupted one. With another ladder than then, an open incident
        begins at its first rung.
        """
        try:
            document = self._store.get(NAMESPACE, case.name) if self._store else None
            if document is None:
                return
            now = self._clock.monotonic()
            paused, until_healthy = document["paused"] is True, document["until_healthy"] is True
            done, rungs = [str(done) for done in document["done"]], document["rungs"]
            untold = _milestone(document["untold"])
            case.ladder.restore(document["ladder"], now, self._clock.time())
            case.paused, case.until_healthy, case.done, case.untold = paused, until_healthy, done, untold
            if case.ladder.phase is RepairPhase.RUNNING:
                case.interrupted = case.ladder.newest_run
                case.ladder.finish_run(RungOutcome.INTERRUPTED, now)
            if rungs != [rung.describe for rung in case.rungs]:
                case.ladder.reset(now)
        except (StateError, KeyError, TypeError) as error:
            self._report(f"what was kept of {case.name} cannot be read and is left out: {error}")

    def _is_told(self, milestone: Milestone) -> bool:
        """Whether the audit trail has it; each was stamped before it was written, so the time tells it apart."""
        if self._store is None:
            return False
        try:
            records = self._store.audit(incident=milestone.incident, kind=milestone.kind)
        except StateError as error:
            self._report(f"what was told of {milestone.service} cannot be read; it may be told twice: {error}")
            return False
        return any(record.at == milestone.at for record in records)


def _fields(milestone: Milestone) -> dict[str, Any]:
    return {key: value for key, value in asdict(milestone).items() if key != "id"}


def _milestone(document: Mapping[str, Any] | None) -> Milestone | None:
    if document is None:
        return None
    fields = dict(document)
    return _KINDS[fields.pop("kind")](**fields)
