"""The caps over all services: slots, percentages rounded down, and the storm brake."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.self_healing.caps import Caps
from backend.shared.self_healing.settings import CapsSettings, StormSettings

CALM = StormSettings(repairs=1000)


def caps(services=10, **keys):
    return Caps(CapsSettings(**{"storm": CALM} | keys), lambda: services)


def test_so_many_rungs_run_at_once_and_no_more():
    slots = caps(max_concurrent=2)
    slots.begin("a", 0.0)
    slots.begin("b", 0.0)
    assert slots.admit("c", 0.0).rule == "max_concurrent"
    assert slots.admit("c", 0.0).retry_at is None
    slots.end("a")
    assert slots.admit("c", 0.0) is None


@pytest.mark.parametrize(("services", "percent", "allowed"), [(6, 40, 2), (10, 25, 2), (3, 1, 1), (4, 100, 4)])
def test_the_share_under_repair_is_rounded_down_but_never_below_one(services, percent, allowed):
    slots = caps(services, max_unhealthy=percent, max_concurrent=100)
    for n in range(allowed):
        assert slots.admit(f"s{n}", 0.0) is None
        slots.begin(f"s{n}", 0.0)
        slots.end(f"s{n}")
    assert slots.admit("one more", 0.0).rule == "max_unhealthy"


def test_a_service_under_repair_needs_no_second_slot_for_its_next_rung():
    slots = caps(2, max_unhealthy=50)
    slots.begin("a", 0.0)
    slots.end("a")
    assert slots.admit("a", 1.0) is None
    assert slots.admit("b", 1.0) is not None
    slots.release("a")
    assert slots.admit("b", 1.0) is None


def test_a_slot_is_not_given_back_while_its_rung_runs():
    slots = caps(2, max_unhealthy=50, max_concurrent=5)
    slots.begin("a", 0.0)
    slots.release("a")
    assert slots.admit("b", 0.0).rule == "max_unhealthy"


def test_a_storm_stops_everything_for_its_cool_down():
    slots = caps(storm=StormSettings(repairs=3, window_s=10, cooldown_s=60))
    for at in (0.0, 5.0, 10.0):
        slots.begin("a", at)
        slots.end("a")
    refusal = slots.admit("a", 69.9)
    assert refusal.rule == "storm"
    assert refusal.retry_at == 70.0
    assert slots.admit("a", 70.0) is None


def test_after_a_storm_the_count_begins_anew():
    slots = caps(storm=StormSettings(repairs=3, window_s=100, cooldown_s=5))
    for at in (0.0, 1.0, 2.0, 7.0, 8.0):
        assert slots.admit("a", at) is None
        slots.begin("a", at)
        slots.end("a")
    assert slots.admit("a", 9.0) is None


def test_runs_that_are_far_apart_are_no_storm():
    slots = caps(storm=StormSettings(repairs=3, window_s=10, cooldown_s=60))
    for n in range(100):
        assert slots.admit("a", n * 5.1) is None
        slots.begin("a", n * 5.1)
        slots.end("a")


names = st.sampled_from([f"s{n}" for n in range(8)])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.floats(1, 100),
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(["begin", "end", "release"]), names, st.floats(0, 5)), max_size=150),
)
def test_no_sequence_of_calls_exceeds_a_cap(concurrent, percent, storm, calls):
    keys = CapsSettings(
        max_concurrent=concurrent,
        max_unhealthy=percent,
        storm=StormSettings(repairs=storm, window_s=10, cooldown_s=20),
    )
    slots, now, begun = Caps(keys, lambda: 8), 0.0, []
    for call, name, delay in calls:
        now += delay
        if call == "begin" and name not in slots.running and slots.admit(name, now) is None:
            slots.begin(name, now)
            begun.append(now)
        elif call == "end":
            slots.end(name)
        elif call == "release":
            slots.release(name)
        assert len(slots.running) <= concurrent
        assert len(slots.under_repair) <= keys.allowed_of(8)
        assert slots.running <= slots.under_repair
        assert sum(1 for at in begun if at >= now - 10) <= storm
