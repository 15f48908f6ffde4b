import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.self_healing.state import HealthState
from modules.contracts.health import HealthStatus, ProbeOutcome, Role, ServiceOptions

PASS, FAIL, ERROR = ProbeOutcome.PASS, ProbeOutcome.FAIL, ProbeOutcome.ERROR
OUTCOMES = st.sampled_from([PASS, FAIL, ERROR])


def state(now=0.0, has_startup=False, has_readiness=False, **options):
    return HealthState(
        ServiceOptions(interval_s=5.0, reprobe_s=0.25, **options),
        now,
        has_startup=has_startup,
        has_readiness=has_readiness,
    )


def observe(machine, *outcomes, role=Role.LIVENESS, now=0.0):
    for outcome in outcomes:
        machine.observe(role, outcome, now)
    return machine.status


def streak(outcomes, wanted):
    """Length of the newest run of ``wanted``, errors passed over."""
    count = 0
    for outcome in reversed(outcomes):
        if outcome is ERROR:
            continue
        if outcome is not wanted:
            break
        count += 1
    return count


def oracle(outcomes, rise, fall):
    """The status by definition: replay, and at each result look at the whole history since the last UNKNOWN."""
    status, since = HealthStatus.UNKNOWN, 0
    for end in range(1, len(outcomes) + 1):
        seen = outcomes[since:end]
        if outcomes[end - 1] is ERROR:
            errors = next((n for n, o in enumerate(reversed(outcomes[:end])) if o is not ERROR), end)
            if errors >= fall:
                status, since = HealthStatus.UNKNOWN, end
        elif streak(seen, PASS) >= rise:
            status = HealthStatus.HEALTHY
        elif streak(seen, FAIL) >= fall:
            status = HealthStatus.UNHEALTHY
    return status


