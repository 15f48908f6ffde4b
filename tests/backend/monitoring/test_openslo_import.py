"""OpenSLO v1 documents become settings of objectives, or problems with file, line and path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.shared.monitoring.burn import window_name
from backend.shared.monitoring.exports.objective import Counters, declared_objective
from backend.shared.monitoring.exports.openslo import openslo
from backend.shared.monitoring.openslo import Imported, OpenSLOError, OpenSLOProblem, read_openslo
from backend.shared.monitoring.openslo.fields import MAX_BYTES, MAX_DEPTH
from backend.shared.monitoring.settings import (
    AlertingSettings,
    BurnAlertSettings,
    CalendarWindowSettings,
    ObjectiveSettings,
    OccurrencesSettings,
    RatioIndicatorSettings,
    RatioTimeslicesSettings,
    RawRatioIndicatorSettings,
    RollingWindowSettings,
    ThresholdIndicatorSettings,
    TimeslicesSettings,
)

Read = Callable[..., list[Imported]]
Refused = Callable[..., list[str]]

SLO = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: web-ok
spec:
  description: Requests that succeed.
  service: web
  indicator:
    metadata: {name: ok}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: selfright, spec: {metric: good_requests}}}
        total: {metricSource: {type: selfright, spec: {metric: requests}}}
  timeWindow:
    - duration: 28d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.995
"""
RATIO = RatioIndicatorSettings(kind="ratio", total="requests", good="good_requests")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """``read(text, ...)`` reads each text as a file of its own: ``1.yaml``, ``2.yaml``."""

    def read(*texts: str, prefix: str = "selfright") -> list[Imported]:
        paths = []
        for number, text in enumerate(texts, start=1):
            path = tmp_path / f"{number}.yaml"
            path.write_text(text, "utf-8")
            paths.append(path)
        return read_openslo(*paths, prefix=prefix)

    return read


@pytest.fixture
def refused(read: Read, tmp_path: Path) -> Refused:
    """``refused(text, ...)`` returns what is told: ``1.yaml:12: path: what was found``."""

    def refused(*texts: str) -> list[str]:
        with pytest.raises(OpenSLOError) as raised:
            read(*texts)
        return [str(problem).removeprefix(f"{tmp_path}/") for problem in raised.value.problems]

    return refused


def slo(old: str = "", new: str = "", *, of: str = SLO) -> str:
    """The SLO above with one part replaced."""
    assert old in of
    return of.replace(old, new)


def only(imported: list[Imported]) -> ObjectiveSettings:
    (one,) = imported
    return one.settings


# --- what is taken --------------------------------------------------------------------------------------


def test_an_slo_becomes_an_objective_of_its_name_from_its_line(read, tmp_path):
    assert read(SLO) == [
        Imported(
            name="web-ok",
            settings=ObjectiveSettings(
                description="Requests that succeed.",
                service="web",
                indicator=RATIO,
                objective=99.5,
                windows=(RollingWindowSettings(kind="rolling", days=28),),
            ),
            file=str(tmp_path / "1.yaml"),
            line=4,
        )
    ]


def test_a_service_named_as_the_slo_itself_is_none(read):
    assert only(read(slo("service: web", "service: web-ok"))).service is None


@pytest.mark.parametrize(
    ("target", "percent"),
    [("target: 0.9995", 99.95), ("target: 0.29", 29.0), ("targetPercent: 99.99", 99.99), ("targetPercent: 50", 50.0)],
)
def test_a_target_is_a_share_or_a_percentage(read, target, percent):
    assert only(read(slo("target: 0.995", target))).objective == percent


@pytest.mark.parametrize(
    ("duration", "days"),
    [("30m", 1 / 48), ("12h", 0.5), ("1d", 1), ("4w", 28), ("1M", 30), ("2Q", 180), ("1Y", 365)],
)
def test_the_letter_of_a_duration_is_its_unit_and_its_case_counts(read, duration, days):
    (window,) = only(read(slo("28d", duration))).windows
    assert window == RollingWindowSettings(kind="rolling", days=days)


def test_a_window_without_calendar_rolls_without_being_told(read):
    assert read(slo("      isRolling: true\n")) == read(SLO)


def test_without_a_window_it_is_thirty_days(read):
    text = slo("  timeWindow:\n    - duration: 28d\n      isRolling: true\n")
    assert only(read(text)).windows == (RollingWindowSettings(kind="rolling", days=30),)


