"""A composite is the weighted mean of what its members say, and only of those that say something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.monitoring.composite import TrackerSource, combine, order
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError
from modules.local.slo import LocalObjective


@pytest.mark.parametrize(
    ("parts", "sli", "events"),
    [
        ([(1, 90, 100), (1, 100, 100)], 0.95, 200),
        ([(3, 90, 100), (1, 100, 100)], 0.925, 200),
        ([(1, 0, 1), (1, 10**6, 10**6)], 0.5, 10**6 + 1),  # by weight, not by traffic
        ([(1, 90, 100), (9, 0, 0)], 0.9, 100),
    ],
)
def test_the_sli_is_the_weighted_mean_of_the_members_with_data(
    parts: list[tuple[float, float, float]], sli: float, events: float
) -> None:
    good, total = combine(parts)
    assert good / total == pytest.approx(sli)
    assert total == events


def test_without_data_in_any_member_there_is_none() -> None:
    assert combine([(1, 0, 0), (2, 0, 0)]) == (0, 0)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_the_mean_lies_between_the_worst_and_the_best_member(parts: list[tuple[float, int, int]]) -> None:
    counts = [(weight, good, good + bad) for weight, good, bad in parts]
    good, total = combine(counts)
    shares = [good / total for _, good, total in counts if total]
    if shares:
        assert min(shares) - 1e-9 <= good / total <= max(shares) + 1e-9
    else:
        assert total == 0


def test_composites_come_after_those_they_contain() -> None:
    members = {"all": ["shop", "api"], "shop": ["cart", "pay"], "pay": ["api"]}
    found = order(members, {"all", "shop", "pay", "cart", "api"})
    assert found.index("pay") < found.index("shop") < found.index("all")
    assert set(found) == {"all", "shop", "pay"}


def test_a_member_that_does_not_exist_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"all: its member 'ap' is no objective.*did you mean 'api'.*api, db"):
        order({"all": ["ap"]}, {"all", "api", "db"})


@pytest.mark.parametrize(
    ("members", "path"),
    [({"a": ["a"]}, "a -> a"), ({"a": ["b"], "b": ["c"], "c": ["a"]}, r"a -> b -> c -> a|b -> c -> a -> b|c -> a ->")],
)
def test_a_circle_is_shown_as_a_path(members: dict[str, list[str]], path: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"in a circle: ({path})"):
        order(members, set(members))


def test_a_plain_tracker_says_its_one_window_and_no_shorter_one() -> None:
    tracker = LocalObjective("api", objective=99, window_s=3600, clock=SystemClock())
    tracker.record(True, value=7)
    tracker.record(False)
    source = TrackerSource(tracker)
    assert source.read_all([300, 3600]) == [(0, 0), (1, 2)]
    assert (source.bad_events(3600), source.bad_events(300), source.value) == (1, 0, 7)
