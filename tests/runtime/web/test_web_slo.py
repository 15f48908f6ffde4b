"""What the admin API says of objectives."""

import math

import pytest

from modules.contracts.slo import BurnAlertState, MemberReport, ObjectiveReport, SLOStatus, WindowReport

SPENT = ObjectiveReport(
    name="checkout",
    description="Orders go through",
    service="api",
    objective=99.0,
    method="occurrences",
    status=SLOStatus.VIOLATED,
    sli=98.0,
    error_budget_remaining=-100.0,
    burn_rates={"5m": 3.0, "1h": 2.0},
    value=0.7,
    windows=(
        WindowReport("30d", "rolling", 1000.0, None, 980.0, 1000.0, 98.0, -100.0, SLOStatus.VIOLATED),
        WindowReport("month", "calendar", 2000.0, 3000.0, 0.0, 0.0, None, None, SLOStatus.NO_DATA),
    ),
    projected_exhaustion_s=0.0,
    alerts=(BurnAlertState("checkout", "api", "page", "firing", "1h", 14.4, 20.0, 2500.0),),
)
SILENT = ObjectiveReport(
    name="all-shops",
    description="",
    service=None,
    objective=99.9,
    method="timeslices",
    status=SLOStatus.NO_DATA,
    sli=None,
    error_budget_remaining=None,
    burn_rates={},
    value=None,
    windows=(WindowReport("30d", "rolling", 1000.0, None, 0, 0, None, None, SLOStatus.NO_DATA),),
    members=(MemberReport("checkout", 2.0, 98.0),),
)


@pytest.fixture
def slo_parts(make_parts):
    return make_parts(
        objectives=lambda: {report.name: report for report in (SPENT, SILENT)},
        budget_steps=lambda: {"checkout": ("tighten", "freeze")},
    )


async def get(client_of, parts, path, **query):
    async with client_of(parts) as client:
        return await client.get(path, params=query)


async def test_an_objective_shows_status_budget_burn_windows_alerts_and_steps(slo_parts, client_of):
    view = (await get(client_of, slo_parts, "/api/v1/slo/checkout")).json()
    assert (view["status"], view["sli"], view["error_budget_remaining"]) == ("violated", 98.0, -100.0)
    assert view["burn_rates"] == {"5m": 3.0, "1h": 2.0}
    assert view["projected_exhaustion_s"] == 0.0
    assert [(w["name"], w["total"], w["ends_at"], w["status"]) for w in view["windows"]] == [
        ("30d", 1000.0, None, "violated"),
        ("month", 0.0, 3000.0, "no_data"),
    ]
    assert view["alerts"] == [
        {"severity": "page", "state": "firing", "window": "1h", "factor": 14.4, "burn_rate": 20.0, "since": 2500.0}
    ]
    assert view["budget_steps"] == ["tighten", "freeze"]


async def test_without_data_nothing_is_claimed(slo_parts, client_of):
    view = (await get(client_of, slo_parts, "/api/v1/slo/all-shops")).json()
    assert view["status"] == "no_data"
    assert view["sli"] is view["error_budget_remaining"] is view["projected_exhaustion_s"] is None
    assert view["members"] == [{"name": "checkout", "weight": 2.0, "sli": 98.0}]
    assert (view["burn_rates"], view["alerts"], view["budget_steps"]) == ({}, [], [])


async def test_all_objectives_come_by_name_at_the_present_time(slo_parts, client_of):
    page = (await get(client_of, slo_parts, "/api/v1/slo")).json()
    assert [view["name"] for view in page["objectives"]] == ["all-shops", "checkout"]
    assert page["now"] == pytest.approx(slo_parts.clock.time(), abs=60)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"service": "api"}, ["checkout"]),
        ({"status": "no_data"}, ["all-shops"]),
        ({"service": "api", "status": "no_data"}, []),
    ],
)
async def test_the_list_is_narrowed_by_service_and_status(slo_parts, client_of, query, names):
    page = (await get(client_of, slo_parts, "/api/v1/slo", **query)).json()
    assert [view["name"] for view in page["objectives"]] == names


async def test_a_status_that_there_is_not_is_refused_with_those_there_are(slo_parts, client_of):
    answer = await get(client_of, slo_parts, "/api/v1/slo", status="green")
    assert answer.status_code == 422
    assert "'no_data'" in answer.json()["error"]["message"]


async def test_an_unknown_objective_is_answered_with_the_nearest_name(slo_parts, client_of):
    answer = await get(client_of, slo_parts, "/api/v1/slo/chekout")
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (404, "unknown_objective")
    assert "did you mean 'checkout'?" in error["message"]
    assert error["allowed"] == ["all-shops", "checkout"]


async def test_a_message_does_not_list_hundreds_of_names(make_parts, client_of):
    parts = make_parts(objectives=lambda: {f"o{number:03}": SILENT for number in range(500)})
    error = (await get(client_of, parts, "/api/v1/slo/x")).json()["error"]
    assert "o019 and 480 more" in error["message"]
    assert len(error["allowed"]) == 500


async def test_without_objectives_the_list_is_empty_and_the_refusal_says_where_to_declare_one(parts, client_of):
    assert (await get(client_of, parts, "/api/v1/slo")).json()["objectives"] == []
    error = (await get(client_of, parts, "/api/v1/slo/checkout")).json()["error"]
    assert "slo.objectives" in error["message"]


async def test_a_number_that_json_does_not_know_is_null(make_parts, client_of):
    endless = ObjectiveReport(
        **{field: getattr(SPENT, field) for field in ObjectiveReport.__slots__} | {"projected_exhaustion_s": math.inf}
    )
    parts = make_parts(objectives=lambda: {"checkout": endless})
    assert (await get(client_of, parts, "/api/v1/slo/checkout")).json()["projected_exhaustion_s"] is None


async def test_the_steps_in_force_are_in_the_status_of_the_deployment(slo_parts, client_of):
    status = (await get(client_of, slo_parts, "/api/v1/status")).json()
    assert status["budget_steps"] == {"checkout": ["tighten", "freeze"]}