def calendar(duration: str, start: str, zone: str = "America/New_York", rolling: str = "isRolling: false") -> str:
    new = f"- {{duration: {duration}, calendar: {{startTime: {start}, timeZone: {zone}}}, {rolling}}}"
    return slo("- duration: 28d\n      isRolling: true", new)


@pytest.mark.parametrize(
    ("duration", "start", "unit"),
    [
        ("1d", "2022-05-17 00:00:00", "day"),
        ("1w", "2022-01-03 00:00:00", "week"),
        ("1M", "2022-05-01", "month"),
        ("1Q", '"2022-10-01 00:00:00"', "quarter"),
        ("1Y", "2022-01-01 00:00:00", "year"),
    ],
)
def test_a_calendar_window_begins_with_its_unit(read, duration, start, unit):
    (window,) = only(read(calendar(duration, start))).windows
    assert window == CalendarWindowSettings(kind="calendar", unit=unit, time_zone="America/New_York")


def test_a_calendar_makes_a_window_not_roll_without_being_told(read):
    assert read(calendar("1M", "2022-05-01", rolling="")) == read(calendar("1M", "2022-05-01"))


@pytest.mark.parametrize(
    ("method", "slices", "expected"),
    [
        ("Occurrences", "", OccurrencesSettings(kind="occurrences")),
        (
            "Timeslices",
            "timeSliceTarget: 0.9, timeSliceWindow: 2m",
            TimeslicesSettings(kind="timeslices", slice_s=120, slice_objective=90),
        ),
        (
            "Timeslices",
            "timeSliceTarget: 1.0, timeSliceWindow: 5",
            TimeslicesSettings(kind="timeslices", slice_s=300, slice_objective=100),
        ),
        (
            "RatioTimeslices",
            "timeSliceWindow: 1h",
            RatioTimeslicesSettings(kind="ratio_timeslices", slice_s=3600),
        ),
    ],
)
def test_the_three_budgeting_methods_are_taken(read, method, slices, expected):
    text = slo("Occurrences", method)
    assert only(read(slo("- target: 0.995", f"- {{target: 0.995, {slices}}}", of=text))).method == expected


RATIO_METRIC = SLO[SLO.index("      ratioMetric:") : SLO.index("  timeWindow")]
SOURCE = "{metricSource: {type: selfright, spec: {metric: %s}}}"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            f"{{ratioMetric: {{bad: {SOURCE % 'errors'}, total: {SOURCE % 'requests'}}}}}",
            RatioIndicatorSettings(kind="ratio", total="requests", bad="errors"),
        ),
        (
            f"{{ratioMetric: {{counter: false, rawType: failure, raw: {SOURCE % 'error_share'}}}}}",
            RawRatioIndicatorSettings(kind="raw_ratio", metric="error_share", of="failure"),
        ),
        (
            "{ratioMetric: {good: {metricSource: {type: Prometheus, spec: {query: selfright_good_requests_total}}},"
            f" total: {SOURCE % 'requests'}}}}}",
            RATIO,
        ),
    ],
)
def test_ratio_indicators_are_taken(read, spec, expected):
    assert only(read(slo("    spec:\n" + RATIO_METRIC, f"    spec: {spec}\n"))).indicator == expected


@pytest.mark.parametrize(("op", "comparison"), [("lte", "<="), ("lt", "<"), ("gte", ">="), ("gt", ">")])
def test_a_threshold_indicator_is_compared_as_its_objective_says(read, op, comparison):
    text = slo("    spec:\n" + RATIO_METRIC, f"    spec: {{thresholdMetric: {SOURCE % 'queue_length'}}}\n")
    indicator = only(read(slo("- target: 0.995", f"- {{target: 0.995, op: {op}, value: -0.5}}", of=text))).indicator
    assert indicator == ThresholdIndicatorSettings(
        kind="threshold", metric="queue_length", comparison=comparison, threshold=-0.5
    )


def test_the_prefix_of_a_query_is_that_of_our_metrics(read):
    query = "{metricSource: {type: prometheus, spec: {query: shop_requests_total}}}"
    assert only(read(slo(SOURCE % "requests", query), prefix="shop")).indicator == RATIO


