"""Who is affected by whose failure: the dependency graph, and which services are down in it.

A service is down from its failure until it is seen alive again, restarts included: what depends on it fails
for its sake and is not repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modules.contracts.dependencies import DependencyGraph
from modules.contracts.errors import DependencyError
from modules.contracts.health import HealthStatus

_ALIVE = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
_DOWN = (HealthStatus.UNHEALTHY, HealthStatus.STARTING)


class Dependencies:
    """The services that are down, and what follows for the others.

    ``needs`` returns the direct dependencies of every service as they stand; call ``changed`` when they do.
    """

    def __init__(self, needs: Callable[[], Mapping[str, tuple[str, ...]]]) -> None:
        self._needs = needs
        self._graph: DependencyGraph | None = None
        self._reach: dict[str, tuple[str, ...]] = {}
        self._needed: frozenset[str] = frozenset()
        self._down: set[str] = set()

    def changed(self) -> None:
        """Forget what was worked out from the dependencies as they were."""
        self._graph = None

    def validate(self) -> None:
        """Raise DependencyError unless every dependency is a known service and there is no cycle."""
        DependencyGraph(self._needs())

    def forget(self, name: str) -> None:
        """A service is no longer watched."""
        self._down.discard(name)
        self.changed()

    def observe(self, name: str, status: HealthStatus) -> bool:
        """Take a service's status; return whether it went down or came back, UNKNOWN leaving it as it was."""
        if status in _ALIVE and name in self._down:
            self._down.remove(name)
            return True
        if status in _DOWN and name not in self._down:
            self._down.add(name)
            return True
        return False

    def of(self, name: str) -> tuple[str, ...]:
        """All that the service needs, directly or not, roots first."""
        graph = self._current()
        if name not in self._reach:
            self._reach[name] = graph.dependencies(name)
        return self._reach[name]

    def dependents(self, name: str) -> tuple[str, ...]:
        """All that need the service, directly or not, nearest first."""
        graph = self._current()
        return graph.dependents(name) if name in self._needed else ()

    def affected_by(self, name: str) -> tuple[str, ...]:
        """The services at the root of what is down among those that the service needs."""
        if not self._down or not any(need in self._down for need in self.of(name)):
            return ()
        return self._current().failed_roots(name, self._down)

    def _current(self) -> DependencyGraph:
        if self._graph is None:
            needs = self._needs()
            # A dependency may be registered later, or have been unregistered: until ``validate`` it is passed over.
            known = {name: tuple(need for need in on if need in needs) for name, on in needs.items()}
            try:
                self._graph = DependencyGraph(known)
            except DependencyError:  # a cycle: nobody is anybody's root until ``validate`` has refused it
                self._graph = DependencyGraph(dict.fromkeys(known, ()))
                known = {}
            self._reach = {}
            self._needed = frozenset(need for on in known.values() for need in on)
        return self._graph
