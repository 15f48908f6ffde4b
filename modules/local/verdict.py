"""Thresholds between single results and what a monitor believes: the pure core of the local health monitor.

Rise and fall as in Kubernetes, without flap detection. Time is handed in as monotonic seconds.
"""

from __future__ import annotations

from modules.contracts.health import HealthStatus, ProbeOutcome, Role, ServiceOptions

_ALIVE = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)


class Verdict:
    """What is believed of one service.

    Failures are held back (STARTING) until the first pass or the end of the grace, which with a startup probe
    is at least ``fall`` intervals. ``fall`` errors of the prober in a row make it UNKNOWN, fewer change nothing.
    """

    def __init__(self, options: ServiceOptions, now: float, *, has_startup: bool = False) -> None:
        self._rise = options.rise
        self._fall = options.fall
        self._has_startup = has_startup
        self._grace = max(options.startup_grace_s, options.fall * options.interval_s if has_startup else 0.0)
        self.status = HealthStatus.UNKNOWN
        self.begin(now)

    def begin(self, now: float) -> None:
        """Count from zero and hold failures back anew, as at registration and after an ordered restart."""
        self.passes = self.failures = self.errors = 0
        self._readies = self._unreadies = 0
        self._held_until = now + self._grace if self._grace > 0 else None
        if self._held_until is not None:
            self.status = HealthStatus.STARTING

    @property
    def asks_startup(self) -> bool:
        """Whether the startup probe has yet to pass."""
        return self._has_startup and self._held_until is not None

    @property
    def ready(self) -> bool:
        return self.status is HealthStatus.HEALTHY

    @property
    def pending(self) -> bool:
        """Whether a quick re-probe pays: results point away from the verdict, but are too few to change it."""
        return (
            self.status is HealthStatus.STARTING
            or 0 < self.failures < self._fall
            or 0 < self._unreadies < self._fall
            or (self.status not in _ALIVE and 0 < self.passes < self._rise)
        )

    def would_fall(self, role: Role, outcome: ProbeOutcome, now: float) -> bool:
        """Whether this result would make the service UNHEALTHY that was not."""
        return (
            outcome is ProbeOutcome.FAIL
            and role is not Role.READINESS
            and self.status is not HealthStatus.UNHEALTHY
            and self.failures + 1 >= self._fall
            and not self._holds(now)
        )

    def observe(self, role: Role, outcome: ProbeOutcome, now: float) -> HealthStatus:
        """Take one result and return the status after it. A readiness result implies that liveness passed."""
        if outcome is ProbeOutcome.ERROR:
            self._err(now)
        elif role is Role.STARTUP and outcome is ProbeOutcome.PASS:
            self._held_until = None
        elif role is Role.READINESS:
            self._pass(ready=outcome is ProbeOutcome.PASS)
        elif outcome is ProbeOutcome.PASS:
            self._pass(ready=True)
        else:
            self._fail(now)
        return self.status

    def _holds(self, now: float) -> bool:
        return self._held_until is not None and now < self._held_until

    def _err(self, now: float) -> None:
        if self._holds(now):
            return
        self.errors += 1
        if self.errors >= self._fall:
            self.passes = self.failures = self._readies = self._unreadies = 0
            self.status = HealthStatus.UNKNOWN

    def _pass(self, *, ready: bool) -> None:
        self._held_until = None
        self.errors = self.failures = 0
        self.passes += 1
        self._readies = self._readies + 1 if ready else 0
        self._unreadies = 0 if ready else self._unreadies + 1
        if self.passes < self._rise and self.status not in _ALIVE:
            return
        if self._unreadies >= self._fall:
            self.status = HealthStatus.DEGRADED
        elif self._readies >= self._rise:
            self.status = HealthStatus.HEALTHY

    def _fail(self, now: float) -> None:
        self.errors = 0
        if self._holds(now):
            return
        self.passes = 0
        self.failures += 1
        if self.failures >= self._fall:
            self.status = HealthStatus.UNHEALTHY