def test_several_objectives_are_called_by_their_display_name_or_number(read):
    text = slo("    - target: 0.995\n", "    - {displayName: Good enough!, target: 0.9}\n    - target: 0.99\n")
    assert [(each.name, each.settings.objective) for each in read(text)] == [
        ("web-ok-good-enough", 90.0),
        ("web-ok-2", 99.0),
    ]


INDICATOR = SLO[SLO.index("  indicator:") : SLO.index("  timeWindow")]
SLI = f"""\
apiVersion: openslo/v1
kind: SLI
metadata: {{name: ok}}
spec: {{ratioMetric: {{good: {SOURCE % "good_requests"}, total: {SOURCE % "requests"}}}}}
"""


@pytest.mark.parametrize("split", ["one file", "two files", "a list"])
def test_an_indicator_is_found_by_name_wherever_it_stands(read, split):
    texts = {
        "one file": (slo(INDICATOR, "  indicatorRef: ok\n") + "---\n" + SLI,),
        "two files": (slo(INDICATOR, "  indicatorRef: ok\n"), SLI),
        "a list": (yaml.safe_dump([yaml.safe_load(slo(INDICATOR, "  indicatorRef: ok\n")), yaml.safe_load(SLI)]),),
    }
    assert only(read(*texts[split])) == only(read(SLO))


def test_a_data_source_lends_its_type(read):
    source = "apiVersion: openslo/v1\nkind: DataSource\nmetadata: {name: ours}\nspec: {type: selfright}\n---\n"
    text = source + SLO.replace("type: selfright", "metricSourceRef: ours")
    assert only(read(text)).indicator == RATIO


CONDITION = """\
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: fast}
spec: {severity: page, condition: {kind: burnrate, op: gte, threshold: 13.44, lookbackWindow: 1h, alertAfter: 2m}}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: pages}
spec: {alertWhenBreaching: true, conditions: [{conditionRef: fast}], notificationTargets: []}
---
"""
INLINE = """\
  alertPolicies:
    - alertPolicyRef: pages
    - kind: AlertPolicy
      metadata: {name: tickets}
      spec:
        conditions:
          - kind: AlertCondition
            metadata: {name: slow}
            spec: {severity: ticket, condition: {op: lte, threshold: 2.8, lookbackWindow: 1d, alertAfter: 2m}}
"""


def test_alert_policies_become_rows_whose_share_follows_from_the_period(read):
    assert only(read(CONDITION + SLO + INLINE)).alerting == AlertingSettings(
        burn_alerts=(
            BurnAlertSettings(severity="page", budget_share=0.02, long_s=3600),
            BurnAlertSettings(severity="ticket", budget_share=0.1, long_s=86_400),
        ),
        pending_s=120,
    )


def test_without_alert_policies_the_alerting_is_left_to_the_group(read):
    assert only(read(SLO)).alerting is None


# --- what is refused, and how -----------------------------------------------------------------------------

