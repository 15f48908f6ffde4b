from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modules.contracts.health import HealthStatus, ProbeOutcome, Role, ServiceOptions
from modules.local.verdict import Verdict

FAIL, PASS, ERROR = ProbeOutcome.FAIL, ProbeOutcome.PASS, ProbeOutcome.ERROR


def verdict_after(outcomes: list[ProbeOutcome], **options: object) -> Verdict:
    verdict = Verdict(ServiceOptions(**options), 0.0)
    for at, outcome in enumerate(outcomes):
        verdict.observe(Role.LIVENESS, outcome, float(at))
    return verdict


def test_fall_failures_in_a_row_make_it_unhealthy_and_one_less_do_not():
    assert verdict_after([PASS, FAIL, FAIL], fall=3).status is HealthStatus.HEALTHY
    assert verdict_after([PASS, FAIL, FAIL, FAIL], fall=3).status is HealthStatus.UNHEALTHY


def test_rise_passes_in_a_row_make_it_healthy_again_and_one_less_do_not():
    assert verdict_after([FAIL, PASS], fall=1, rise=2).status is HealthStatus.UNHEALTHY
    assert verdict_after([FAIL, PASS, PASS], fall=1, rise=2).status is HealthStatus.HEALTHY


def test_a_pass_between_failures_begins_the_count_anew():
    assert verdict_after([PASS, FAIL, FAIL, PASS, FAIL, FAIL], fall=3).status is HealthStatus.HEALTHY


def test_fall_errors_of_the_prober_make_it_unknown_never_unhealthy():
    assert verdict_after([PASS, ERROR, ERROR], fall=3).status is HealthStatus.HEALTHY
    assert verdict_after([PASS, *[ERROR] * 9], fall=3).status is HealthStatus.UNKNOWN


def test_an_error_between_failures_does_not_save_a_service():
    assert verdict_after([PASS, FAIL, ERROR, FAIL, FAIL], fall=3).status is HealthStatus.UNHEALTHY


def test_failures_in_the_startup_grace_keep_it_starting_and_count_for_nothing():
    verdict = Verdict(ServiceOptions(startup_grace_s=10, fall=1), 0.0)
    assert verdict.observe(Role.LIVENESS, FAIL, 9.9) is HealthStatus.STARTING
    assert verdict.failures == 0
    assert verdict.observe(Role.LIVENESS, FAIL, 10.0) is HealthStatus.UNHEALTHY


def test_the_first_pass_ends_the_grace():
    verdict = Verdict(ServiceOptions(startup_grace_s=10, fall=1), 0.0)
    verdict.observe(Role.LIVENESS, PASS, 1.0)
    assert verdict.observe(Role.LIVENESS, FAIL, 2.0) is HealthStatus.UNHEALTHY


def test_an_expected_restart_begins_the_grace_anew():
    verdict = Verdict(ServiceOptions(startup_grace_s=10, fall=1), 0.0)
    verdict.observe(Role.LIVENESS, FAIL, 20.0)
    verdict.begin(30.0)
    assert verdict.observe(Role.LIVENESS, FAIL, 39.0) is HealthStatus.STARTING


def test_a_service_that_is_alive_but_not_ready_is_degraded_not_unhealthy():
    verdict = Verdict(ServiceOptions(fall=2), 0.0)
    assert verdict.observe(Role.READINESS, PASS, 0.0) is HealthStatus.HEALTHY
    assert verdict.observe(Role.READINESS, FAIL, 1.0) is HealthStatus.HEALTHY
    assert verdict.pending
    assert verdict.observe(Role.READINESS, FAIL, 2.0) is HealthStatus.DEGRADED
    assert verdict.observe(Role.READINESS, PASS, 3.0) is HealthStatus.HEALTHY


def test_an_unhealthy_service_that_comes_back_not_ready_is_degraded_at_once_it_is_known():
    verdict = Verdict(ServiceOptions(fall=2), 0.0)
    for at in range(2):
        verdict.observe(Role.LIVENESS, FAIL, float(at))
    assert verdict.observe(Role.READINESS, FAIL, 2.0) is HealthStatus.UNHEALTHY
    assert verdict.observe(Role.READINESS, FAIL, 3.0) is HealthStatus.DEGRADED


@given(
    st.lists(st.sampled_from([PASS, FAIL, ERROR]), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_it_is_unhealthy_exactly_when_the_failures_say_so(outcomes, rise, fall):
    """Against a plain reading of the rule: a run of fall failures, until rise passes or fall errors."""
    expected, passes, failures, errors = HealthStatus.UNKNOWN, 0, 0, 0
    for outcome in outcomes:
        if outcome is ERROR:
            errors += 1
            if errors >= fall:
                expected, passes, failures = HealthStatus.UNKNOWN, 0, 0
        elif outcome is PASS:
            errors, failures, passes = 0, 0, passes + 1
            if passes >= rise or expected is HealthStatus.HEALTHY:
                expected = HealthStatus.HEALTHY
        else:
            errors, passes, failures = 0, 0, failures + 1
            if failures >= fall:
                expected = HealthStatus.UNHEALTHY
    assert verdict_after(outcomes, rise=rise, fall=fall).status is expected
