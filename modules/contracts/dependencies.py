"""Services that need one another: a directed acyclic graph, and the questions that healing asks of it.

Pure and small, so that the runtime (start order), the monitors (who is affected) and the repair ladder
(what else restarts) all ask the same object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from modules.contracts.errors import DependencyError, did_you_mean
from modules.contracts.health import RestartScope


class DependencyGraph:
    """``depends_on`` maps each service to those that it needs; every name must be a key.

    Raises DependencyError that names every unknown service, or one cycle as a path.
    """

    def __init__(self, depends_on: Mapping[str, Iterable[str]]) -> None:
        self._needs = {name: tuple(dict.fromkeys(needs)) for name, needs in depends_on.items()}
        unknown = [
            f"{name} depends on {need!r}, which is no service{did_you_mean(need, self._needs)}"
            for name, needs in self._needs.items()
            for need in needs
            if need not in self._needs
        ]
        if unknown:
            raise DependencyError(f"{'; '.join(unknown)}; services: {', '.join(sorted(self._needs)) or 'none'}")
        try:
            self._order = tuple(TopologicalSorter(self._needs).static_order())
        except CycleError as error:
            path = list(reversed(error.args[1]))
            raise DependencyError(
                f"services depend on each other in a circle: {' -> '.join(path)}; remove one of these depends_on",
                members=tuple(dict.fromkeys(path)),
            ) from None
        self._rank = {name: rank for rank, name in enumerate(self._order)}
        self._needed_by: dict[str, list[str]] = {name: [] for name in self._needs}
        for name, needs in self._needs.items():
            for need in needs:
                self._needed_by[need].append(name)

    @property
    def order(self) -> tuple[str, ...]:
        """All services, each after those it depends on."""
        return self._order

    def dependencies(self, name: str) -> tuple[str, ...]:
        """All that ``name`` needs, directly or not, roots first."""
        return self._reachable(name, self._needs)

    def dependents(self, name: str) -> tuple[str, ...]:
        """All that need ``name``, directly or not, nearest to the root first."""
        return self._reachable(name, self._needed_by)

    def failed_roots(self, name: str, failed: Collection[str]) -> tuple[str, ...]:
        """The failed services that ``name`` needs, without those that fail for another's fault alone, roots first."""
        broken = [need for need in self.dependencies(name) if need in failed]
        return tuple(need for need in broken if not any(deeper in failed for deeper in self.dependencies(need)))

    def restart_group(self, name: str, scope: RestartScope) -> tuple[str, ...]:
        """What restarts with ``name``, in start order: itself, it and its dependents, or its connected group."""
        if scope == "one":
            return (name,)
        members = {name, *self.dependents(name)}
        if scope == "all":
            frontier = {name}
            members = set()
            while frontier:
                members |= frontier
                near = {other for member in frontier for other in (*self._needs[member], *self._needed_by[member])}
                frontier = near - members
        return tuple(other for other in self._order if other in members)

    def _reachable(self, name: str, edges: Mapping[str, Collection[str]]) -> tuple[str, ...]:
        found: set[str] = set()
        frontier = list(edges[name])
        while frontier:
            other = frontier.pop()
            if other not in found:
                found.add(other)
                frontier.extend(edges[other])
        return tuple(sorted(found, key=self._rank.__getitem__))