WRONG = {
    "unknown version": (slo("openslo/v1", "openslo/v1alpha"), "1.yaml:1: apiVersion: found 'openslo/v1alpha'"),
    "unknown kind": (slo("kind: SLO", "kind: SLX"), "1.yaml:2: kind: found 'SLX' (did you mean 'SLO'?)"),
    "a kind that is not ours": (slo("kind: SLO", "kind: AlertNotificationTarget"), "1.yaml:2: kind: Alert"),
    "no kind": (slo("kind: SLO\n"), "1.yaml:1: kind: is missing"),
    "no metadata": (slo("metadata:\n  name: web-ok\n"), "1.yaml:1: metadata: is missing"),
    "no name": (slo("  name: web-ok", "  displayName: Web"), "1.yaml:4: metadata.name: is missing"),
    "no spec": (SLO[: SLO.index("spec:")], "1.yaml:1: spec of SLO 'web-ok' is missing"),
    "a document that is no mapping": ("just text\n", "1.yaml:1: found 'just text' (a string)"),
    "an unknown field": (slo("description:", "descriptoin:"), "1.yaml:6: spec.descriptoin: unknown field (did you"),
    "a field twice": (slo("  service: web", "  service: web\n  service: api"), "1.yaml:8: spec.service: stands here"),
    "a name that is a number": (slo("service: web", "service: 17"), "1.yaml:7: spec.service: found 17 (a number)"),
    "labels that are none": (slo("  name: web-ok", "  name: web-ok\n  labels: 3"), "1.yaml:5: metadata.labels: found"),
    "a long description": (slo("Requests that succeed.", "x" * 1051), "1.yaml:6: spec.description: has 1051 char"),
    "an unknown method": (slo("Occurrences", "occurrences"), "1.yaml:18: spec.budgetingMethod: found 'occurrences'"),
    "an unknown unit": (slo("28d", "28s"), "1.yaml:16: spec.timeWindow[0].duration: found '28s'"),
    "a window of nothing": (slo("28d", "0d"), "1.yaml:16: spec.timeWindow[0].duration: found '0d'"),
    "a window that is too long": (slo("28d", "2Y"), "1.yaml:16: spec.timeWindow[0].duration: found '2Y' (a string): d"),
    "two windows": (slo("28d", "28d\n    - duration: 7d"), "1.yaml:16: spec.timeWindow: found 2 windows"),
    "a rolling calendar": (
        calendar("1M", "2022-05-01 00:00:00", rolling="isRolling: true"),
        "1.yaml:16: spec.timeWindow[0].isRolling: is true, and there is a calendar",
    ),
    "neither rolling nor calendar": (
        slo("isRolling: true", "isRolling: false"),
        "1.yaml:17: spec.timeWindow[0].isRolling: is false, and there is no calendar",
    ),
    "a calendar window of a fortnight": (
        calendar("2w", "2022-01-03 00:00:00"),
        "1.yaml:16: spec.timeWindow[0].duration: found '2w'",
    ),
    "a week from Saturday": (
        calendar("1w", "2022-01-01 00:00:00"),
        "1.yaml:16: spec.timeWindow[0].calendar.startTime: found 2022-01-01 00:00:00, and the week does not begin then",
    ),
    "a day from noon": (calendar("1d", "2022-01-01 12:00:00"), "the day does not begin then"),
    "a quarter from May": (calendar("1Q", "2022-05-01 00:00:00"), "the quarter does not begin then"),
    "a start with an offset": (calendar("1d", "2022-01-01 00:00:00Z"), "startTime: found '2022-01-01 00:00:00Z'"),
    "an unknown zone": (
        calendar("1M", "2022-05-01 00:00:00", "Mars/Olympus"),
        "1.yaml:16: spec.timeWindow[0].calendar.timeZone: found 'Mars/Olympus' (a string): time_zone is no time zone",
    ),
    "no objectives": (
        slo("  objectives:\n    - target: 0.995\n", "  objectives: []\n"),
        "1.yaml:19: spec.objectives: found an empty list",
    ),
    "objectives that are no list": (slo("    - target", "    target"), "1.yaml:20: spec.objectives: found a mapping"),
    "no target": (slo("target: 0.995", "displayName: x"), "1.yaml:20: spec.objectives[0]: needs exactly one of target"),
    "two targets": (
        slo("target: 0.995", "{target: 0.9, targetPercent: 90}"),
        "1.yaml:20: spec.objectives[0]: needs exactly one of target",
    ),
    "a target of all": (slo("0.995", "1.0"), "1.yaml:20: spec.objectives[0].target: leaves no error budget"),
    "a target in percent": (slo("0.995", "99.5"), "1.yaml:20: spec.objectives[0].target: found 99.5"),
    "a target of nothing": (slo("0.995", "0"), "1.yaml:20: spec.objectives[0].target: found 0;"),
    "a target that is no number": (slo("0.995", ".nan"), "1.yaml:20: spec.objectives[0].target: found .nan (a number)"),
    "a composite": (
        slo("target: 0.995", "{target: 0.9, compositeWeight: 2, indicatorRef: x}"),
        "1.yaml:20: spec.objectives[0].compositeWeight: belongs to a composite SLO",
    ),
    "slices without timeslices": (
        slo("target: 0.995", "{target: 0.9, timeSliceWindow: 1m}"),
        "1.yaml:20: spec.objectives[0].timeSliceWindow: is of no use",
    ),
    "timeslices without slices": (
        slo("Occurrences", "Timeslices"),
        "1.yaml:20: spec.objectives[0]: timeSliceTarget is missing",
    ),
    "a slice that is too short": (
        slo("- target: 0.995", "- {target: 0.9, timeSliceWindow: 0.1}", of=slo("Occurrences", "RatioTimeslices")),
        "1.yaml:20: spec.objectives[0].timeSliceWindow: found 0.1 (a number): slice_s should be greater",
    ),
    "a value beside a ratio": (slo("target: 0.995", "{target: 0.9, value: 3}"), "[0].value: is of no use"),
    "a ratio to stay below": (slo("target: 0.995", "{target: 0.9, op: lt}"), "[0].op: a good ratio is not below"),
    "a threshold without value": (
        slo("    spec:\n" + RATIO_METRIC, f"    spec: {{thresholdMetric: {SOURCE % 'x'}}}\n"),
        "1.yaml:16: spec.objectives[0]: op and value missing",
    ),
    "an indicator with both metrics": (
        slo("      ratioMetric:", f"      thresholdMetric: {SOURCE % 'x'}\n      ratioMetric:"),
        "1.yaml:11: spec.indicator.spec: needs exactly one of thresholdMetric and ratioMetric",
    ),
    "no indicator": (slo(INDICATOR), "1.yaml:6: spec: needs exactly one of indicator and indicatorRef"),
    "an unknown indicator": (slo(INDICATOR, "  indicatorRef: ok\n"), "1.yaml:8: spec.indicatorRef: there is no SLI"),
    "a ratio of gauges": (slo("counter: true", "counter: false"), "1.yaml:12: spec.indicator.spec.ratioMetric.counter"),
    "a ratio without total": (
        slo(f"        total: {SOURCE % 'requests'}\n"),
        "1.yaml:12: spec.indicator.spec.ratioMetric: needs total",
    ),
    "raw without its type": (slo("        total:", "        raw:"), "ratioMetric: rawType is missing"),
    "another system": (
        slo("type: selfright, spec: {metric: requests}", "type: Datadog, spec: {query: sum}"),
        "1.yaml:14: spec.indicator.spec.ratioMetric.total.metricSource.type: metrics of type 'Datadog' cannot be read",
    ),
    "a source without type": (
        slo("type: selfright, spec: {metric: requests}", "spec: {query: sum}"),
        "1.yaml:14: spec.indicator.spec.ratioMetric.total.metricSource: type is missing",
    ),
    "an unknown data source": (
        slo("type: selfright, spec: {metric: requests}", "metricSourceRef: ours, spec: {metric: requests}"),
        "total.metricSource.metricSourceRef: there is no DataSource 'ours'",
    ),
    "a metric that is no name": (slo("metric: requests", "metric: Requests!"), "spec.metric: found 'Requests!'"),
    "a query that has to be evaluated": (
        slo("type: selfright, spec: {metric: requests}", 'type: prometheus, spec: {query: "rate(selfright_x[5m])"}'),
        "spec.query: 'rate(selfright_x[5m])' (a string) cannot be evaluated here",
    ),
    "a query of other metrics": (
        slo("type: selfright, spec: {metric: requests}", "type: prometheus, spec: {query: nginx_requests_total}"),
        "spec.query: 'nginx_requests_total' (a string) cannot be evaluated here",
    ),
    "a query of a part of a histogram": (
        slo("type: selfright, spec: {metric: requests}", "type: prometheus, spec: {query: selfright_x_seconds_count}"),
        "the recorded metric cannot be told",
    ),
    "an unknown policy": (
        SLO + "  alertPolicies: [{alertPolicyRef: pages}]\n",
        "1.yaml:21: spec.alertPolicies[0].alertPolicyRef: there is no AlertPolicy 'pages'",
    ),
    "an unknown condition": (
        CONDITION.replace("conditionRef: fast", "conditionRef: fats"),
        "1.yaml:9: spec.conditions[0].conditionRef: there is no AlertCondition 'fats' (did you mean 'fast'?)",
    ),
    "a severity that is not ours": (
        CONDITION.replace("severity: page", "severity: sev1"),
        "1.yaml:4: spec.severity: found 'sev1'",
    ),
    "a condition that is no burn rate": (CONDITION.replace("kind: burnrate", "kind: delta"), "condition.kind: found"),
    "an alert that tells others": (
        CONDITION.replace("notificationTargets: []", "notificationTargets: [{targetRef: ops}]"),
        "1.yaml:9: spec.notificationTargets: names who is told",
    ),
    "an alert without data": (
        CONDITION.replace("alertWhenBreaching: true", "alertWhenNoData: true"),
        "1.yaml:9: spec.alertWhenNoData: is true",
    ),
    "an alert that never comes": (
        CONDITION.replace("alertWhenBreaching: true", "alertWhenBreaching: false"),
        "1.yaml:9: spec.alertWhenBreaching: is false",
    ),
    "more than the budget": (
        CONDITION.replace("13.44", "700") + SLO + INLINE,
        "1.yaml:4: spec.condition: spends 1.042 of the budget within its lookbackWindow"
        " (700 x 3600 s / 2.4192e+06 s = 1.04167)",
    ),
    "two delays": (
        CONDITION.replace("alertAfter: 2m", "alertAfter: 0m") + SLO + INLINE,
        "1.yaml:32: spec.alertPolicies: its conditions have different alertAfter (0 s, 120 s)",
    ),
    "an slo twice": (SLO + "---\n" + SLO, "1.yaml:25: metadata.name: there is another SLO 'web-ok' at "),
    "an alias": (
        slo("service: web", "service: &web web\n  # *").replace("name: ok}", "name: *web}"),
        "1.yaml:10: alias *web is refused",
    ),
    "no YAML": (slo("kind: SLO", "kind: [SLO"), "1.yaml:3: is no YAML, at column "),
    "a character that YAML forbids": (slo("Requests", "\x07"), "is no YAML"),
    "depth": ("a: " + "[" * (MAX_DEPTH + 5), f"1.yaml:1: is nested more than {MAX_DEPTH} deep"),
    "size": ("#" * (MAX_BYTES + 1), f"1.yaml: is larger than {MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_taken_is_told_with_its_place(refused, case):
    text, told = WRONG[case]
    problems = refused(text)
    assert any(told in problem for problem in problems), problems


def test_all_problems_of_all_files_come_at_once_in_their_order(refused):
    first = slo("0.995", "2", of=slo("Occurrences", "Sometimes"))
    assert [problem.split(": ")[0] for problem in refused(first, slo("28d", "28x", of=slo("web-ok", "x")))] == [
        "1.yaml:18",
        "1.yaml:20",
        "2.yaml:16",
    ]


def test_a_broken_indicator_is_told_once_however_many_slos_refer_to_it(refused):
    user = slo(INDICATOR, "  indicatorRef: ok\n")
    broken = SLI.replace("type: selfright, spec: {metric: requests}", "type: Datadog, spec: {}")
    problems = refused(user + "---\n" + user.replace("web-ok", "web-2") + "---\n" + broken)
    assert len(problems) == 1


def test_two_slos_that_give_one_name_are_told_apart_by_their_places(refused):
    several = slo("    - target: 0.995\n", "    - target: 0.9\n    - target: 0.99\n")
    (problem,) = refused(several, slo("name: web-ok", "name: web-ok-2"))
    assert problem.startswith("2.yaml:4: metadata.name: gives an objective 'web-ok-2', as ")
    assert "1.yaml:4 does" in problem


def test_aliases_that_unfold_without_end_cost_nothing(refused):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert refused(bomb)[0].startswith("1.yaml:2: alias *a0 is refused")


@pytest.mark.parametrize(("name", "reason"), [("gone.yaml", "No such file"), (".", "no regular file")])
def test_a_file_that_cannot_be_read_is_told(tmp_path, name, reason):
    with pytest.raises(OpenSLOError, match=f"cannot be read: .*{reason}"):
        read_openslo(tmp_path / name)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OpenSLOError, match="no regular file"):
        read_openslo(tmp_path / "pipe")


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(SLO.replace("succeed", "größer").encode("latin-1"))
    with pytest.raises(OpenSLOError, match=r"latin\.yaml:6: is not UTF-8"):
        read_openslo(tmp_path / "latin.yaml")


def test_an_empty_file_holds_nothing(read):
    assert read("# nothing yet\n---\n") == []


def test_a_problem_of_a_whole_file_has_no_line():
    assert (
        str(OpenSLOProblem("a.yaml", 0, "", "is broken", "x", "mend it"))
        == "a.yaml: is broken; allowed: x; do: mend it"
    )


# --- whatever stands in a file ------------------------------------------------------------------------------


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """The SLO with something else in the place of one of its values."""
    document = yaml.safe_load(CONDITION.partition("---")[0]) if draw(st.booleans()) else yaml.safe_load(SLO)
    node, key = document, draw(st.sampled_from(sorted(document)))
    while isinstance(node[key], dict | list) and draw(st.booleans()):
        node = node[key]
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
    node[key] = draw(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.lists(st.integers(), max_size=2),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        )
    )
    return yaml.safe_dump(document, sort_keys=False)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mangled())
