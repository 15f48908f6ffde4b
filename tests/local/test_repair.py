from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from modules.contracts.errors import ConfigurationError, DuplicateServiceError, RepairError, SelfrightError
from modules.contracts.health import Decision, RepairContext, RepairOptions, RepairPhase, Rung
from modules.local.actions import FunctionAction, RestartAction
from modules.local.ladder import LocalCaps
from runtime.simulation.loop import virtual_time

QUICK = {"interval_s": 1.0, "fall": 1}
EAGER = RepairOptions(backoff_base_s=0, healthy_delay_s=1, verify_timeout_s=3)


def rung(run: Callable[[RepairContext], Awaitable[str | None]], **limits: float) -> Rung:
    return Rung(FunctionAction(run), **limits)


@virtual_time
async def test_an_incident_runs_from_failure_to_verified_recovery_and_tells_its_story(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    async def mend(context: RepairContext) -> str:
        bench.well["api"] = True
        return f"mended {context.service}"

    repairer.register_service("api", [mend], options=RepairOptions(verify_passes=2, healthy_delay_s=2))
    await repairer.start()
    await bench.monitor.start()
    await asyncio.sleep(2)
    bench.well["api"] = False
    await asyncio.sleep(10)
    story = [kind for kind in bench.story() if kind != "health_changed"]
    assert story == ["incident_opened", "repair_started", "repair_ended", "incident_closed"]
    ended, closed = bench.told("repair_ended", "incident_closed")
    assert (ended.outcome, ended.detail, ended.attempt) == ("done", "mended api", 1)
    assert closed.actions == 1
    assert closed.duration_s >= 2
    assert repairer.get_status("api").phase is RepairPhase.IDLE
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_each_rung_has_its_attempts_and_the_next_one_follows_when_it_did_not_help(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    climbed: list[str] = []

    async def first(context: RepairContext) -> None:
        climbed.append(f"first {context.attempt}")

    async def second(context: RepairContext) -> None:
        climbed.append(f"second {context.attempt}")
        bench.well["api"] = True

    repairer.register_service("api", [rung(first, attempts=2), rung(second)], options=EAGER)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(30)
    assert climbed == ["first 1", "first 2", "second 3"]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_ladder_that_did_not_help_gives_up_loudly_and_closes_when_the_service_recovers_by_itself(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    runs = []

    async def useless(context: RepairContext) -> None:
        runs.append(context.attempt)

    repairer.register_service("api", [useless], options=EAGER)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(600)
    assert runs == [1]
    assert [event.attempts for event in bench.told("repair_gave_up")] == [1]
    assert repairer.get_status("api").phase is RepairPhase.GAVE_UP
    bench.well["api"] = True
    await asyncio.sleep(10)
    assert bench.told("incident_closed")
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_the_wait_before_a_further_attempt_is_drawn_below_a_bound_that_doubles(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    runs: list[float] = []

    async def useless(context: RepairContext) -> None:
        runs.append(bench.clock.monotonic())
        raise RepairError("did not work")

    options = RepairOptions(backoff_base_s=8, backoff_max_s=20, attempts_per_interval=100)
    repairer.register_service("api", [rung(useless, attempts=60)], options=options)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(2000)
    gaps = [later - earlier for earlier, later in pairwise(runs)]
    assert len(gaps) == 59
    assert gaps[0] <= 8
    assert gaps[1] <= 16
    assert 15 < max(gaps) <= 20.001  # capped, and the whole range is used
    assert min(gaps) < 5  # full jitter
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_no_more_rung_runs_than_are_allowed_in_an_interval(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    runs: list[float] = []

    async def useless(context: RepairContext) -> None:
        runs.append(bench.clock.monotonic())
        raise RepairError("did not work")

    options = RepairOptions(backoff_base_s=0, attempts_per_interval=3, attempts_interval_s=100)
    repairer.register_service("api", [rung(useless, attempts=9)], options=options)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(400)
    assert len(runs) == 9
    assert all(later - earlier >= 100 for earlier, later in zip(runs, runs[3:], strict=False))
    reasons = [event.reason for event in bench.told("repair_gave_up")]
    assert reasons == ["3 runs in 100 s are the most that is allowed; it goes on by itself"] * 2 + [
        "no rung of the ladder helped"
    ]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_rung_that_does_not_end_is_cancelled_at_its_timeout(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    cancelled = []

    async def hang(context: RepairContext) -> None:
        try:
            await asyncio.sleep(10_000)
        finally:
            cancelled.append(True)

    repairer.register_service("api", [rung(hang, timeout_s=5)])
    await repairer.start()
    report = await repairer.repair("api")
    ended = bench.told("repair_ended")[0]
    assert (ended.outcome, ended.duration_s, cancelled) == ("timed_out", pytest.approx(5), [True])
    assert not report.repaired
    await repairer.stop()


@virtual_time
async def test_the_fault_of_a_dependency_is_not_repaired_at_its_dependents(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("db", **QUICK)
    bench.watch("api", **QUICK, depends_on=("db",))
    ran = []

    async def mend(context: RepairContext) -> None:
        ran.append(context.service)
        bench.well.update(db=True, api=True)

    for name in ("db", "api"):
        repairer.register_service(name, [mend], options=EAGER)
    await repairer.start()
    await bench.monitor.start()
    await asyncio.sleep(3)
    bench.well.update(db=False, api=False)
    await asyncio.sleep(20)
    assert ran == ["db"]
    assert {event.rule for event in bench.told("repair_skipped")} <= {"affected"}
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_the_caps_hold_when_everything_fails_at_once(make_bench):
    bench = make_bench()
    repairer = bench.repairer(caps=LocalCaps(max_concurrent=3, max_unhealthy=20))
    at_work, most, under_repair = set(), [0], [0]

    async def slow(context: RepairContext) -> None:
        at_work.add(context.service)
        most[0] = max(most[0], len(at_work))
        await asyncio.sleep(2)
        at_work.discard(context.service)
        bench.well[context.service] = True

    names = [f"s{number}" for number in range(20)]
    for name in names:
        bench.watch(name, **QUICK)
        bench.well[name] = False
        repairer.register_service(name, [slow], options=EAGER)

    def count(event: object) -> None:
        busy = [repairer.get_status(name).phase for name in names]
        under_repair[0] = max(
            under_repair[0], sum(phase in (RepairPhase.RUNNING, RepairPhase.VERIFYING) for phase in busy)
        )

    bench.events.listen(count)
    await repairer.start()
    await bench.monitor.start()
    await asyncio.sleep(200)
    assert len(bench.told("incident_closed")) == 20
    assert most[0] == 3
    assert under_repair[0] <= 4  # 20 percent of 20
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_paused_service_is_not_repaired_until_it_is_resumed(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    ran = []

    async def mend(context: RepairContext) -> None:
        ran.append(1)
        bench.well["api"] = True

    repairer.register_service("api", [mend], options=EAGER)
    await repairer.start()
    repairer.pause()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(60)
    assert ran == []
    assert [event.rule for event in bench.told("repair_skipped")] == ["paused"]
    repairer.resume()
    await asyncio.sleep(10)
    assert ran == [1]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_person_may_have_a_healthy_service_repaired_and_is_told_how_it_went(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    async def renew(context: RepairContext) -> str:
        return f"because {context.reason}"

    repairer.register_service("api", [renew], options=EAGER)
    report = await repairer.repair("api", "new certificate")
    assert report.repaired
    assert report.actions == (repairer.get_status("api").rungs[0],)
    assert bench.told("repair_ended")[0].detail == "because new certificate"


@virtual_time
async def test_an_order_goes_past_a_pause_and_an_order_without_a_rung_is_refused(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    bench.watch("web", **QUICK)

    async def renew(context: RepairContext) -> None: ...

    repairer.register_service("api", [renew], options=EAGER)
    repairer.register_service("web", [])
    repairer.pause()
    assert (await repairer.repair("api")).repaired
    with pytest.raises(RepairError, match="'web' has no rung"):
        await repairer.repair("web")


@virtual_time
async def test_what_is_affected_meanwhile_leaves_its_place_to_the_root(make_bench):
    bench = make_bench()
    repairer = bench.repairer(caps=LocalCaps(max_concurrent=1, max_unhealthy=50))
    bench.watch("db", **QUICK)
    bench.watch("api", **QUICK, depends_on=("db",))
    ran: list[str] = []

    async def mend(context: RepairContext) -> None:
        await asyncio.sleep(0.1)
        ran.append(context.service)
        if context.service == "db":
            bench.well.update(db=True, api=True)
        else:
            bench.well["db"] = False

    for name in ("db", "api"):
        repairer.register_service(name, [rung(mend, attempts=3)], options=EAGER)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(60)
    assert ran == ["api", "db"]
    assert len(bench.told("incident_closed")) == 2
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_person_may_send_the_repairer_up_the_ladder_again_after_it_gave_up(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    works = []

    async def mend(context: RepairContext) -> None:
        bench.well["api"] = bool(works)

    repairer.register_service("api", [mend], options=EAGER)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(30)
    assert not (await repairer.repair("api")).repaired
    works.append(True)
    assert (await repairer.repair("api")).repaired
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_dry_run_decides_and_tells_but_runs_nothing(make_bench):
    bench = make_bench()
    repairer = bench.repairer(dry_run=True)
    bench.watch("api", **QUICK)
    ran = []

    async def mend(context: RepairContext) -> None:
        ran.append(1)

    repairer.register_service("api", [mend])
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(60)
    assert ran == []
    assert [event.dry_run for event in bench.told("repair_started")] == [True]
    assert bench.told("repair_gave_up")[0].reason == "this is a dry run"
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_an_incident_soon_after_another_uses_up_what_is_left_of_the_ladder_and_later_ones_begin_anew(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    climbed: list[str] = []

    async def first(context: RepairContext) -> None:
        climbed.append("first")

    async def second(context: RepairContext) -> None:
        climbed.append("second")
        bench.well["api"] = True

    options = RepairOptions(backoff_base_s=0, healthy_delay_s=1, verify_timeout_s=3, stable_s=100)
    repairer.register_service("api", [first, rung(second, attempts=2)], options=options)
    await repairer.start()
    await bench.monitor.start()
    for pause in (2, 50, 50):
        await asyncio.sleep(pause)
        bench.well["api"] = False
        await asyncio.sleep(20)
    assert climbed == ["first", "second", "second"]
    assert len(bench.told("incident_opened")) == 3
    assert len(bench.told("repair_gave_up")) == 1
    bench.well["api"] = True
    await asyncio.sleep(150)
    bench.well["api"] = False
    await asyncio.sleep(20)
    assert climbed == ["first", "second", "second", "first", "second"]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_what_a_rung_restarts_with_its_root_has_no_incident_of_its_own_for_being_stopped(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("db", **QUICK)
    bench.watch("api", **QUICK)

    class Processes:
        names = ("db", "api")

        async def stop_process(self, name: str) -> None:
            bench.well[name] = False
            await asyncio.sleep(3)

        async def start_process(self, name: str) -> None:
            await asyncio.sleep(3)
            bench.well[name] = True

    repairer.register_service("db", [RestartAction(("db", "api"), Processes())], options=EAGER)
    repairer.register_service("api", [], options=EAGER)
    await repairer.start()
    await bench.monitor.start()
    await asyncio.sleep(2)
    bench.well["db"] = False
    await asyncio.sleep(30)
    assert [event.service for event in bench.told("incident_opened")] == ["db"]
    assert bench.told("incident_closed")
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_failed_service_that_must_not_be_repaired_has_an_incident_that_says_why(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    class Policy:
        rule = "flapping"

        def decide(self, health: object) -> Decision:
            return Decision(False, self.rule, "not now")

    async def unused(context: RepairContext) -> None:
        raise AssertionError

    policy = Policy()
    repairer.set_policy(policy)
    repairer.register_service("api", [unused], options=EAGER)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(20)
    (opened,), (skipped,) = bench.told("incident_opened"), bench.told("repair_skipped")
    assert (skipped.rule, skipped.incident) == ("flapping", opened.incident)
    bench.well["api"] = True
    await asyncio.sleep(10)
    assert [event.actions for event in bench.told("incident_closed")] == [0]
    policy.rule = "maintenance"
    bench.well["api"] = False
    await asyncio.sleep(20)
    assert len(bench.told("incident_opened")) == 1
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_service_that_waits_for_long_leaves_its_place_under_repair_to_others(make_bench):
    bench = make_bench()
    repairer = bench.repairer(caps=LocalCaps(max_unhealthy=50))
    bench.watch("api", **QUICK)
    bench.watch("web", **QUICK)

    async def useless(context: RepairContext) -> None:
        raise RepairError("did not work")

    async def mend(context: RepairContext) -> None:
        bench.well["web"] = True

    slow = RepairOptions(backoff_base_s=0, cooldown_s=5000)
    repairer.register_service("api", [rung(useless, attempts=3)], options=slow)
    repairer.register_service("web", [mend], options=EAGER)
    await repairer.start()
    await bench.monitor.start()
    await asyncio.sleep(2)
    bench.well["api"] = False
    await asyncio.sleep(5)
    bench.well["web"] = False
    await asyncio.sleep(10)
    assert [event.service for event in bench.told("incident_closed")] == ["web"]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_stop_interrupts_a_running_rung_says_so_and_leaves_no_task(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    async def hang(context: RepairContext) -> None:
        await asyncio.sleep(10_000)

    repairer.register_service("api", [rung(hang, timeout_s=1000)])
    await repairer.stop()
    await repairer.start()
    order = asyncio.create_task(repairer.repair("api"))
    await asyncio.sleep(1)
    await repairer.stop()
    await repairer.stop()
    with pytest.raises(SelfrightError, match="stopped"):
        await order
    with pytest.raises(SelfrightError, match="stopped"):
        await repairer.repair("api")
    assert [event.outcome for event in bench.told("repair_ended")] == ["interrupted"]
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_service_without_a_rung_opens_an_incident_that_is_given_up_at_once(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    repairer.register_service("api", [])
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(3)
    assert [event.reason for event in bench.told("repair_gave_up")] == ["it has no rung to try"]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_registration_refuses_what_is_no_rung_and_wrong_options(make_bench):
    repairer = make_bench().repairer()

    async def mend(context: RepairContext) -> None: ...

    with pytest.raises(ConfigurationError, match="rung 2 of 'api'"):
        repairer.register_service("api", [mend, lambda context: None])
    with pytest.raises(ConfigurationError, match="attempts"):
        repairer.register_service("api", [rung(mend, attempts=0)])
    with pytest.raises(ConfigurationError, match="verify_passes"):
        repairer.register_service("api", [mend], options=RepairOptions(verify_passes=0))
    with pytest.raises(ConfigurationError, match="backoff_base_s"):
        repairer.register_service("api", [mend], options=RepairOptions(backoff_base_s=float("nan")))
    assert repairer.services == ()
    repairer.register_service("api", [mend])
    with pytest.raises(DuplicateServiceError, match="'api'"):
        repairer.register_service("api", [mend])


@virtual_time
async def test_a_policy_that_fails_is_reported_and_the_next_result_tries_again(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    @dataclass
    class Broken:
        calls: int = 0

        def decide(self, health: object) -> object:
            self.calls += 1
            raise ValueError("policy broke")

    policy = Broken()
    repairer.set_policy(policy)
    repairer.register_service("api", [])
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(5)
    assert policy.calls > 1
    assert "policy broke" in bench.told("component_failed")[0].message
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_recovery_counts_after_so_many_passes_in_a_row(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)

    async def mend(context: RepairContext) -> None:
        bench.checks["api"].clear()

    repairer.register_service("api", [mend], options=RepairOptions(verify_passes=5, healthy_delay_s=0))
    assert (await repairer.repair("api")).repaired
    assert len(bench.checks["api"]) == 5


@virtual_time
async def test_a_service_that_fails_again_within_its_healthy_delay_has_not_been_helped(make_bench):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    climbed: list[str] = []

    async def patch(context: RepairContext) -> None:
        climbed.append("patch")
        bench.well["api"] = True
        asyncio.get_running_loop().call_later(2, bench.well.update, {"api": False})

    async def renew(context: RepairContext) -> None:
        climbed.append("renew")
        bench.well["api"] = True

    options = RepairOptions(backoff_base_s=0, healthy_delay_s=5, verify_timeout_s=60)
    repairer.register_service("api", [patch, renew], options=options)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(30)
    assert climbed == ["patch", "renew"]
    assert len(bench.told("incident_closed")) == 1
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
async def test_a_restart_begins_the_startup_grace_of_what_it_restarted(make_bench):
    class Processes:
        async def restart(self, name: str) -> None:
            bench.well["api"] = False
            asyncio.get_running_loop().call_later(4, bench.well.update, {"api": True})

    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", interval_s=1.0, fall=1, startup_grace_s=10)
    repairer.register_service("api", [RestartAction(("api",), Processes())])
    await repairer.start()
    await bench.monitor.check_health("api")
    await bench.monitor.start()
    assert (await repairer.repair("api")).repaired
    assert [event.current for event in bench.told("health_changed")] == ["healthy", "starting", "healthy"]
    await repairer.stop()
    await bench.monitor.stop()


@virtual_time
@pytest.mark.parametrize(
    ("options", "skip_backoff", "expected"),
    [
        (RepairOptions(backoff_base_s=0, cooldown_s=30), False, [30, 30, 30]),
        (RepairOptions(backoff_base_s=5000, backoff_max_s=5000), True, [0]),
    ],
)
async def test_cooldown_holds_up_every_run_and_a_policy_may_skip_the_first_backoff(
    make_bench, options, skip_backoff, expected
):
    bench = make_bench()
    repairer = bench.repairer()
    bench.watch("api", **QUICK)
    runs: list[float] = []

    class Policy:
        def decide(self, health: object) -> Decision:
            return Decision(True, "always", "it is to be repaired", skip_backoff=skip_backoff)

    async def useless(context: RepairContext) -> None:
        runs.append(bench.clock.monotonic())
        raise RepairError("did not work")

    repairer.set_policy(Policy())
    repairer.register_service("api", [rung(useless, attempts=4)], options=options)
    await repairer.start()
    bench.well["api"] = False
    await bench.monitor.start()
    await asyncio.sleep(200)
    gaps = [later - earlier for earlier, later in pairwise(runs)]
    assert gaps == pytest.approx(expected, abs=1)
    await repairer.stop()
    await bench.monitor.stop()
