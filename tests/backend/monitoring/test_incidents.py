"""A thousand incidents: each that crosses a row of the workbook's table is alerted in its time, and none that does not.

With steady traffic, clean before, an error ratio ``e`` burns at ``e / (1 - objective)``; over a long window ``L`` the
burn after ``t`` seconds is that times ``t / L``, so a factor ``f`` is reached after ``(1 - objective) / e x L x f``.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import pytest

from backend.shared.monitoring.engine import SLOEngine
from backend.shared.monitoring.settings import AlertingSettings, ObjectiveSettings, RatioIndicatorSettings
from modules.contracts.events import Event, EventBus, SLOAlertChanged

HOUR, DAY = 3600.0, 86_400.0
WORKBOOK = {("page", "1h"): (HOUR, 14.4), ("page", "6h"): (6 * HOUR, 6.0), ("ticket", "1d"): (DAY, 3.0)}
WORKBOOK[("ticket", "3d")] = (3 * DAY, 1.0)
RATE = 1000.0
PER_OBJECTIVE = 250
NewClock = Callable[..., object]
Row = tuple[str, str]


class Site:
    """Steady traffic to one objective over 30 days; ``fired`` holds when each row fired."""

    def __init__(self, new_clock: NewClock, objective: float) -> None:
        self.clock = new_clock()
        events = EventBus(self.clock)
        events.listen(self._hear)
        self.engine = SLOEngine(clock=self.clock, events=events, alerting=AlertingSettings(resolve_s=0))
        indicator = RatioIndicatorSettings(kind="ratio", total="requests", bad="errors")
        self.engine.define("api", ObjectiveSettings(indicator=indicator, objective=objective))
        self.fired: dict[Row, float] = {}
        self.ended: dict[Row, float] = {}

    def _hear(self, event: Event) -> None:
        if isinstance(event, SLOAlertChanged):
            kept = {"firing": self.fired, "resolved": self.ended}[event.state]
            kept[event.severity, event.window] = self.clock.steady

    def traffic(self, seconds: float, error_ratio: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.engine.observe_metric("requests", RATE * seconds)
        if error_ratio:
            self.engine.observe_metric("errors", RATE * seconds * error_ratio)

    def clean_days(self) -> None:
        """As long as the longest window looks back, as fine as each part of it is looked at."""
        for step, until in ((300, 3 * DAY - 6 * HOUR + 600), (60, 5 * HOUR), (10, HOUR)):
            for _ in range(int(until // step)):
                self.traffic(step)


@pytest.mark.parametrize("objective", [99.0, 99.5, 99.9, 99.95])
def test_every_incident_that_crosses_a_row_is_alerted_in_time_and_no_other(
    hand_clock: NewClock, objective: float
) -> None:
    random_ = random.Random(f"incidents at {objective}")
    quiet, allowed = Site(hand_clock, objective), 1 - objective / 100
    quiet.clean_days()
    outcomes = dict.fromkeys(WORKBOOK, 0)
    for _ in range(PER_OBJECTIVE):
        burn = math.exp(random_.uniform(math.log(0.2), math.log(1 / allowed)))
        lasts = 10 * round(math.exp(random_.uniform(math.log(30), math.log(3 * DAY))) / 10)
        tick = 10.0 * math.ceil(lasts / 600)
        site = copy.deepcopy(quiet)
        began = site.clock.steady
        for _ in range(int(lasts // tick)):
            site.traffic(tick, burn * allowed)
            site.engine.evaluate()
        lasted = site.clock.steady - began
        for row, (long_s, factor) in WORKBOOK.items():
            takes = factor * long_s / burn
            slack = 0.01 * takes  # less than one slot is missing at the trailing edge of the window
            if burn >= factor and takes + slack + tick <= lasted:
                assert row in site.fired, (row, burn, lasts)
                outcomes[row] += 1
            if row in site.fired:
                assert -slack <= site.fired[row] - began - takes <= slack + tick, (row, burn, lasts)
        if burn < 1:
            assert not site.fired
    assert min(outcomes.values()) >= PER_OBJECTIVE / 20  # the seeds make incidents of every kind


@pytest.mark.parametrize(("row", "seconds"), [(("page", "1h"), 51.84), (("page", "6h"), 129.6)])
def test_a_full_outage_at_three_nines_pages_in_the_time_of_the_workbook(
    hand_clock: NewClock, row: Row, seconds: float
) -> None:
    site = Site(hand_clock, 99.9)
    site.clean_days()
    began = site.clock.steady
    while row not in site.fired:
        site.traffic(1, 1.0)
        site.engine.evaluate()
    assert abs(site.fired[row] - began - seconds) <= 1


def test_fifteen_percent_errors_for_ten_minutes_fire_and_reset_in_the_time_of_the_workbook(
    hand_clock: NewClock,
) -> None:
    site, row = Site(hand_clock, 99.9), ("page", "1h")
    site.clean_days()
    began = site.clock.steady
    for second in range(1200):
        site.traffic(1, 0.15 if second < 600 else 0.0)
        site.engine.evaluate()
    slot_s = 10
    assert abs(site.fired[row] - began - 5.76 * 60) <= 1 + slot_s / HOUR * 5.76 * 60
    assert abs(site.ended[row] - began - 600 - 4.52 * 60) <= 1 + slot_s


def hourly(site: Site, hours: int, failing: Callable[[int], bool]) -> None:
    """Ten requests an hour, evaluated every minute."""
    for request in range(hours * 10):
        site.engine.observe_metric("requests", 1)
        if failing(request):
            site.engine.observe_metric("errors", 1)
        for _ in range(6):
            site.clock.advance(60)
            site.engine.evaluate()


def test_at_ten_requests_an_hour_one_failure_pages_nobody_and_a_full_outage_pages(hand_clock: NewClock) -> None:
    site = Site(hand_clock, 99.9)
    hourly(site, 72, lambda request: False)
    hourly(site, 24, lambda request: request == 5)
    assert site.fired == {}
    hourly(site, 72, lambda request: False)
    began = site.clock.steady
    hourly(site, 1, lambda request: True)
    assert site.fired["page", "1h"] - began <= 3 * 360