def test_any_wrong_value_is_a_problem_with_a_line_and_never_a_crash(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_text(text, "utf-8")
    try:
        read_openslo(path)
    except OpenSLOError as error:
        assert all(problem.line > 0 for problem in error.problems)  # noqa: PT017  either outcome is allowed


# --- what is exported is imported again -------------------------------------------------------------------

whole_minutes = st.integers(1, 1440).map(lambda minutes: minutes * 60.0)
indicators = st.one_of(
    st.builds(
        ThresholdIndicatorSettings,
        kind=st.just("threshold"),
        metric=st.just("queue_length"),
        comparison=st.sampled_from(["<=", "<", ">=", ">"]),
        threshold=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    ),
    st.just(RATIO),
    st.just(RatioIndicatorSettings(kind="ratio", total="requests", bad="errors")),
    st.sampled_from(["success", "failure"]).map(
        lambda of: RawRatioIndicatorSettings(kind="raw_ratio", metric="share", of=of)
    ),
)
windows = st.one_of(
    st.integers(60, 366 * 1440).map(lambda minutes: RollingWindowSettings(kind="rolling", days=minutes / 1440)),
    st.builds(
        CalendarWindowSettings,
        kind=st.just("calendar"),
        unit=st.sampled_from(["day", "week", "month", "quarter", "year"]),
        time_zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    ),
)
methods = st.one_of(
    st.just(OccurrencesSettings(kind="occurrences")),
    st.builds(
        TimeslicesSettings,
        kind=st.just("timeslices"),
        slice_s=whole_minutes,
        slice_objective=st.one_of(st.just(100), st.integers(1, 9999).map(lambda percent: percent / 100)),
    ),
    st.builds(RatioTimeslicesSettings, kind=st.just("ratio_timeslices"), slice_s=whole_minutes),
)


def _named(minutes: int) -> str:
    return window_name(minutes * 60)  # a table has one row of a severity a name


@st.composite
def objectives(draw: st.DrawFn) -> ObjectiveSettings:
    """An objective that OpenSLO has words for, with a table whose rows all make sense."""
    window = draw(windows)
    long_windows = draw(
        st.lists(
            st.integers(1, int(window.length_s) // 1200), min_size=1, max_size=3, unique_by=_named
        )  # a 20th, in min
    )
    rows = tuple(
        BurnAlertSettings(
            severity=draw(st.sampled_from(["page", "ticket"])),
            budget_share=round(draw(st.integers(1, 19)) * minutes * 60 / window.length_s, 9),
            long_s=minutes * 60,
        )
        for minutes in long_windows
    )
    return ObjectiveSettings(
        description=draw(
            st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.just("\n"), max_size=30)
        ),
        service=draw(st.sampled_from([None, "web"])),
        indicator=draw(indicators),
        objective=draw(st.integers(9500, 9999)) / 100,
        windows=(window,),
        method=draw(methods),
        alerting=AlertingSettings(burn_alerts=rows, pending_s=draw(st.sampled_from([0.0, 60.0, 300.0]))),
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objectives())
def test_what_is_exported_is_imported_as_the_same_settings(tmp_path, objective):
    counters = Counters("x_events_total", "x_good_events_total", ("objective", "web-ok"))
    exported = declared_objective(
        "web-ok", objective, alerting=AlertingSettings(), counters=counters, prefix="selfright"
    )
    path = tmp_path / "exported.yaml"
    path.write_text(openslo([exported]).text, "utf-8")
    (imported,) = read_openslo(path)
    assert (imported.name, _without_shares(imported.settings)) == ("web-ok", _without_shares(objective))
    # A document holds burn rates of nine digits, from which the shares are computed again.
    assert _shares(imported.settings) == pytest.approx(_shares(objective), rel=1e-8)


def _shares(objective: ObjectiveSettings) -> list[float]:
    assert objective.alerting is not None
    return [row.budget_share for row in objective.alerting.burn_alerts]


def _without_shares(objective: ObjectiveSettings) -> ObjectiveSettings:
    assert objective.alerting is not None
    rows = tuple(row.model_copy(update={"budget_share": 1.0}) for row in objective.alerting.burn_alerts)
    return objective.model_copy(update={"alerting": objective.alerting.model_copy(update={"burn_alerts": rows})})