@given(st.lists(OUTCOMES, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_the_status_follows_runs_of_results_and_nothing_else(outcomes, rise, fall):
    assert observe(state(rise=rise, fall=fall), *outcomes) is oracle(outcomes, rise, fall)


@given(st.lists(OUTCOMES, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_a_quick_re_probe_is_asked_for_exactly_while_one_more_result_of_its_kind_counts_towards_a_change(
    outcomes, rise, fall
):
    machine = state(rise=rise, fall=fall)
    observe(machine, *outcomes)
    failing = 0 < machine.failures < fall
    rising = machine.status is not HealthStatus.HEALTHY and 0 < machine.passes < rise
    assert machine.next_delay == (0.25 if failing or rising else None)


@given(st.lists(OUTCOMES, max_size=30), st.integers(1, 4))
def test_would_fall_foretells_exactly_the_result_that_makes_it_unhealthy(outcomes, fall):
    machine = state(fall=fall)
    for outcome in outcomes:
        was, foretold = machine.status, machine.would_fall(Role.LIVENESS, outcome, 0.0)
        machine.observe(Role.LIVENESS, outcome, 0.0)
        assert foretold is (machine.status is HealthStatus.UNHEALTHY and was is not HealthStatus.UNHEALTHY)


@given(st.lists(OUTCOMES.filter(lambda outcome: outcome is not PASS), max_size=30))
def test_no_failure_or_error_counts_while_the_startup_grace_holds(outcomes):
    machine = state(startup_grace_s=10.0, fall=2)
    assert observe(machine, *outcomes, now=9.9) is HealthStatus.STARTING
    assert (machine.failures, machine.errors) == (0, 0)
    assert observe(machine, FAIL, now=10.0) is HealthStatus.STARTING
    assert observe(machine, FAIL, now=10.25) is HealthStatus.UNHEALTHY


def test_the_first_pass_ends_the_grace():
    machine = state(startup_grace_s=10.0, fall=1)
    assert observe(machine, PASS, now=1.0) is HealthStatus.HEALTHY
    assert observe(machine, FAIL, now=2.0) is HealthStatus.UNHEALTHY


def test_a_starting_service_is_looked_at_quickly():
    assert state(startup_grace_s=10.0).next_delay == 0.25


def test_a_quick_re_probe_never_waits_longer_than_the_interval():
    machine = HealthState(ServiceOptions(interval_s=0.1, reprobe_s=0.25), 0.0)
    observe(machine, FAIL)
    assert machine.next_delay == 0.1


def test_errors_short_of_fall_change_nothing_and_do_not_break_a_run_of_failures():
    machine = state(fall=3)
    observe(machine, PASS, FAIL, FAIL)
    assert observe(machine, ERROR, ERROR) is HealthStatus.HEALTHY
    assert observe(machine, FAIL) is HealthStatus.UNHEALTHY


def test_errors_alone_make_a_healthy_service_unknown_and_are_no_reason_to_hurry():
    machine = state(fall=3)
    observe(machine, PASS)
    assert observe(machine, ERROR, ERROR, ERROR) is HealthStatus.UNKNOWN
    assert not machine.ready
    assert machine.next_delay is None
    assert observe(machine, PASS) is HealthStatus.HEALTHY


def test_a_startup_probe_gates_until_it_passes_and_its_pass_alone_is_no_health():
    machine = state(has_startup=True)
    assert machine.gated
    assert observe(machine, PASS, role=Role.STARTUP) is HealthStatus.STARTING
    assert not machine.gated
    assert observe(machine, PASS) is HealthStatus.HEALTHY


def test_a_startup_probe_that_never_passes_makes_it_unhealthy_after_fall_intervals_and_fall_failures():
    machine = state(has_startup=True, fall=3)  # interval 5: the grace is 15 s
    assert observe(machine, FAIL, FAIL, FAIL, role=Role.STARTUP, now=14.9) is HealthStatus.STARTING
    assert observe(machine, FAIL, FAIL, role=Role.STARTUP, now=15.0) is HealthStatus.STARTING
    assert observe(machine, FAIL, role=Role.STARTUP, now=15.5) is HealthStatus.UNHEALTHY
    assert machine.gated


def test_readiness_failures_degrade_and_never_make_unhealthy():
    machine = state(has_readiness=True, fall=2)
    assert observe(machine, PASS, role=Role.READINESS) is HealthStatus.HEALTHY
    assert observe(machine, FAIL, role=Role.READINESS) is HealthStatus.HEALTHY
    assert machine.next_delay == 0.25
    assert observe(machine, *[FAIL] * 9, role=Role.READINESS) is HealthStatus.DEGRADED
    assert not machine.ready
    assert machine.failures == 0
    assert observe(machine, PASS, role=Role.READINESS) is HealthStatus.HEALTHY
    assert machine.ready


def test_a_service_that_is_alive_again_is_degraded_until_it_is_ready():
    machine = state(has_readiness=True, fall=3)
    observe(machine, PASS, role=Role.READINESS)
    assert observe(machine, FAIL, FAIL, FAIL) is HealthStatus.UNHEALTHY
    assert observe(machine, FAIL, role=Role.READINESS) is HealthStatus.DEGRADED
    assert observe(machine, PASS, role=Role.READINESS) is HealthStatus.HEALTHY


def test_a_service_is_not_called_healthy_before_its_first_readiness_verdict():
    machine = state(has_readiness=True, startup_grace_s=5.0)
    assert observe(machine, FAIL, role=Role.READINESS) is HealthStatus.STARTING
    assert machine.next_delay == 0.25
    assert observe(machine, PASS, role=Role.READINESS) is HealthStatus.HEALTHY


@pytest.mark.parametrize(("grace", "expected"), [(0.0, HealthStatus.UNHEALTHY), (5.0, HealthStatus.STARTING)])
def test_a_restart_resets_the_counters_and_begins_the_grace_anew(grace, expected):
    machine = state(startup_grace_s=grace, fall=3)
    observe(machine, PASS, FAIL, FAIL, FAIL, now=100.0)
    assert machine.expect_restart(100.0) is expected
    assert machine.failures == 0
    assert observe(machine, FAIL, FAIL, now=104.0) is expected
    assert observe(machine, PASS, now=104.5) is HealthStatus.HEALTHY


def test_a_flapping_service_is_degraded_while_alive_and_still_unhealthy_when_it_is_down():
    machine = state(fall=1)
    observe(machine, PASS)
    machine.flapping = True
    assert machine.settle() is HealthStatus.DEGRADED
    assert machine.ready
    assert observe(machine, FAIL) is HealthStatus.UNHEALTHY
