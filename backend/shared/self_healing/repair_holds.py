"""Which services are in the hands of a rung that runs: the one that it repairs, and all that it restarts with it.

No two rungs work on one service at the same time, and what a rung stops is not repaired for being stopped. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable


class Holds:
    """Who holds whom. A holder is the service whose rung runs."""

    def __init__(self) -> None:
        self._holder: dict[str, str] = {}

    def holder_of(self, names: Iterable[str]) -> str | None:
        """The service whose rung holds any of ``names``, if one does."""
        return next((self._holder[name] for name in names if name in self._holder), None)

    def holds_other(self, name: str) -> bool:
        """Whether ``name`` is held by the rung of another service."""
        return self._holder.get(name, name) != name

    def hold(self, holder: str, names: Iterable[str]) -> None:
        """``holder`` takes ``names``, of which nobody holds one."""
        self._holder |= dict.fromkeys(names, holder)

    def let_go(self, holder: str) -> None:
        """The rung of ``holder`` has ended."""
        self._holder = {name: by for name, by in self._holder.items() if by != holder}
