"""Lost time: the spans in which the program itself did not run."""

from hypothesis import given
from hypothesis import strategies as st

from backend.shared.self_healing.stalls import LEAST_S, Stalls


def test_who_wakes_in_time_or_a_little_late_has_lost_nothing():
    stalls = Stalls()
    for woken in (9.0, 10.0, 10.0 + LEAST_S / 2):
        stalls.sleeps(10.0)
        stalls.wakes(woken)
    assert stalls.lost(0, 20) == 0


def test_only_what_lies_within_the_span_that_is_asked_about_counts():
    stalls = Stalls()
    stalls.sleeps(10.0)
    stalls.wakes(16.0)
    assert stalls.lost(0, 20) == 6
    assert stalls.lost(14, 20) == 2
    assert stalls.lost(0, 12) == 2
    assert stalls.lost(16, 20) == 0


def test_a_pause_counts_before_the_sleeper_has_noticed_it():
    stalls = Stalls()
    stalls.sleeps(10.0)
    assert stalls.lost(0, 10.1) == 0
    assert stalls.lost(0, 13.0) == 3
    stalls.wakes(13.0)
    assert stalls.lost(0, 13.0) == 3


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30), st.floats(0, 100), st.floats(0, 100))
def test_never_more_is_lost_than_has_passed(naps, since, length):
    stalls, now = Stalls(), 0.0
    for meant, late in naps:
        stalls.sleeps(now + meant)
        now += meant + late
        stalls.wakes(now)
    assert 0 <= stalls.lost(since, since + length) <= length + 1e-9
