"""One watched service: its probes by role, its options, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from backend.shared.self_healing.flapping import FlapDetector
from backend.shared.self_healing.probes.callable import CallableProbe, is_async
from backend.shared.self_healing.state import HealthState
from backend.shared.self_healing.timed import TimedProbe
from modules.contracts.errors import ConfigurationError
from modules.contracts.health import Check, HealthCheckResult, Probe, Role, ServiceHealth, ServiceOptions


@dataclass(slots=True, eq=False)
class Watched:
    """What a monitor knows of one service. Times are monotonic seconds but for ``since``."""

    name: str
    options: ServiceOptions
    probes: Mapping[Role, TimedProbe]
    state: HealthState
    flaps: FlapDetector
    since: float
    last: HealthCheckResult | None = None
    affected_by: tuple[str, ...] = ()
    paused: bool = False
    erring: bool = False
    excused: bool = False
    """Whether the newest check failed for this program's own pause."""
    check: asyncio.Task[HealthCheckResult] | None = None
    again: bool = False
    """Whether the check under way began too early to have seen what has happened since."""
    conclusion: asyncio.Task[None] | None = None
    looked_at: float = float("-inf")
    failing_since: float = float("inf")
    restarted_at: float = float("-inf")

    @property
    def reprobe_s(self) -> float:
        """Wait before a quick look; never longer than the interval."""
        return min(self.options.reprobe_s, self.options.interval_s)

    def health(self) -> ServiceHealth:
        """Everything that others may know."""
        return ServiceHealth(
            name=self.name,
            status=self.state.status,
            since=self.since,
            ready=self.state.ready,
            last=self.last,
            depends_on=self.options.depends_on,
            affected_by=self.affected_by,
            flapping=self.state.flapping,
            paused=self.paused,
            consecutive_passes=self.state.passes,
            consecutive_failures=self.state.failures,
        )


def watch(
    name: str, roles: Mapping[Role, Check | Probe | None], options: ServiceOptions, *, now: float, wall: float
) -> Watched:
    """Begin to watch a service. Raises ConfigurationError that names every wrong option."""
    _validate(name, options)
    probes = {
        role: TimedProbe(_as_probe(name, role, look), options.timeout_s)
        for role, look in roles.items()
        if look is not None
    }
    gates = {"has_startup": Role.STARTUP in probes, "has_readiness": Role.READINESS in probes}
    return Watched(
        name=name,
        options=options,
        probes=probes,
        state=HealthState(options, now, **gates),
        flaps=FlapDetector(options.flap_high, options.flap_low),
        since=wall,
    )


def _as_probe(name: str, role: Role, check: Check | Probe) -> Probe:
    if callable(getattr(check, "probe", None)) and callable(getattr(check, "close", None)):
        return cast("Probe", check)
    if is_async(check):
        return CallableProbe(cast("Check", check))
    kind = "a plain function" if callable(check) else f"an object of type {type(check).__name__}"
    raise ConfigurationError(
        f"service {name!r}: the {role.value} check is {kind}; give it an async function ('async def', or a partial"
        " of one) or a Probe"
    )


def _validate(name: str, options: ServiceOptions) -> None:
    wrong = [
        f"{key} is {getattr(options, key)!r}, must be above 0"
        for key in ("interval_s", "timeout_s", "reprobe_s")
        if not getattr(options, key) > 0
    ]
    wrong += [
        f"{key} is {getattr(options, key)!r}, must be 1 or more"
        for key in ("rise", "fall")
        if getattr(options, key) < 1
    ]
    if not options.startup_grace_s >= 0:
        wrong.append(f"startup_grace_s is {options.startup_grace_s!r}, must be 0 or more")
    if options.flap_high and not 0 <= options.flap_low < options.flap_high <= 1:
        found = f"flap_low is {options.flap_low!r} and flap_high {options.flap_high!r}"
        wrong.append(f"{found}, must be 0 <= flap_low < flap_high <= 1")
    if not name:
        wrong.append("its name is empty, must be at least one character")
    if wrong:
        raise ConfigurationError(f"service {name!r}: {'; '.join(wrong)}")
