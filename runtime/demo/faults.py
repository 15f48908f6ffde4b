"""The fault switch: what a demo service does wrong until it is told otherwise or restarted.

The kinds are those that probes tell apart: an answer too late, an error, no answer at all, no process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.contracts.errors import SelfrightError, did_you_mean

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "latency": ("seconds", "ms"),
    "error": ("status",),
    "hang": (),
    "crash": (),
}
"""Each kind and its parameters."""


class FaultError(SelfrightError):
    """A fault that cannot be switched on. The message names what is allowed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: ``seconds`` belongs to latency, ``status`` to error."""

    kind: str
    seconds: float = 0.0
    status: int = 503

    def as_dict(self) -> dict[str, Any]:
        """Return the kind with its own parameter, as JSON types."""
        own: dict[str, dict[str, Any]] = {"latency": {"seconds": self.seconds}, "error": {"status": self.status}}
        return {"kind": self.kind, **own.get(self.kind, {})}


def parse(given: Mapping[str, Any], latency_s: float = 2.0) -> Fault:
    """Read a fault from a query or a JSON object. Raises FaultError.

    latency takes ``seconds`` (default ``latency_s``) or ``ms``, 0 to one hour; error takes ``status`` (default 503).
    """
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in ALLOWED:
        found = (
            "no kind was given" if kind is None else f"{kind!r} is no kind of fault{did_you_mean(str(kind), ALLOWED)}"
        )
        raise FaultError(f"{found}; allowed: {', '.join(ALLOWED)}")
    for name in given:
        if name != "kind" and name not in ALLOWED[kind]:
            raise FaultError(f"{kind} takes no {name!r}; allowed: {', '.join(ALLOWED[kind]) or 'nothing but kind'}")
    if kind == "latency":
        if "seconds" in given and "ms" in given:
            raise FaultError("both seconds and ms are given; keep one of them")
        seconds = (
            _number("ms", given["ms"], 3_600_000) / 1000
            if "ms" in given
            else _number("seconds", given.get("seconds", latency_s), 3600)
        )
        return Fault(kind, seconds=seconds)
    if kind == "error":
        status = _number("status", given.get("status", 503), 599)
        if status < 500 or status != int(status):
            raise FaultError(f"status must be a whole number from 500 to 599, found {given['status']!r}")
        return Fault(kind, status=int(status))
    return Fault(kind)


def _number(name: str, found: Any, most: float) -> float:
    try:
        number = math.nan if isinstance(found, bool) else float(found)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        raise FaultError(f"{name} must be a number from 0 to {most:g}, found {found!r}")
    return number
