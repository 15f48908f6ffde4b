"""What a monitor believes of one service: thresholds between single results and a verdict.

Rise and fall as in HAProxy and Kubernetes: ``rise`` passes or ``fall`` failures in a row change the verdict. A
startup gate holds back failures until the first pass or the end of the grace; a probe's own error is no
verdict (Kubernetes' probe result Unknown). Pure: time is handed in as monotonic seconds.
"""

from __future__ import annotations

from modules.contracts.health import HealthStatus, ProbeOutcome, Role, ServiceOptions


class HealthState:
    """The state machine of one service.

    Liveness decides between HEALTHY and UNHEALTHY. A service that is alive is DEGRADED when ``fall`` readiness
    probes in a row failed, or while it flaps. With a startup probe the grace is at least ``fall`` intervals;
    once it is over, failures of the startup probe count like those of liveness. Errors count apart: fewer
    than ``fall`` in a row change nothing, then the status is UNKNOWN until ``rise`` passes or ``fall`` failures.
    """

    def __init__(
        self, options: ServiceOptions, now: float, *, has_startup: bool = False, has_readiness: bool = False
    ) -> None:
        self._rise = options.rise
        self._fall = options.fall
        self._interval = options.interval_s
        self._reprobe = min(options.reprobe_s, options.interval_s)
        self._grace = max(options.startup_grace_s, options.fall * options.interval_s if has_startup else 0.0)
        self._has_startup = has_startup
        self._has_readiness = has_readiness
        self._alive: bool | None = None
        self._ready: bool | None = None
        self._ready_passes = 0
        self._ready_failures = 0
        self.status = HealthStatus.UNKNOWN
        self.passes = 0
        """Passes in a row."""
        self.failures = 0
        """Failures in a row; those that the startup gate held back are not among them."""
        self.errors = 0
        """Errors of the prober in a row."""
        self.flapping = False
        self._gate_until: float | None = None
        self._close_gate(now)

    @property
    def gated(self) -> bool:
        """Whether the startup probe, if there is one, has yet to pass."""
        return self._has_startup and self._gate_until is not None

    @property
    def ready(self) -> bool:
        """Whether it is alive, and its readiness probe, if there is one, says that it may be used."""
        return self._alive is True and (self._ready is True or not self._has_readiness)

    @property
    def pending(self) -> bool:
        """Whether results point away from the verdict but are too few to change it, so that a quick look pays."""
        if self.status is HealthStatus.STARTING or 0 < self.failures < self._fall:
            return True
        if self._alive is not True:
            return 0 < self.passes < self._rise
        if self._ready is True or not self._has_readiness:
            return 0 < self._ready_failures < self._fall
        return 0 < self._ready_passes < self._rise or (self._ready is None and self._ready_failures > 0)

    @property
    def next_delay(self) -> float | None:
        """Seconds until a quick re-probe, or None when the next scheduled check is soon enough."""
        return self._reprobe if self.pending else None

    def would_fall(self, role: Role, outcome: ProbeOutcome, now: float) -> bool:
        """Whether this result would be the one that makes the service UNHEALTHY."""
        return (
            outcome is ProbeOutcome.FAIL
            and role is not Role.READINESS
            and self.status is not HealthStatus.UNHEALTHY
            and self.failures + 1 >= self._fall
            and not self._holds(now)
        )

    def observe(self, role: Role, outcome: ProbeOutcome, now: float) -> HealthStatus:
        """Take one result and return the status after it.

        A readiness result implies that liveness has passed in the same check; the pass of a startup probe
        opens the gate and says nothing more.
        """
        if outcome is ProbeOutcome.ERROR:
            self._observe_error(now)
        else:
            self.errors = 0
            if role is Role.STARTUP and outcome is ProbeOutcome.PASS:
                self._gate_until = None
            elif role is Role.READINESS:
                self._observe_liveness(True, now)
                self._observe_readiness(outcome is ProbeOutcome.PASS)
            else:
                self._observe_liveness(outcome is ProbeOutcome.PASS, now)
        return self.settle()

    def settle(self) -> HealthStatus:
        """Work the status out anew, as after a change of ``flapping``, and return it."""
        if self._alive is True:
            if self._has_readiness and self._ready is not True:
                # Before its first readiness verdict a service keeps the status that it came with.
                if self._ready is False:
                    self.status = HealthStatus.DEGRADED
            else:
                self.status = HealthStatus.DEGRADED if self.flapping else HealthStatus.HEALTHY
        elif self._alive is False:
            self.status = HealthStatus.UNHEALTHY
        return self.status

    def expect_restart(self, now: float) -> HealthStatus:
        """Count from zero and close the startup gate anew; without a gate the verdict stands until results come."""
        self.reconsider()
        self._close_gate(now)
        return self.status

    def reconsider(self) -> None:
        """Count from zero, so that the verdict is confirmed or changed by new results alone."""
        self.passes = self.failures = self.errors = 0
        self._ready_passes = self._ready_failures = 0

    def _close_gate(self, now: float) -> None:
        self._gate_until = now + self._grace if self._grace > 0 else None
        if self._gate_until is not None:
            self._alive = self._ready = None
            self.status = HealthStatus.STARTING

    def _holds(self, now: float) -> bool:
        return self._gate_until is not None and now < self._gate_until

    def _observe_error(self, now: float) -> None:
        if self._holds(now):
            return
        self.errors += 1
        if self.errors == self._fall:
            errors = self.errors
            self.reconsider()
            self.errors = errors
            self._alive = self._ready = None
            self.status = HealthStatus.UNKNOWN

    def _observe_liveness(self, passed: bool, now: float) -> None:
        if passed:
            self._gate_until = None
            self.failures = 0
            self.passes += 1
            if self.passes >= self._rise:
                self._alive = True
        elif not self._holds(now):
            self.passes = 0
            self.failures += 1
            if self.failures >= self._fall:
                self._alive = self._ready = False

    def _observe_readiness(self, passed: bool) -> None:
        if passed:
            self._ready_failures = 0
            self._ready_passes += 1
            if self._ready_passes >= self._rise:
                self._ready = True
        else:
            self._ready_passes = 0
            self._ready_failures += 1
            if self._ready_failures >= self._fall:
                self._ready = False
