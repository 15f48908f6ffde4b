"""Times in which nobody is told of some alerts: from the configuration, and by hand, kept across restarts.

A silence ends by itself. It holds back messages, never states: what fires is still known, shown and counted.
Its times are of the wall clock, which people write and which may jump, so nobody waits long for one of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from backend.shared.monitoring.alert_routes import matches
from backend.shared.monitoring.alert_settings import SilenceSettings
from modules.contracts.alerts import Silence, UnknownSilenceError
from modules.contracts.clock import Clock
from modules.contracts.errors import ConfigurationError, did_you_mean

SILENCES_MAX = 1000
"""Silences by hand at once: one that never ends its loop must not fill the state file."""
LOOK_S = 60.0
"""The longest wait for a beginning or an end: so late at most is a jump of the wall clock noticed."""


class Silences:
    """The silences in force and to come. ``rng`` makes their ids."""

    def __init__(self, configured: Sequence[SilenceSettings], *, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._known = {
            silence.id: silence
            for number, one in enumerate(configured, start=1)
            for silence in [_configured(f"configuration-{number}", one)]
        }

    def listed(self) -> tuple[Silence, ...]:
        """Return those that are in force or to come, by their beginning."""
        now = self._clock.time()
        return tuple(
            sorted((one for one in self._known.values() if now < one.ends_at), key=lambda one: (one.starts_at, one.id))
        )

    def holding(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return the ids of those that hold back an alert with these labels now."""
        now = self._clock.time()
        return tuple(
            one.id
            for one in self._known.values()
            if one.starts_at <= now < one.ends_at and matches(labels, one.matchers)
        )

    def make(self, matchers: Mapping[str, str], *, starts_at: float, ends_at: float, comment: str) -> Silence:
        """Return a new silence, which is not yet kept. Raises ConfigurationError."""
        now = self._clock.time()
        if not max(starts_at, now) < ends_at < float("inf"):
            raise ConfigurationError(
                f"the silence would end at {_shown(ends_at)}, and it must be after its start ({_shown(starts_at)})"
                f" and after now ({_shown(now)}); give a later end"
            )
        if not matchers:
            raise ConfigurationError("the silence matches no label; give at least one, such as service or severity")
        if sum(not one.configured for one in self._known.values()) >= SILENCES_MAX:
            raise ConfigurationError(f"there are {SILENCES_MAX} silences already; end some, or match more with one")
        name = None
        while name is None or name in self._known:  # a seeded generator repeats itself after a restart
            name = f"{self._rng.getrandbits(48):012x}"
        return Silence(id=name, matchers=dict(matchers), starts_at=starts_at, ends_at=ends_at, comment=comment)

    def keep(self, silence: Silence) -> None:
        self._known[silence.id] = silence

    def find(self, silence: str) -> Silence:
        """Return one that was made by hand. Raises UnknownSilenceError, ConfigurationError for a configured one."""
        found = next((one for one in self.listed() if one.id == silence), None)
        if found is None:
            names = [one.id for one in self.listed()]
            raise UnknownSilenceError(
                f"no silence has the id {silence!r}{did_you_mean(silence, names)};"
                f" there are: {', '.join(names) or 'none'}"
            )
        if found.configured:
            raise ConfigurationError(
                f"silence {silence!r} is written in the configuration; remove it there, under alerts.silences"
            )
        return found

    def forget(self, silence: str) -> None:
        del self._known[silence]

    def take_expired(self) -> list[Silence]:
        """Remove and return those that are over."""
        now = self._clock.time()
        over = [one for one in self._known.values() if one.ends_at <= now]
        for one in over:
            del self._known[one.id]
        return over

    def wait_s(self) -> float | None:
        """How long to wait until one may begin or end, in seconds, or None."""
        now = self._clock.time()
        times = [at for one in self._known.values() for at in (one.starts_at, one.ends_at) if at > now]
        return min(LOOK_S, min(times) - now) if times else None


def document(silence: Silence) -> dict[str, Any]:
    """Return a silence as JSON types."""
    return {key: value for key, value in asdict(silence).items() if key not in ("id", "configured")}


def from_document(silence: str, kept: Mapping[str, Any]) -> Silence:
    """Take back a silence of an earlier run. Raises KeyError, TypeError or ValueError when the document is none."""
    return Silence(
        id=silence,
        matchers={str(name): str(pattern) for name, pattern in kept["matchers"].items()},
        starts_at=kept["starts_at"] + 0.0,
        ends_at=kept["ends_at"] + 0.0,
        comment=str(kept["comment"]),
    )


def _configured(silence: str, settings: SilenceSettings) -> Silence:
    return Silence(
        id=silence,
        matchers=dict(settings.matchers.patterns),
        starts_at=settings.start.timestamp(),
        ends_at=settings.end.timestamp(),
        comment=settings.comment,
        configured=True,
    )


def _shown(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # what is no date is shown as the number that it is
        return f"{at:g}"
