"""One root for all errors. Each names its object, what was found, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SelfrightError(Exception):
    """The root of every error that Selfright raises on purpose."""


class ConfigurationError(SelfrightError):
    """A configuration or an argument cannot be used. The message names the key and what is allowed."""


class BackendUnavailableError(SelfrightError):
    """``backend=on`` was asked for, but the backend cannot be imported. The message holds the reason."""


class ReadOnlyModuleError(SelfrightError):
    """A quarantined (V3) module was asked to change something. The message names the V2 call."""


class UnknownServiceError(SelfrightError, KeyError):
    """No service of this name is registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"no service named {name!r}{did_you_mean(name, names)}; known: {', '.join(names) or 'none'}")

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0])


class DuplicateServiceError(SelfrightError, ValueError):
    """A service of this name is registered already."""


class DependencyError(ConfigurationError):
    """Dependencies name an unknown service or form a cycle; ``members`` are those of the cycle."""

    def __init__(self, message: str, members: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.members = members


class StateError(SelfrightError):
    """The state file cannot be opened, read or written. The message says what was set aside, if anything."""


class RepairError(SelfrightError):
    """A rung of a repair ladder failed. The message says what it did and what came back."""


class ProcessError(SelfrightError):
    """A supervised process could not be started or stopped."""


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest allowed name, or an empty string."""
    names = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(found.lower(), names, n=1, cutoff=0.6)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
