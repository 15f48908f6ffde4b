"""What is kept of repairs across restarts: one document a service, in the namespace ``repair``.

A state file that cannot be written is no reason to leave services unrepaired: it is reported once, and each
later record is tried again.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.shared.self_healing.repair_case import Case
from modules.contracts.clock import Clock
from modules.contracts.errors import StateError
from modules.contracts.health import RepairPhase, RungOutcome
from modules.contracts.state import StateStore

NAMESPACE = "repair"


class RepairRecords:
    """Writes and reads cases; without a store nothing is kept. ``report`` is given sentences about faults."""

    def __init__(self, store: StateStore | None, clock: Clock, report: Callable[[str], object]) -> None:
        self._store = store
        self._clock = clock
        self._report = report
        self._failing = False

    def save(self, case: Case) -> None:
        """Write a case as it stands; durable when this returns."""
        if self._store is None:
            return
        document = {
            "ladder": case.ladder.to_document(self._clock.monotonic(), self._clock.time()),
            "rungs": [rung.describe for rung in case.rungs],
            "paused": case.paused,
            "for_slowness": case.for_slowness,
            "done": case.done,
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
            paused, for_slowness = document["paused"] is True, document["for_slowness"] is True
            done, rungs = [str(done) for done in document["done"]], document["rungs"]
            case.ladder.restore(document["ladder"], now, self._clock.time())
            case.paused, case.for_slowness, case.done = paused, for_slowness, done
            if case.ladder.phase is RepairPhase.RUNNING:
                case.interrupted = case.ladder.newest_run
                case.ladder.finish_run(RungOutcome.INTERRUPTED, now)
            if rungs != [rung.describe for rung in case.rungs]:
                case.ladder.reset(now)
        except (StateError, KeyError, TypeError) as error:
            self._report(f"what was kept of {case.name} cannot be read and is left out: {error}")
