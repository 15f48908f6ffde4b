"""What an alert manager promises to those who look at it: alerts with their states, and silences.

The states and the words are those of Prometheus and its Alertmanager.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modules.contracts.component import Component
from modules.contracts.errors import SelfrightError


class AlertState(StrEnum):
    """pending: it may come to that, nobody is told; firing: people should know; resolved: it is over."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStatus:
    """An alert as it stands. Times in unix seconds.

    ``since`` is when it took its state. ``told`` are the targets that took the news of this state, ``failed``
    those that did not after every try. ``silenced_by`` are ids of silences, ``inhibited_by`` keys of alerts: while
    either holds one, nobody is told.
    """

    key: str
    state: AlertState
    labels: Mapping[str, str]
    fingerprint: str
    summary: str
    since: float
    starts_at: float
    ends_at: float | None = None
    incident: str | None = None
    targets: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A time, unix seconds, in which nobody is told of alerts whose labels match every pattern.

    ``configured``: written in the configuration, which is then the only place where it can be ended.
    """

    id: str
    matchers: Mapping[str, str]
    starts_at: float
    ends_at: float
    comment: str
    configured: bool = False


class UnknownSilenceError(SelfrightError, KeyError):
    """No silence has this id, or it is over."""

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0])


class AlertManager(Component, Protocol):
    """Decides whom to tell of what, and tells them."""

    def alerts(self) -> Sequence[AlertStatus]:
        """Return what is pending or fires, oldest first, then what ended last, newest first."""
        ...

    def silences(self) -> Sequence[Silence]:
        """Return the silences that are in force or still to come, by their beginning."""
        ...

    def silence(self, matchers: Mapping[str, str], *, starts_at: float, ends_at: float, comment: str) -> Silence:
        """Silence alerts for a time, also across restarts.

        Raises ConfigurationError for a time that is empty or over, StateError when it cannot be kept.
        """
        ...

    def end_silence(self, silence: str) -> None:
        """End a silence now. Raises UnknownSilenceError, and ConfigurationError for a configured one."""
        ...
