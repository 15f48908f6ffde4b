import itertools

from hypothesis import given
from hypothesis import strategies as st

from backend.shared.self_healing.flapping import FlapDetector


def nagios_share(results):
    """The definition, worked out anew from the whole history."""
    last = ([results[0]] * 21 + results)[-21:] if results else [True] * 21
    changes = [a != b for a, b in itertools.pairwise(last)]
    weights = [0.80 + 0.02 * i for i in range(20)]
    return sum(w for w, c in zip(weights, changes, strict=True) if c) / sum(weights)


def run(results, high=0.5, low=0.25):
    detector = FlapDetector(high, low)
    for result in results:
        detector.observe(result)
    return detector


@given(st.lists(st.booleans(), max_size=80))
def test_the_share_equals_the_weighted_changes_of_the_last_21_results(results):
    assert abs(run(results).share - nagios_share(results)) < 1e-12


@given(st.lists(st.booleans(), max_size=120))
def test_flapping_begins_at_the_high_threshold_and_ends_only_at_the_low_one(results):
    detector, flapping = FlapDetector(0.5, 0.25), False
    for end, result in enumerate(results, 1):
        changed = detector.observe(result)
        share = nagios_share(results[:end])
        expected = share > 0.25 + 1e-12 if flapping else share >= 0.5 - 1e-12
        assert detector.flapping is expected
        assert changed is (expected is not flapping)
        flapping = expected


def test_a_service_that_alternates_all_the_time_has_a_share_of_one():
    assert run([True, False] * 20).share == 1.0


def test_a_single_outage_is_no_flapping():
    assert not run([True] * 10 + [False] * 10 + [True] * 10).flapping


def test_a_new_change_weighs_more_than_an_old_one():
    assert run([True] * 20 + [False]).share > run([True] + [False] * 20).share > 0


def test_with_a_low_threshold_of_zero_flapping_still_ends():
    detector = run([True, False] * 20, low=0.0)
    assert detector.flapping
    for _ in range(21):
        detector.observe(True)
    assert not detector.flapping
