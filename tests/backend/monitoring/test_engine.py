"""The engine counts what its objectives ask for, says how they stand, and tells what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.engine import SLOEngine
from backend.shared.monitoring.objectives import Objective
from backend.shared.monitoring.samples import SampleKeeper
from backend.shared.monitoring.settings import AlertingSettings, BurnAlertSettings, ObjectiveSettings
from backend.shared.state.sqlite import SqliteStore
from modules.contracts.clock import LoopClock
from modules.contracts.component import ComponentState
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import ComponentFailed, EventBus, SLOAlertChanged, SLOStatusChanged
from modules.contracts.health import HealthCheckResult, HealthStatus, ProbeOutcome
from modules.contracts.slo import SLOStatus, UnknownObjectiveError
from modules.local.slo import LocalObjective
from runtime.simulation.loop import virtual_time

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NewClock = Callable[..., Any]
LATENCY = {"kind": "threshold", "metric": "latency", "threshold": 0.5}
RATIO = {"kind": "ratio", "total": "requests", "bad": "errors"}


def promise(indicator: dict[str, Any], objective: float = 99.9, **more: Any) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate({"indicator": indicator, "objective": objective, **more}, strict=False)


def check(service: str = "api", healthy: bool = True, latency_ms: float = 10, **more: Any) -> HealthCheckResult:
    outcome = ProbeOutcome.PASS if healthy else ProbeOutcome.FAIL
    status = HealthStatus.HEALTHY if healthy else HealthStatus.UNHEALTHY
    found = {"outcome": outcome, "status": status, "detail": "", "checked_at": 0.0, **more}
    return HealthCheckResult(service=service, healthy=healthy, latency_ms=latency_ms, **found)


class Rig:
    def __init__(self, clock: Any, **more: Any) -> None:
        self.clock = clock
        self.events = EventBus(clock, history=10_000)
        self.maintenance: set[str] = set()
        more.setdefault("alerting", AlertingSettings(resolve_s=0))
        self.engine = SLOEngine(
            clock=clock, events=self.events, in_maintenance=lambda name: name in self.maintenance, **more
        )

    def counts(self, name: str) -> tuple[float, float]:
        first = self.engine.report(name).windows[0]
        return first.good, first.total

    def heard(self, kind: type) -> list[Any]:
        return [event for event in self.events.recent() if isinstance(event, kind)]


@pytest.fixture
def rig(hand_clock: NewClock) -> Rig:
    return Rig(hand_clock())


# --- what is counted ---


@pytest.mark.parametrize(("comparison", "good"), [("<=", {0.4, 0.5}), ("<", {0.4}), (">=", {0.5, 0.6}), (">", {0.6})])
def test_a_sample_is_good_when_it_compares_so_with_the_threshold(rig: Rig, comparison: str, good: set[float]) -> None:
    rig.engine.define("fast", promise({**LATENCY, "comparison": comparison}))
    for value in (0.4, 0.5, 0.6):
        before = rig.counts("fast")
        rig.engine.observe_metric("latency", value, {"service": "any"})
        assert rig.counts("fast") == (before[0] + (value in good), before[1] + 1)
    assert rig.engine.report("fast").value == 0.6


@pytest.mark.parametrize(("part", "added"), [("good", 95), ("bad", 5)])
@pytest.mark.parametrize("total_first", [True, False])
def test_a_ratio_counts_what_is_added_to_its_counters(rig: Rig, part: str, added: float, total_first: bool) -> None:
    rig.engine.define("ok", promise({"kind": "ratio", "total": "requests", part: "part"}))
    steps = [("requests", 60), ("part", added - 1.5), ("part", 1.5), ("requests", 40)]
    for metric, value in steps if total_first else steps[::-1]:
        rig.engine.observe_metric(metric, value)
        good, total = rig.counts("ok")
        assert 0 <= good <= total  # also while one counter runs ahead of the other
    assert rig.counts("ok") == (95, 100)


@pytest.mark.parametrize(("of", "good"), [("success", 1.75), ("failure", 1.25)])
def test_ratios_that_come_as_samples_weigh_the_same(rig: Rig, of: str, good: float) -> None:
    rig.engine.define("up", promise({"kind": "raw_ratio", "metric": "availability", "of": of}))
    for value in (1, 0.5, 0.25):
        rig.engine.observe_metric("availability", value)
    assert rig.counts("up") == (good, 3)


@pytest.mark.parametrize(
    ("indicator", "metric", "refused"),
    [
        (LATENCY, "latency", ["nan", "inf", "-inf"]),
        (RATIO, "requests", ["nan", "inf", "-1", "1e300"]),
        (RATIO, "errors", ["nan", "-inf", "-0.5"]),
        ({"kind": "raw_ratio", "metric": "up"}, "up", ["nan", "inf", "-0.1", "1.1"]),
    ],
)
def test_what_cannot_be_counted_is_ignored_and_said(
    rig: Rig, caplog: pytest.LogCaptureFixture, indicator: dict[str, Any], metric: str, refused: list[str]
) -> None:
    rig.engine.define("it", promise(indicator))
    for value in refused:
        rig.engine.observe_metric(metric, float(value))
    assert rig.counts("it") == (0, 0)
    assert f"{len(refused)} samples of {metric} ignored" in rig.engine.status.detail
    assert len(caplog.records) == 1
    rig.engine.observe_metric(metric, 0.5)
    assert rig.counts("it")[1] == (0 if metric == "errors" else 0.5 if metric == "requests" else 1)


def test_checks_count_as_the_monitor_with_objectives_counts_them(rig: Rig) -> None:
    rig.engine.watch_service("api", latency_ms=500, availability=99, window_days=30)
    observe = rig.engine.observe_check
    observe(check(healthy=False, status=HealthStatus.STARTING))  # not up yet
    assert rig.counts("api") == (0, 0)
    observe(check())
    observe(check(latency_ms=500))
    observe(check(latency_ms=501))
    observe(check(healthy=False))
    observe(check(healthy=False, status=HealthStatus.STARTING))  # was up before
    observe(check(healthy=False, outcome=ProbeOutcome.ERROR, status=HealthStatus.UNKNOWN))
    observe(check("other", healthy=False))
    rig.maintenance.add("api")
    observe(check(healthy=False))
    assert rig.counts("api") == (2, 5)
    report = rig.engine.report("api")
    assert (report.service, report.value, report.windows[0].name) == ("api", 10, "30d")


def test_an_objective_on_checks_without_a_latency_takes_the_slow_ones(rig: Rig) -> None:
    rig.engine.define("alive", promise({"kind": "health", "service": "api"}))
    rig.engine.observe_check(check(latency_ms=90_000))
    assert rig.counts("alive") == (1, 1)
    assert rig.engine.report("alive").service == "api"


def test_in_maintenance_nothing_is_counted(rig: Rig) -> None:
    rig.engine.define("fast", promise(LATENCY, service="api"))
    rig.engine.define("free", promise(LATENCY))
    rig.maintenance.add("api")
    rig.engine.observe_metric("latency", 9)
    assert (rig.counts("fast"), rig.counts("free")) == ((0, 0), (0, 1))
    rig.maintenance = {"free"}  # one without a service is asked for by its own name
    rig.engine.observe_metric("latency", 9)
    assert (rig.counts("fast"), rig.counts("free")) == ((0, 1), (0, 1))


def test_a_tracker_of_another_module_is_read_and_never_written(rig: Rig) -> None:
    theirs = Objective("api", objective=99, window_s=30 * DAY, clock=rig.clock)
    rig.engine.watch_service("api", latency_ms=500, availability=99, window_days=30, tracker=theirs)
    theirs.record(True)
    rig.engine.observe_check(check(healthy=False))
    assert rig.counts("api") == (1, 1)
    assert rig.engine.trackers == {}
    local = LocalObjective("db", objective=99, window_s=30 * DAY, clock=rig.clock)
    rig.engine.watch_service("db", latency_ms=500, availability=99, window_days=30, tracker=local)
    local.record(False)
    rig.engine.evaluate()
    report = rig.engine.report("db")
    assert (report.status, report.burn_rates) == (SLOStatus.VIOLATED, {})


# --- the brute-force oracle ---


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(0, 90), st.floats(0, 5 * HOUR), st.floats(0, 20 * DAY)),
            st.sampled_from([0.0, 0.0, 0.0, -2 * DAY, -40.0, 40.0, 2 * DAY]),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        max_size=30,
    ),
    st.sampled_from([1_700_000_040.0, 1_774_720_000.0, 1_793_000_000.0, 1_767_200_000.0]),  # DST changes, new year
)
def test_every_window_counts_what_a_list_of_all_events_says(
    hand_clock: NewClock, stream: list[tuple[float, float, int, int]], wall: float
) -> None:
    rig = Rig(hand_clock(wall=wall))
    windows = [{"kind": "rolling", "days": days} for days in (30, 1, 7)]
    windows += [{"kind": "calendar", "unit": unit, "time_zone": "Europe/Berlin"} for unit in ("day", "month", "year")]
    rig.engine.define("ratio", promise(RATIO, windows=windows))
    rig.engine.define("samples", promise(LATENCY, windows=windows))
    events: list[tuple[float, float, int, int]] = []
    for gap, jump, good, bad in stream:
        rig.clock.advance(gap)
        rig.clock.wall += jump
        rig.engine.observe_metric("requests", good + bad)
        rig.engine.observe_metric("errors", bad)
        for value in [0.1] * good + [0.9] * bad:
            rig.engine.observe_metric("latency", value)
        events.append((rig.clock.steady, rig.clock.wall, good, good + bad))

    for report in rig.engine.reports().values():
        for window in report.windows:
            if window.kind == "calendar":
                inside = [e for e in events if window.starts_at <= e[1] < window.ends_at]
                assert (window.good, window.total) == (sum(e[2] for e in inside), sum(e[3] for e in inside))
                continue
            length = rig.clock.wall - window.starts_at
            slot = rig.engine._trackers[report.name]._windows.slot_s(length)
            ages = [(rig.clock.steady - steady, good, total) for steady, _, good, total in events]
            for number, found in ((1, window.good), (2, window.total)):
                least = sum(event[number] for event in ages if event[0] < length - slot - 1e-6)
                assert least <= found <= sum(event[number] for event in ages if event[0] <= length + 1e-6)
            if window.total:
                assert window.sli == pytest.approx(100 * window.good / window.total)
                burnt = (1 - window.good / window.total) / (1 - 0.999)
                assert window.error_budget_remaining == pytest.approx(100 * (1 - burnt), abs=1e-6)


# --- what a report says ---


def test_without_data_an_objective_is_never_green(rig: Rig) -> None:
    for policy in ("unknown", "violated", "keep"):
        rig.engine.define(policy, promise(LATENCY, 90, no_data=policy, windows=[{"kind": "rolling", "days": 1}]))

    def statuses() -> list[str]:
        return [rig.engine.report(name).status.value for name in rig.engine.names]

    assert statuses() == ["no_data", "violated", "no_data"]
    rig.engine.observe_metric("latency", 0.1)
    assert statuses() == ["met", "met", "met"]
    rig.clock.advance(2 * DAY)
    assert statuses() == ["no_data", "violated", "no_data"]  # that it was met is not kept
    rig.engine.observe_metric("latency", 0.9)
    assert statuses() == ["violated", "violated", "violated"]
    rig.clock.advance(2 * DAY)
    assert statuses() == ["no_data", "violated", "violated"]
    assert rig.engine.report("keep").sli is None


def test_windows_are_named_and_bounded(rig: Rig) -> None:
    windows = [
        {"kind": "calendar", "unit": "month", "time_zone": "Europe/Berlin"},
        {"kind": "calendar", "unit": "month", "time_zone": "Asia/Tokyo"},
        {"kind": "calendar", "unit": "week"},
        {"kind": "rolling", "days": 0.25},
    ]
    rig.engine.define("it", promise(LATENCY, windows=windows))
    found = rig.engine.report("it").windows
    assert [window.name for window in found] == ["month Europe/Berlin", "month Asia/Tokyo", "week", "6h"]
    assert found[0].ends_at - found[0].starts_at == 30 * DAY
    assert found[0].starts_at - found[1].starts_at == 8 * HOUR
    assert (found[3].starts_at, found[3].ends_at) == (rig.clock.wall - 6 * HOUR, None)


def test_exhaustion_is_projected_from_the_burn_rate_of_the_last_hour(rig: Rig) -> None:
    rig.engine.define("it", promise(RATIO, 99))
    assert rig.engine.report("it").projected_exhaustion_s is None
    rig.engine.observe_metric("requests", 100_000)
    assert rig.engine.report("it").projected_exhaustion_s is None  # nothing burns
    rig.clock.advance(2 * HOUR)
    rig.engine.observe_metric("requests", 1000)
    rig.engine.observe_metric("errors", 50)
    report = rig.engine.report("it")
    left = report.error_budget_remaining
    assert left == pytest.approx(100 - 100 * 50 / 1010)
    assert report.burn_rates["1h"] == pytest.approx(5)
    assert report.projected_exhaustion_s == pytest.approx(left / 100 * 30 * DAY / 5)
    rig.engine.observe_metric("requests", 100_000)
    assert rig.engine.report("it").projected_exhaustion_s is None  # so slow that the window passes before
    rig.engine.observe_metric("errors", 100_000)
    assert rig.engine.report("it").projected_exhaustion_s == 0


def test_a_budget_of_the_month_that_outlasts_it_is_not_projected(rig: Rig) -> None:
    month = [{"kind": "calendar", "unit": "month"}]  # the clock stands at 14 November 22:14 UTC
    rig.engine.define("it", promise(RATIO, 99, windows=month))
    rig.engine.observe_metric("requests", 100_000)
    rig.clock.advance(2 * HOUR)
    rig.engine.observe_metric("requests", 1000)
    rig.engine.observe_metric("errors", 16)
    assert rig.engine.report("it").projected_exhaustion_s is None  # 18.4 days at this rate, 15.99 are left
    rig.engine.observe_metric("errors", 5)
    assert rig.engine.report("it").projected_exhaustion_s == pytest.approx(0.9792 * 30 * DAY / 2.1, rel=1e-3)


@pytest.mark.parametrize(
    ("window", "factors"),
    [
        ({"kind": "rolling", "days": 28}, [13.44, 5.6, 2.8, 0.9333]),
        ({"kind": "calendar", "unit": "month"}, [14.4, 6, 3, 1]),
        ({"kind": "calendar", "unit": "week"}, [3.36, 1.4]),
        ({"kind": "calendar", "unit": "quarter"}, [43.2, 18, 9, 3]),
        ({"kind": "calendar", "unit": "year"}, [175.2, 73, 36.5, 12.1667]),
    ],
)
def test_burn_factors_follow_from_the_first_window(rig: Rig, window: dict[str, Any], factors: list[float]) -> None:
    rig.engine.define("it", promise(RATIO, windows=[window]))
    for _ in range(300):
        rig.clock.advance(300)
        rig.engine.observe_metric("requests", 1000)
    rig.engine.observe_metric("errors", 300_000)
    rig.engine.evaluate()
    assert [round(alert.factor, 4) for alert in rig.engine.report("it").alerts] == factors
    assert rig.engine.firing() == rig.engine.report("it").alerts


def test_what_slices_hide_the_guard_for_little_traffic_still_sees(rig: Rig) -> None:
    for name, method in (
        ("slices", {"kind": "timeslices", "slice_s": 60}),
        ("ratios", {"kind": "ratio_timeslices", "slice_s": 60}),
    ):
        rig.engine.define(name, promise(RATIO, method=method))
    for minute in range(600):
        rig.engine.observe_metric("requests", 1)
        rig.engine.observe_metric("errors", minute == 590)
        rig.clock.advance(60)
        rig.engine.evaluate()
    assert rig.heard(SLOAlertChanged) == []  # one failure among sixty an hour burns at 16.7
    rig.engine.observe_metric("requests", 1000)
    rig.engine.observe_metric("errors", 200)
    rig.clock.advance(60)
    rig.engine.evaluate()
    assert {alert.objective for alert in rig.engine.firing()} == {"slices", "ratios"}


# --- composites ---


def test_a_composite_weighs_its_members_over_its_own_windows(rig: Rig) -> None:
    windows = [{"kind": "rolling", "days": 30}, {"kind": "calendar", "unit": "month"}]
    rig.engine.define(
        "shop", promise({"kind": "composite", "weights": {"fast": 3, "ok": 1, "all": 9}}, windows=windows)
    )
    rig.engine.define("all", promise({"kind": "composite", "weights": {"ok": 1}}, windows=windows))
    rig.engine.define("fast", promise(LATENCY, windows=windows))
    rig.engine.define("ok", promise(RATIO, windows=windows))
    assert rig.engine.report("shop").status is SLOStatus.NO_DATA
    for value in (0.1, 0.1, 0.1, 0.9):
        rig.engine.observe_metric("latency", value)
    report = rig.engine.report("shop")
    assert [window.sli for window in report.windows] == [75, 75]
    rig.engine.observe_metric("requests", 1000)
    rig.engine.observe_metric("errors", 500)
    report = rig.engine.report("shop")
    assert report.sli == pytest.approx((3 * 75 + 1 * 50 + 9 * 50) / 13)
    assert [(m.name, m.weight, m.sli) for m in report.members] == [("fast", 3, 75), ("ok", 1, 50), ("all", 9, 50)]
    rig.engine.evaluate()
    assert "shop" in {alert.objective for alert in rig.engine.firing()}


@virtual_time
async def test_a_composite_that_cannot_be_had_holds_up_the_start() -> None:
    rig = Rig(LoopClock())
    rig.engine.define("fast", promise(LATENCY))
    rig.engine.define("all", promise({"kind": "composite", "weights": {"fst": 1}}))
    with pytest.raises(ConfigurationError, match="did you mean 'fast'"):
        await rig.engine.start()
    assert len(asyncio.all_tasks()) == 1
    rig.engine.define("fst", promise({"kind": "composite", "weights": {"all": 1}}))
    with pytest.raises(ConfigurationError, match="in a circle"):
        await rig.engine.start()


@virtual_time
async def test_after_the_start_a_composite_that_cannot_be_had_is_refused_alone() -> None:
    rig = Rig(LoopClock())
    await rig.engine.start()
    with pytest.raises(ConfigurationError, match="'fast' is no objective"):
        rig.engine.define("all", promise({"kind": "composite", "weights": {"fast": 1}}))
    assert rig.engine.names == ()
    rig.engine.define("fast", promise(LATENCY))
    rig.engine.define("all", promise({"kind": "composite", "weights": {"fast": 1}}))
    assert rig.engine.report("all").members[0].name == "fast"
    await rig.engine.stop()


@pytest.mark.parametrize(
    ("member", "windows", "message"),
    [
        ({"kind": "rolling", "days": 7}, [{"kind": "rolling", "days": 30}], "looks back 30 days, but its member fast"),
        ({"kind": "rolling", "days": 7}, [{"kind": "calendar", "unit": "month"}], "keeps no calendar window month"),
    ],
)
def test_a_composite_cannot_look_further_back_than_its_members(
    rig: Rig, member: dict[str, Any], windows: list[dict[str, Any]], message: str
) -> None:
    rig.engine.define("fast", promise(LATENCY, windows=[member]))
    rig.engine.define("all", promise({"kind": "composite", "weights": {"fast": 1}}, windows=windows))
    with pytest.raises(ConfigurationError, match=message):
        rig.engine.report("all")


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            promise({"kind": "composite", "weights": {"a": 1}}, method={"kind": "timeslices"}),
            "method timeslices on a comp",
        ),
        (promise(LATENCY, windows=[{"kind": "rolling", "days": 7}] * 2), "window '7d' is there twice"),
        (
            promise(LATENCY, windows=[{"kind": "rolling", "days": 0.0005}], method={"kind": "timeslices"}),
            "slices of 60 s do not fit into its window '43.2s'",
        ),
        (
            promise(
                LATENCY, 90, alerting={"burn_alerts": [{"severity": "page", "budget_share": 0.02, "long_s": 3600}]}
            ),
            r"can never fire at an objective of 90 %.*1 / \(1 - 0.9\) = 10",
        ),
    ],
)
def test_an_objective_that_cannot_be_kept_is_refused_and_nothing_of_it_stays(
    rig: Rig, settings_: ObjectiveSettings, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rig.engine.define("it", settings_)
    assert (rig.engine.names, dict(rig.engine.trackers)) == ((), {})
    rig.engine.observe_metric("latency", 1)


def test_a_burn_row_of_the_engine_is_held_against_every_objective(hand_clock: NewClock) -> None:
    row = BurnAlertSettings(severity="page", budget_share=0.02, long_s=3600)
    rig = Rig(hand_clock(), alerting=AlertingSettings(burn_alerts=(row,)))
    rig.engine.define("fine", promise(LATENCY))
    with pytest.raises(ConfigurationError, match="never fire"):
        rig.engine.watch_service("api", latency_ms=500, availability=90, window_days=30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"availability": 0}, "above 0 and below 100"),
        ({"availability": 100}, "above 0 and below 100"),
        ({"availability": 101}, "above 0 and below 100"),
        ({"availability": float("nan")}, "above 0 and below 100"),
        ({"window_days": 367}, "at most 366 days"),
        ({"window_days": float("inf")}, "at most 366 days"),
        ({"latency_ms": -1}, "latency_ms of api: must be above 0"),
        ({"latency_ms": float("nan")}, "latency_ms of api: must be above 0"),
    ],
)
def test_a_service_with_a_promise_that_cannot_be_kept_is_refused(
    rig: Rig, arguments: dict[str, float], message: str
) -> None:
    usual = {"latency_ms": 500, "availability": 99.9, "window_days": 30}
    with pytest.raises(ConfigurationError, match=message):
        rig.engine.watch_service("api", **{**usual, **arguments})


def test_a_name_is_given_once_and_an_unknown_one_is_an_error(rig: Rig) -> None:
    rig.engine.watch_service("api", latency_ms=500, availability=99.9, window_days=30)
    with pytest.raises(ConfigurationError, match="'api' is defined already"):
        rig.engine.define("api", promise(LATENCY))
    with pytest.raises(UnknownObjectiveError, match="did you mean 'api'"):
        rig.engine.report("apis")


@pytest.mark.parametrize("evaluate_s", [0, -1, float("nan"), float("inf")])
def test_an_engine_that_would_never_evaluate_is_refused(hand_clock: NewClock, evaluate_s: float) -> None:
    with pytest.raises(ConfigurationError, match="evaluate_s"):
        Rig(hand_clock(), evaluate_s=evaluate_s)


# --- life ---


@virtual_time
async def test_changes_are_told_within_a_tick() -> None:
    rig = Rig(LoopClock(), alerting=AlertingSettings(pending_s=20, resolve_s=60))
    rig.engine.define("ok", promise(RATIO, service="api"))
    await rig.engine.start()
    for _ in range(8):
        rig.engine.observe_metric("requests", 100)
        rig.engine.observe_metric("errors", 50)
        await rig.clock.sleep(5)
    page = [event for event in rig.heard(SLOAlertChanged) if event.window == "1h"]
    assert [(event.state, event.severity, event.service) for event in page] == [
        ("pending", "page", "api"),
        ("firing", "page", "api"),
    ]
    assert page[1].at - page[0].at == pytest.approx(20)
    assert (page[1].factor, page[1].burn_rate) == (14.4, pytest.approx(500))
    assert page[1].summary == "error budget of ok burns at 500 x over 1h (alert at 14.4 x, objective 99.9 %)"
    assert [(e.previous, e.current) for e in rig.heard(SLOStatusChanged)] == [("no_data", "violated")]
    assert {alert.window for alert in rig.engine.firing()} == {"1h", "6h", "1d", "3d"}
    assert rig.engine.firing()[0].since == pytest.approx(page[1].at)
    for _ in range(200):
        rig.engine.observe_metric("requests", 1000)
        await rig.clock.sleep(10)
    assert [e.state for e in rig.heard(SLOAlertChanged) if e.window == "1h"][-1] == "resolved"
    await rig.engine.stop()


@virtual_time
async def test_one_objectives_fault_is_reported_once_and_the_others_are_still_evaluated() -> None:
    rig = Rig(LoopClock())
    rig.engine.define("broken", promise(LATENCY))
    rig.engine.define("fine", promise(LATENCY))
    tracker = rig.engine._evaluations["broken"]
    source, tracker.source = tracker.source, None  # type: ignore[assignment]  a fault that nobody foresaw
    await rig.engine.start()
    rig.engine.observe_metric("latency", 0.1)
    await rig.clock.sleep(35)
    assert [event.component for event in rig.heard(ComponentFailed)] == ["slo"]
    assert rig.engine.status.state is ComponentState.DEGRADED
    assert [event.objective for event in rig.heard(SLOStatusChanged)] == ["fine"]
    tracker.source = source
    await rig.clock.sleep(10)
    assert rig.engine.status.state is ComponentState.RUNNING
    await rig.engine.stop()


@virtual_time
async def test_many_objectives_are_evaluated_without_holding_up_the_loop() -> None:
    rig = Rig(LoopClock())
    for number in range(120):
        rig.engine.define(f"o{number}", promise(LATENCY))
    rig.engine.observe_metric("latency", 0.1)
    turns: list[int] = []
    await rig.engine.start()
    await rig.clock.sleep(9.999)

    async def others() -> None:
        await rig.clock.sleep(0.001)
        while len(turns) < 10:
            turns.append(len(rig.heard(SLOStatusChanged)))
            await asyncio.sleep(0)

    await others()
    assert {50, 100, 120} <= set(turns)
    await rig.engine.stop()


@virtual_time
async def test_stop_is_safe_without_start_and_twice_and_leaves_no_task() -> None:
    rig = Rig(LoopClock())
    await rig.engine.stop()
    await rig.engine.start()
    await rig.engine.start()
    assert len(asyncio.all_tasks()) == 2
    await rig.engine.stop()
    await rig.engine.stop()
    assert len(asyncio.all_tasks()) == 1
    assert rig.engine.status.state is ComponentState.STOPPED


async def test_budgets_of_every_method_outlive_a_restart(tmp_path: Any, hand_clock: NewClock) -> None:
    clock = hand_clock()
    store = SqliteStore(str(tmp_path / "state.db"), clock=clock)

    def build() -> Rig:
        rig = Rig(clock)
        windows = [{"kind": "rolling", "days": 7}, {"kind": "calendar", "unit": "month", "time_zone": "Asia/Kolkata"}]
        for kind in ("occurrences", "timeslices", "ratio_timeslices"):
            for name, indicator in (("fast", LATENCY), ("ok", RATIO), ("up", {"kind": "raw_ratio", "metric": "up"})):
                rig.engine.define(f"{name} {kind}", promise(indicator, method={"kind": kind}, windows=windows))
        return rig

    first = build()
    for step in range(50):
        clock.advance(90)
        first.engine.observe_metric("latency", 0.9 if step % 3 == 0 else 0.1)
        first.engine.observe_metric("requests", 7.5)
        first.engine.observe_metric("errors", 0.25)
        first.engine.observe_metric("up", 0.75)
    clock.advance(90)
    assert [tracker.drain() for tracker in build().engine.trackers.values()] == [{}] * 9
    store.add_samples({tracker.name: tracker.drain() for tracker in first.engine.trackers.values()})
    second = build()
    for tracker in second.engine.trackers.values():
        tracker.restore(store.samples(tracker.name, since=clock.time() - 40 * DAY))
    for name, before in first.engine.reports().items():
        after = second.engine.report(name)
        for old, new in zip(before.windows, after.windows, strict=True):
            assert (new.good, new.total) == pytest.approx((old.good, old.total), abs=1e-4), name
    store.close()


@virtual_time
async def test_the_keeper_of_samples_looks_back_to_the_beginning_of_the_year() -> None:
    rig = Rig(LoopClock())  # the clock stands in November
    asked: list[float] = []

    class Store:
        def samples(self, objective: str, *, since: float) -> dict[float, tuple[int, int]]:
            asked.append(rig.clock.time() - since)
            return {rig.clock.time() - 200 * DAY: (3, 4)}

    rig.engine.define("it", promise(LATENCY, windows=[{"kind": "calendar", "unit": "year"}]))
    keeper = SampleKeeper(rig.engine.trackers.values, Store(), clock=rig.clock, events=rig.events)  # type: ignore[arg-type]  nothing else is asked for
    await keeper.start()
    assert asked == [366 * DAY]
    assert rig.counts("it") == (3, 4)
    await keeper.stop()


def test_a_changed_method_does_not_take_up_samples_of_another_unit(hand_clock: NewClock) -> None:
    rig = Rig(hand_clock())
    methods = [{"kind": "occurrences"}, {"kind": "timeslices", "slice_s": 60}, {"kind": "timeslices", "slice_s": 300}]
    methods.append({"kind": "ratio_timeslices", "slice_s": 60})
    stored = set()
    for number, method in enumerate(methods):
        rig.engine.define(f"o{number}", promise(LATENCY, method=method))
        stored.add(rig.engine.trackers[f"o{number}"].name.replace(f"o{number}", "it"))
    assert len(stored) == len(methods)
    assert "it" in stored
