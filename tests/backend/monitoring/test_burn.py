"""Burn-rate alerts as in the Google SRE workbook, chapter 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backend.shared.monitoring.burn import (
    WINDOWS,
    AlertRows,
    BurnAlert,
    alert_table,
    alerts_firing,
    burn_alerts,
    window_name,
)
from backend.shared.monitoring.settings import AlertingSettings, BurnAlertSettings
from backend.shared.monitoring.windows import Windows
from modules.contracts.errors import ConfigurationError
from modules.contracts.slo import burn_rate

HOUR, DAY = 3600.0, 86_400.0


def factors(objective: float, days: float) -> list[float]:
    return [round(alert.factor, 4) for alert in burn_alerts(objective, days * DAY)]


@pytest.mark.parametrize(
    ("days", "expected"), [(30, [14.4, 6, 3, 1]), (28, [13.44, 5.6, 2.8, 0.9333]), (7, [3.36, 1.4]), (1 / 24, [])]
)
def test_factors_follow_from_the_share_of_the_budget(days: float, expected: list[float]) -> None:
    assert factors(99.9, days) == expected


def test_the_short_window_is_a_twelfth_of_the_long_one() -> None:
    alerts = burn_alerts(99.9, 30 * DAY)
    assert [(alert.severity, alert.long_s, alert.short_s) for alert in alerts] == [
        ("page", HOUR, 300),
        ("page", 6 * HOUR, 1800),
        ("ticket", DAY, 2 * HOUR),
        ("ticket", 3 * DAY, 6 * HOUR),
    ]


@pytest.mark.parametrize(
    ("objective", "expected"), [(93.06, [14.4, 6, 3, 1]), (93.05, [6, 3, 1]), (80, [3, 1]), (50, [1]), (1, [1])]
)
def test_a_factor_above_that_of_a_full_outage_is_left_out(objective: float, expected: list[float]) -> None:
    assert factors(objective, 30) == expected


def firing(
    objective: float, error_share: Callable[[float], float], *, step: float, until: float, history: float = 3 * DAY
) -> Iterator[tuple[float, set[float]]]:
    """Yield (seconds, factors of the firing pages) at each step of steady traffic, faultless before 0."""
    windows = Windows(30 * DAY, -history)
    at = -history
    while at < 0:
        windows.record(at, 1000 * 60, 1000 * 60)
        at += 60
    pages = [alert for alert in burn_alerts(objective, 30 * DAY) if alert.severity == "page"]
    for tick in range(1, round(until / step) + 1):
        at = tick * step
        total = round(1000 * step)
        windows.record(at, total - round(total * error_share(at)), total)
        counts = {length: windows.read(at, length) for length in WINDOWS.values()}
        yield at, {alert.factor for alert in alerts_firing(pages, objective, counts)}


@pytest.mark.parametrize(("factor", "seconds"), [(14.4, 51.84), (6.0, 129.6)])
def test_a_full_outage_at_three_nines_is_seen_in_the_time_of_the_workbook(factor: float, seconds: float) -> None:
    seen = next(at for at, alerts in firing(99.9, lambda at: 1.0, step=1, until=200) if factor in alerts)
    assert abs(seen - seconds) <= 1


def test_fifteen_percent_errors_for_ten_minutes_fire_and_reset_in_the_time_of_the_workbook() -> None:
    share = lambda at: 0.15 if at <= 600 else 0.0  # noqa: E731  one line reads best here
    times = [at for at, alerts in firing(99.9, share, step=1, until=1200) if 14.4 in alerts]
    assert abs(times[0] - 5.76 * 60) <= 1 + 10 * 0.0144 * 60  # one tick, and one slot of 10 s missing from an hour
    assert abs(times[-1] - (600 + 4.52 * 60)) <= 11
    assert len(times) == times[-1] - times[0] + 1


@pytest.mark.parametrize("objective", [50, 99, 99.9, 99.95, 99.99, 99.999])
def test_a_budget_that_lasts_exactly_its_window_burns_at_one(objective: float) -> None:
    bad = round((100 - objective) * 1000)
    assert burn_rate(objective, 100_000 - bad, 100_000) == 1


ALERT = BurnAlert("page", HOUR, 300, 14.4)


@pytest.mark.parametrize(
    ("long", "short", "fires"),
    [
        ((9, 10), (0, 1), False),  # one failure at ten requests an hour
        ((8, 10), (0, 1), False),
        ((0, 3), (0, 1), True),  # a full outage at the same traffic
        ((7, 10), (0, 0), True),  # no data is no recovery
        ((7, 10), (1, 1), False),  # the newest requests are well again
        ((0, 0), (0, 0), False),
        ((9900, 10_000), (0, 100), False),  # burns at 10
        ((9856, 10_000), (0, 100), True),  # burns at exactly 14.4
    ],
)
def test_low_traffic_and_missing_data(long: tuple[int, int], short: tuple[int, int], fires: bool) -> None:
    assert bool(alerts_firing([ALERT], 99.9, {HOUR: long, 300.0: short})) is fires


def table(*rows: tuple[str, float, float]) -> AlertingSettings:
    return AlertingSettings(
        burn_alerts=tuple(BurnAlertSettings(severity=s, budget_share=share, long_s=long) for s, share, long in rows)
    )


def test_a_written_table_is_derived_from_its_shares() -> None:
    alerts = alert_table("api", table(("page", 0.02, HOUR), ("ticket", 0.5, 7 * DAY)), 99.9, 28 * DAY)
    assert [(a.severity, a.window, a.long_s, a.short_s, round(a.factor, 4)) for a in alerts] == [
        ("page", "1h", HOUR, 300, 13.44),
        ("ticket", "7d", 7 * DAY, 14 * HOUR, 2.0),
    ]


def test_a_written_row_that_can_never_fire_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"burn alert of api \(page over 1h\): it can never fire at an objective of 90 %: its factor is"
        r" 0\.02 x 2\.592e\+06 s / 3600 s = 14\.4, but a full outage burns at 1 / \(1 - 0\.9\) = 10;",
    ):
        alert_table("api", table(("page", 0.02, HOUR)), 90, 30 * DAY)


def test_a_written_row_that_fires_while_nothing_is_wrong_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ticket over 3d.*fires while the budget lasts.*= 0\.2333"):
        alert_table("api", table(("page", 0.5, HOUR), ("ticket", 0.1, 3 * DAY)), 99.9, 7 * DAY)


def test_of_the_table_that_stands_by_default_such_rows_are_left_out() -> None:
    assert alert_table("api", AlertingSettings(pending_s=5), 90, 7 * DAY) == burn_alerts(90, 7 * DAY)
    assert len(burn_alerts(90, 7 * DAY)) == 2


def test_a_row_that_is_written_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="page over 1h twice"):
        alert_table("api", table(("page", 0.02, HOUR), ("page", 0.03, HOUR)), 99.9, 30 * DAY)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (300, "5m"),
        (HOUR, "1h"),
        (90, "90s"),
        (36 * HOUR, "36h"),
        (30 * DAY, "30d"),
        (0.0417 * DAY, "1h"),
        (50.4, "50.4s"),
    ],
)
def test_windows_are_named_as_people_say_them(seconds: float, name: str) -> None:
    assert window_name(seconds) == name


@pytest.mark.parametrize(
    ("pending_s", "resolve_s", "holds", "expected"),
    [
        (0, 0, "1110", [(0, "firing"), (30, "resolved")]),
        (20, 0, "1110", [(0, "pending"), (20, "firing"), (30, "resolved")]),
        (20, 0, "1101", [(0, "pending"), (20, "resolved"), (30, "pending")]),
        (0, 20, "1010100", [(0, "firing"), (60, "resolved")]),  # does not flutter
        (0, 20, "1001", [(0, "firing"), (20, "resolved"), (30, "firing")]),
        (0, 60, "0000", []),
    ],
)
def test_a_row_is_pending_fires_and_resolves(
    pending_s: float, resolve_s: float, holds: str, expected: list[tuple[float, str]]
) -> None:
    rows, changes = AlertRows(pending_s, resolve_s), []
    for tick, held in enumerate(holds):
        changes += [(tick * 10, c.state) for c in rows.update(tick * 10, [ALERT] if held == "1" else [])]
        assert rows.firing == (bool(changes) and changes[-1][1] == "firing")
    assert changes == expected
