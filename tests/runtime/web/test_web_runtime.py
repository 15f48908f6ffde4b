import re

from modules.contracts.health import HealthStatus


async def test_liveness_answers_whatever_the_services_do(make_parts, client_of):
    parts = make_parts(state="draining")
    parts.monitor.change("api", status=HealthStatus.UNHEALTHY)
    async with client_of(parts) as client:
        answer = await client.get("/healthz")
        head = await client.head("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"alive": True, "state": "draining"})
    assert (head.status_code, head.content) == (200, b"")


async def test_a_running_deployment_whose_services_were_all_checked_is_ready_even_if_one_is_ill(parts, client_of):
    parts.monitor.change("api", status=HealthStatus.UNHEALTHY)
    async with client_of(parts) as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (200, [])


async def test_readiness_names_each_service_that_was_not_checked_or_cannot_be_probed(parts, client_of):
    parts.monitor.change("api", last=None, status=HealthStatus.STARTING)
    parts.monitor.change("store", status=HealthStatus.UNKNOWN)
    async with client_of(parts) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "state": "running",
        "reasons": ["api has not been checked yet", "the health of store is unknown: 200 OK"],
    }


async def test_a_deployment_that_starts_or_drains_is_not_ready(parts, client_of):
    async with client_of(parts) as client:
        for state in ("starting", "draining", "stopped"):
            parts.state = state
            answer = await client.get("/readyz")
            assert (503, [f"the runtime is {state}"]) == (answer.status_code, answer.json()["reasons"])


async def test_metrics_come_in_the_format_that_the_scraper_accepts(parts, client_of):
    async with client_of(parts) as client:
        text = await client.get("/metrics")
        openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert (
        text.headers["content-type"],
        text.content,
    ) == ("text/plain; version=0.0.4; charset=utf-8", b"selfright_up 1\n")
    assert openmetrics.content == b"# EOF\n"


async def test_without_monitoring_the_answer_says_how_to_get_metrics(make_parts, client_of):
    async with client_of(make_parts(collector=None)) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 404
    assert "monitoring=none" in answer.json()["error"]["message"]


async def test_status_describes_every_service_and_component(parts, client_of):
    async with client_of(parts) as client:
        status = (await client.get("/api/v1/status")).json()
    assert [service["name"] for service in status["services"]] == ["api", "store", "worker"]
    assert status["services"][1]["process"]["pid"] == 4242
    assert status["components"] == {"monitor": {"state": "running", "detail": "3 services"}}


async def test_the_root_leads_to_pages_that_are_there(parts, client_of):
    async with client_of(parts) as client:
        links = (await client.get("/")).json()["links"]
        for name, path in links.items():
            if name != "events":  # a stream without end
                assert (await client.get(path)).status_code == 200, path
        assert links["events"] in (await client.get("/openapi.json")).json()["paths"]


async def test_all_that_the_documentation_page_loads_is_there(parts, client_of):
    async with client_of(parts) as client:
        page = (await client.get("/docs")).text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(loaded) == 5
        for path in loaded:
            assert (await client.get(f"/{path}")).status_code == 200, path


async def test_every_route_and_field_is_described_and_every_error_has_the_one_shape(parts, client_of):
    async with client_of(parts) as client:
        api = (await client.get("/openapi.json")).json()
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            assert route["summary"], f"{method} {path}"
            for status, answer in route["responses"].items():
                if status[0] in "45" and path != "/readyz":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, f"{method} {path} {status}"
    assert all(model.get("description") for model in api["components"]["schemas"].values())
