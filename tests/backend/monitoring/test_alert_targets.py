"""Real deliveries: a webhook and an apprise call against a server on the loopback address."""

import asyncio
import logging
import socket

import pytest
from aiohttp import web

from backend.shared.monitoring.alert_notice import Alert, Notice, Subject
from backend.shared.monitoring.alert_settings import AlertSettings
from backend.shared.monitoring.alert_targets import DeliveryError, build_targets
from backend.shared.monitoring.alerts import AlertManager
from modules.contracts.alerts import AlertState
from modules.contracts.clock import SystemClock
from modules.contracts.errors import ConfigurationError
from modules.contracts.events import AlertFailed, EventBus, IncidentClosed, RepairGaveUp

# apprise loads all of its plug-ins at once, and one of them imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOTICE = Notice(
    Alert(
        Subject("api/api-1", "ServiceIncident", "page", "api", incident="api-1"),
        AlertState.FIRING,
        "gave up on api",
        1_795_000_000.0,
    )
)


class Receiver:
    """An HTTP server that keeps what is posted to it and answers as it is told."""

    def __init__(self):
        self.posts = []
        self.status = 200
        self.hang = False
        self._arrived = asyncio.Event()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _post(self, request):
        self.posts.append((request.path, dict(request.headers), await request.json()))
        self._arrived.set()
        if self.hang:
            await asyncio.sleep(1)
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    async def posted(self, count):
        async with asyncio.timeout(5):
            while len(self.posts) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return [body for _, _, body in self.posts]


def targets(*settings, timeout_s=2.0):
    return build_targets(AlertSettings(targets=settings).targets, timeout_s=timeout_s)


@pytest.fixture
async def receiver():
    async with Receiver() as receiver:
        yield receiver


async def test_a_webhook_receives_the_alert_as_json_with_its_headers(receiver):
    (target,) = targets(
        {"kind": "webhook", "url": f"http://127.0.0.1:{receiver.port}/hook", "headers": {"X-Token": "abc"}}
    )
    await target.send(NOTICE)
    await target.close()
    await target.close()
    ((path, headers, body),) = receiver.posts
    assert (path, headers["X-Token"], body) == ("/hook", "abc", NOTICE.as_dict())


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_webhook_that_answers_anything_but_success_has_failed(receiver, status):
    receiver.status = status
    (target,) = targets({"kind": "webhook", "url": f"http://127.0.0.1:{receiver.port}/token"})
    with pytest.raises(DeliveryError, match=f"HTTP status {status}, expected 2xx"):
        await target.send(NOTICE)
    await target.close()
    assert len(receiver.posts) == 1


async def test_a_webhook_that_cannot_be_reached_says_why_and_not_where():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (target,) = targets({"kind": "webhook", "url": f"http://127.0.0.1:{port}/token"})
    with pytest.raises(DeliveryError, match="cannot connect") as failed:
        await target.send(NOTICE)
    await target.close()
    assert "refused" in str(failed.value).lower() or "Connect call failed" in str(failed.value)
    assert "token" not in str(failed.value)


async def test_apprise_delivers_with_title_text_and_type(receiver):
    (target,) = targets({"kind": "apprise", "url": f"json://127.0.0.1:{receiver.port}/token"})
    await target.send(NOTICE)
    (body,) = await receiver.posted(1)
    assert (body["title"], body["type"]) == ("[firing] api", "failure")
    assert body["message"].startswith("gave up on api\npage, since 2026-11-18T11:")


async def test_apprise_says_that_it_failed_and_no_log_line_holds_its_address(receiver, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.status = 403
    (target,) = targets({"kind": "apprise", "url": f"json://user:hunter2@127.0.0.1:{receiver.port}/s3cr3t"})
    with pytest.raises(DeliveryError, match="did not take it") as failed:
        await target.send(NOTICE)
    logged = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    assert not [text for text in (*logged, str(failed.value), repr(target)) if "s3cr3t" in text or "hunter2" in text]


@pytest.mark.parametrize("url", ["nonsense", "unknown://s3cr3t", "tgram://"])
def test_an_apprise_url_that_cannot_be_used_is_refused_at_once_without_showing_it(url, caplog):
    with pytest.raises(ConfigurationError, match="alert target 'pager': apprise does not know its URL") as refused:
        targets({"kind": "apprise", "url": url, "name": "pager"})
    assert "s3cr3t" not in str(refused.value) + caplog.text


def test_a_missing_apprise_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    with pytest.raises(ConfigurationError, match=r"needs apprise.*pip install apprise"):
        targets({"kind": "apprise", "url": "json://127.0.0.1"})


def test_targets_of_one_name_are_numbered():
    hook = {"kind": "webhook", "url": "http://127.0.0.1/"}
    assert [target.name for target in targets(hook, hook, {**hook, "name": "ops"})] == ["webhook", "webhook-2", "ops"]


async def test_an_incident_reaches_both_targets_from_the_bus_to_the_wire(receiver):
    base = f"127.0.0.1:{receiver.port}"
    events = EventBus()
    settings = AlertSettings(
        targets=(
            {"kind": "webhook", "url": f"http://{base}/hook"},
            {"kind": "apprise", "url": f"json://{base}/apprise"},
        )
    )
    manager = AlertManager(settings, clock=SystemClock(), events=events)
    await manager.start()
    events.publish(RepairGaveUp(service="api", incident="api-1", attempts=2, reason="no rung left"))
    await receiver.posted(2)
    events.publish(IncidentClosed(service="api", incident="api-1", duration_s=3.0, actions=2))
    await manager.stop()
    by_path = {
        path: [body.get("status", body.get("type")) for at, _, body in receiver.posts if at == path]
        for path in ("/hook", "/apprise")
    }
    assert by_path == {"/hook": ["firing", "resolved"], "/apprise": ["failure", "success"]}


async def test_a_server_that_never_answers_is_given_up_at_the_timeout_by_both(receiver):
    receiver.hang = True
    base = f"127.0.0.1:{receiver.port}"
    events = EventBus()
    failed = asyncio.Queue()
    events.listen(lambda event: failed.put_nowait(event) if isinstance(event, AlertFailed) else None)
    settings = AlertSettings(
        targets=({"kind": "webhook", "url": f"http://{base}/"}, {"kind": "apprise", "url": f"json://{base}/"}),
        timeout_s=0.1,
        retries=0,
    )
    manager = AlertManager(settings, clock=SystemClock(), events=events)
    await manager.start()
    events.publish(RepairGaveUp(service="api", incident="api-1", attempts=2, reason="no rung left"))
    async with asyncio.timeout(5):
        given_up = {(await failed.get()).target, (await failed.get()).target}
    await manager.stop()
    assert given_up == {"webhook", "apprise"}
