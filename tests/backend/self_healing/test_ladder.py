"""The repair ladder: rungs in turn, bounded waits, verification, memory, and the way through a restart."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.self_healing.ladder import Close, GiveUp, Ladder, Run, Wait
from modules.contracts.errors import StateError
from modules.contracts.health import RepairOptions, RepairPhase, RungOutcome

OPTIONS = RepairOptions(
    backoff_base_s=1, backoff_max_s=8, verify_passes=2, healthy_delay_s=5, verify_timeout_s=15, stable_s=600
)
DONE, FAILED, INTERRUPTED = RungOutcome.DONE, RungOutcome.FAILED, RungOutcome.INTERRUPTED


def opened(attempts=(1, 1), options=OPTIONS, now=0.0):
    ladder = Ladder(attempts, options, random.Random(7))
    ladder.begin_incident("api-1", "it failed", now)
    return ladder


def run(ladder, now, outcome=DONE):
    """Wait for the due rung, run it, and return the run with the time of its end."""
    step = ladder.step(now)
    while isinstance(step, Wait):
        assert step.until is not None
        now = step.until
        step = ladder.step(now)
    assert isinstance(step, Run), step
    begun = ladder.begin_run(now)
    assert begun == step
    ladder.finish_run(outcome, now + 1)
    return begun, now + 1


def heal(ladder, now, options=OPTIONS):
    for _ in range(options.verify_passes):
        ladder.observe(True, now)
    ladder.observe(True, now + options.healthy_delay_s)
    return ladder.step(now + options.healthy_delay_s)


def test_the_first_attempt_does_not_wait():
    assert opened().step(0.0) == Run(rung=0, attempt=1)


def test_a_rung_that_does_not_help_is_followed_by_its_next_attempt_and_then_by_the_next_rung():
    ladder, now, runs = opened((2, 1)), 0.0, []
    for _ in range(3):
        begun, now = run(ladder, now)
        runs.append((begun.rung, begun.attempt))
    assert runs == [(0, 1), (0, 2), (1, 1)]
    assert isinstance(ladder.step(now + 15), GiveUp)


def test_a_rung_that_failed_is_not_verified():
    ladder = opened()
    run(ladder, 0.0, FAILED)
    assert ladder.phase is RepairPhase.WAITING
    assert ladder.rung == 1


def test_a_rung_has_helped_only_after_its_passes_and_the_healthy_delay():
    ladder = opened()
    _, now = run(ladder, 0.0)
    ladder.observe(True, now)
    assert isinstance(ladder.step(now), Wait)
    ladder.observe(True, now + 1)
    assert ladder.step(now + 1).until == now + 1 + OPTIONS.healthy_delay_s
    ladder.observe(True, now + 6)
    assert ladder.step(now + 6) == Close("api-1", duration_s=now + 6, actions=1)
    assert ladder.phase is RepairPhase.IDLE


def test_the_end_of_the_healthy_delay_is_seen_not_assumed():
    ladder = opened()
    _, now = run(ladder, 0.0)
    ladder.observe(True, now)
    ladder.observe(True, now)
    assert ladder.step(now + 60).look
    ladder.observe(True, now + 60)
    assert isinstance(ladder.step(now + 60), Close)


def test_a_failure_within_the_healthy_delay_begins_verification_again():
    ladder = opened()
    _, now = run(ladder, 0.0)
    ladder.observe(True, now)
    ladder.observe(True, now)
    ladder.observe(False, now + 4)
    ladder.observe(True, now + 6)
    assert isinstance(ladder.step(now + 6), Wait)
    assert ladder.phase is RepairPhase.VERIFYING


def test_a_service_that_comes_back_late_in_verification_is_not_given_another_rung():
    ladder = opened()
    _, now = run(ladder, 0.0)
    ladder.observe(True, now + 14.9)
    assert ladder.step(now + 15).look
    assert isinstance(heal(ladder, now + 15.5), Close)
    assert ladder.rung == 0


def test_a_start_under_way_holds_the_clock_of_verification():
    ladder = opened()
    _, now = run(ladder, 0.0)
    ladder.hold(now + 14)
    assert ladder.step(now + 20).rule == "verifying"
    ladder.step(now + 29.5)
    assert ladder.phase is RepairPhase.WAITING


def test_recovery_by_itself_while_waiting_closes_without_a_further_rung():
    ladder = opened((3,))
    _, now = run(ladder, 0.0, FAILED)
    ladder.observe(True, now)
    assert ladder.step(now + 100) == Wait(None, "recovering", "it passes again", look=True)
    assert heal(ladder, now + 100).actions == 1


def test_what_is_seen_while_a_rung_runs_says_nothing_about_its_success():
    ladder = opened()
    ladder.begin_run(0.0)
    for _ in range(5):
        ladder.observe(True, 0.5)
    ladder.finish_run(DONE, 1.0)
    assert ladder.step(1.0).rule == "verifying"
    assert not ladder.recovering


def test_a_ladder_that_gave_up_says_so_once_and_stays_open_until_the_service_is_healthy():
    ladder = opened((1,))
    _, now = run(ladder, 0.0, FAILED)
    assert isinstance(ladder.step(now), GiveUp)
    assert ladder.step(now + 10_000).rule == "gave_up"
    assert isinstance(heal(ladder, now + 10_000), Close)


def test_without_a_rung_it_gives_up_at_once():
    assert opened(()).step(0.0) == GiveUp("it has no rung of repair")


def test_an_order_makes_the_next_rung_due_now_whatever_waits():
    options = RepairOptions(backoff_base_s=100, backoff_max_s=300, attempts_per_interval=1, cooldown_s=50)
    ladder = opened((3,), options)
    _, now = run(ladder, 0.0, FAILED)
    assert not isinstance(ladder.step(now), Run)
    ladder.order(now)
    assert isinstance(ladder.step(now), Run)


def test_an_order_begins_a_ladder_that_gave_up_anew():
    ladder = opened((1, 1))
    for _ in range(2):
        _, now = run(ladder, 0.0, FAILED)
    ladder.step(now + 10)
    assert ladder.phase is RepairPhase.GAVE_UP
    ladder.order(now + 20)
    assert ladder.step(now + 20) == Run(0, 1)


def test_an_order_repairs_a_healthy_service_too():
    ladder = opened()
    ladder.observe(True, 0.0)
    ladder.observe(True, 0.0)
    ladder.order(0.0)
    assert ladder.step(0.0) == Run(0, 1)


def test_the_cool_down_lies_between_two_runs():
    ladder = opened((2,), RepairOptions(backoff_base_s=0, cooldown_s=30))
    _, now = run(ladder, 0.0, FAILED)
    assert ladder.step(now).until == now + 30
    assert ladder.step(now).rule == "cooldown"


def test_attempts_an_interval_hold_across_incidents():
    options = RepairOptions(
        backoff_base_s=0, attempts_per_interval=2, attempts_interval_s=100, healthy_delay_s=0, verify_passes=1
    )
    ladder = opened((9,), options)
    for now in (0.0, 10.0):
        run(ladder, now)
        assert isinstance(heal(ladder, now + 1, options), Close)
        ladder.begin_incident("api-2", "again", now + 10)
    assert ladder.step(96.0) == Wait(100.0, "attempts", "2 runs in 100 s are the most that is allowed")
    assert isinstance(ladder.step(100.0), Run)


def test_attempts_an_interval_that_are_used_up_for_long_are_given_up_on_until_the_interval_has_room():
    options = RepairOptions(backoff_base_s=0, attempts_per_interval=2, attempts_interval_s=100)
    ladder, now = opened((9,), options), 0.0
    for _ in range(2):
        _, now = run(ladder, now, FAILED)
    given_up = ladder.step(now)
    assert given_up == GiveUp("2 runs in 100 s are the most that is allowed; it goes on in 98 s", resumes_at=100.0)
    assert ladder.phase is RepairPhase.GAVE_UP
    assert not ladder.rests
    assert ladder.next_at(now) == 100.0
    assert ladder.step(now) == Wait(100.0, "gave_up", given_up.reason)
    assert ladder.step(100.0) == Run(0, 3)
    assert ladder.phase is RepairPhase.WAITING


def test_a_ladder_that_gave_up_for_its_interval_goes_on_after_a_restart_and_no_later_than_the_interval_is_long():
    options = RepairOptions(backoff_base_s=0, attempts_per_interval=1, attempts_interval_s=100)
    ladder = opened((9,), options)
    _, now = run(ladder, 0.0, FAILED)
    assert isinstance(ladder.step(now), GiveUp)
    for later, until in ((9.0, 5 + 90.0), (-1e6, 5 + 100.0)):
        again = revived(ladder, now, 1000.0, later=later, attempts=(9,), options=options)
        assert again.step(5.0) == Wait(pytest.approx(until), "gave_up", ladder.step(now).reason)


def test_back_off_bounds_double_up_to_the_maximum():
    class Widest(random.Random):
        def uniform(self, a, b):
            return b

    ladder = Ladder((10,), OPTIONS, Widest())
    ladder.begin_incident("api-1", "it failed", 0.0)
    now, waits = 0.0, []
    for _ in range(6):
        step = ladder.step(now)
        if isinstance(step, Wait):
            waits.append(step.until - now)
            now = step.until
        ladder.begin_run(now)
        ladder.finish_run(FAILED, now)
    assert waits == [1, 2, 4, 8, 8]


def test_hurry_drops_the_first_back_off_and_nothing_else():
    ladder = opened((3,), RepairOptions(backoff_base_s=1e6, backoff_max_s=1e6, cooldown_s=10))
    _, now = run(ladder, 0.0, FAILED)
    ladder.hurry(now)
    assert ladder.step(now).rule == "cooldown"
    _, now = run(ladder, now + 10, FAILED)
    assert not ladder.may_hurry
    ladder.hurry(now + 10)
    assert ladder.step(now + 10).rule == "backoff"


def test_what_fails_for_the_repairers_own_fault_counts_for_nothing_and_is_repeated_after_a_wait_that_doubles():
    options = RepairOptions(attempts_per_interval=1, attempts_interval_s=1e6)
    ladder, now, waits = opened((1,), options), 0.0, []
    for _ in range(7):
        assert ladder.step(now) == Run(0, 1)
        ladder.begin_run(now)
        ladder.finish_run(FAILED, now, own_fault=True)
        waits.append(ladder.step(now).until - now)
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert ladder.own_faults == 7
    assert (ladder.actions, ladder.step(now)) == (0, Run(0, 1))
    run(ladder, now)
    assert ladder.own_faults == 0
    assert isinstance(ladder.step(now + 100), GiveUp)


def test_an_incident_within_the_stable_period_uses_up_what_is_left_of_the_ladder_and_a_later_one_begins_anew():
    ladder, now, runs = opened((2, 1)), 0.0, []
    for number in range(2, 5):
        begun, now = run(ladder, now)
        runs.append((begun.rung, begun.attempt))
        assert isinstance(heal(ladder, now), Close)
        now += OPTIONS.healthy_delay_s + 599
        ladder.begin_incident(f"api-{number}", "again", now)
    assert runs == [(0, 1), (0, 2), (1, 1)]
    assert ladder.step(now) == GiveUp("the incident that closed 599 s before had used up every rung")
    assert isinstance(heal(ladder, now), Close)
    ladder.begin_incident("api-5", "again", now + OPTIONS.healthy_delay_s + 600)
    assert ladder.step(now + OPTIONS.healthy_delay_s + 600) == Run(0, 1)


def test_what_a_person_ordered_for_a_service_uses_up_nothing_of_its_ladder():
    ladder = opened((1,))
    ladder.order(0.0)
    assert run(ladder, 0.0)[0] == Run(0, 1)
    assert isinstance(heal(ladder, 1.0), Close)
    ladder.begin_incident("api-2", "again", 100.0)
    assert ladder.step(100.0) == Run(0, 1)


def test_an_order_for_an_incident_that_finds_the_ladder_spent_begins_it_anew():
    ladder = opened((1,))
    _, now = run(ladder, 0.0)
    assert isinstance(heal(ladder, now), Close)
    ladder.begin_incident("api-2", "again", now + 10)
    ladder.order(now + 10)
    assert ladder.step(now + 10) == Run(0, 1)


def test_a_reset_begins_at_the_first_rung_without_back_off():
    ladder = opened((1, 5), RepairOptions(backoff_base_s=1e6, backoff_max_s=1e6))
    _, now = run(ladder, 0.0, FAILED)
    assert ladder.step(now).rule == "backoff"
    ladder.reset(now)
    assert ladder.step(now) == Run(0, 1)


def test_a_reset_lets_verification_finish_first():
    ladder = opened((1, 1))
    _, now = run(ladder, 0.0)
    ladder.reset(now)
    assert ladder.phase is RepairPhase.VERIFYING
    assert ladder.step(now + 15) == Run(0, 1)


# --- across restarts ------------------------------------------------------------------------------------


def revived(ladder, now, wall, *, later=0.0, attempts=(1, 1), options=OPTIONS):
    """The ladder of a second program, ``later`` seconds on the wall clock; its monotonic clock begins at 5."""
    document = json.loads(json.dumps(ladder.to_document(now, wall)))
    again = Ladder(attempts, options, random.Random(8))
    again.restore(document, 5.0, wall + later)
    return again


def test_a_run_that_was_cut_off_is_verified_first_and_then_repeated():
    ladder = opened()
    run(ladder, 0.0)
    ladder.step(20.0)
    ladder.begin_run(30.0)
    again = revived(ladder, 31.0, 1000.0)
    assert again.phase is RepairPhase.RUNNING
    again.finish_run(INTERRUPTED, 5.0)
    assert again.step(6.0).rule == "verifying"
    assert run(again, 20.0)[0] == Run(rung=1, attempt=1)


def test_a_cut_off_run_lengthens_no_back_off():
    options = RepairOptions(backoff_base_s=1e6, backoff_max_s=1e6, verify_timeout_s=15)
    ladder = opened(options=options)
    ladder.begin_run(0.0)
    ladder.finish_run(INTERRUPTED, 1.0)
    assert ladder.step(16.0) == Run(0, 1)


def test_a_cut_off_run_that_helped_all_the_same_is_not_repeated():
    ladder = opened()
    ladder.begin_run(0.0)
    again = revived(ladder, 1.0, 1000.0)
    again.finish_run(INTERRUPTED, 5.0)
    assert heal(again, 6.0).actions == 1


def test_a_finished_run_is_verified_after_a_restart_and_never_repeated():
    ladder = opened()
    _, now = run(ladder, 0.0)
    again = revived(ladder, now, 1000.0)
    assert again.step(5.0).rule == "verifying"
    assert run(again, 5.0)[0] == Run(rung=1, attempt=1)


@pytest.mark.parametrize("jump", [-1e9, -60.0, 0.0, 3600.0, 1e9])
def test_a_jump_of_the_wall_clock_makes_no_wait_longer_than_the_largest_back_off(jump):
    ladder = opened((9,))
    _, now = run(ladder, 0.0, FAILED)
    again = revived(ladder, now, 1e9, later=jump, attempts=(9,))
    step = again.step(5.0)
    assert isinstance(step, Run) or step.until - 5.0 <= OPTIONS.backoff_max_s


def test_attempts_an_interval_outlive_a_restart():
    options = RepairOptions(backoff_base_s=0, attempts_per_interval=1, attempts_interval_s=100)
    ladder = opened((5,), options)
    run(ladder, 0.0, FAILED)
    again = revived(ladder, 10.0, 1000.0, later=5.0, attempts=(5,), options=options)
    assert again.next_at(5.0) == pytest.approx(5.0 + 85.0)
    assert again.step(5.0).resumes_at == pytest.approx(5.0 + 85.0)


def test_a_shorter_ladder_than_before_does_not_break_an_open_incident():
    ladder = opened((1, 1, 1))
    run(ladder, 0.0, FAILED)
    run(ladder, 10.0, FAILED)
    assert isinstance(revived(ladder, 30.0, 1000.0, attempts=(1,)).step(100.0), GiveUp)


@pytest.mark.parametrize(
    "change", [{"phase": "dancing"}, {"incident": None}, {"runs": 3}, {"tries": -1}, {"next_at": "soon"}, {"rung": "x"}]
)
def test_a_document_that_is_none_is_refused_and_changes_nothing(change):
    document = opened().to_document(0.0, 1000.0) | change
    ladder = Ladder((1,), OPTIONS, random.Random(1))
    with pytest.raises(StateError, match="repair ladder"):
        ladder.restore(document, 0.0, 1000.0)
    assert ladder.phase is RepairPhase.IDLE
    assert ladder.incident is None


# --- properties -----------------------------------------------------------------------------------------

rungs = st.lists(st.integers(1, 4), min_size=0, max_size=4)
events = st.lists(
    st.tuples(
        st.sampled_from(["wait", "pass", "fail", "done", "failed", "timed_out", "interrupted", "crash"]),
        st.floats(0, 30),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(rungs, events, st.integers())
def test_within_one_incident_no_rung_runs_more_often_than_its_attempts_and_never_two_at_once(attempts, steps, seed):
    options = RepairOptions(
        backoff_base_s=1, backoff_max_s=8, attempts_per_interval=3, attempts_interval_s=60, healthy_delay_s=1
    )
    ladder = Ladder(attempts, options, random.Random(seed))
    ladder.begin_incident("x", "it failed", 0.0)
    now, finished, begun_at, last = 0.0, {}, [], (0, 0)
    for kind, delay in steps:
        now += delay
        step = ladder.step(now)
        if isinstance(step, Close):
            return
        if isinstance(step, Wait) and step.rule == "backoff":
            assert step.until - now <= options.backoff_max_s
        if isinstance(step, Run):
            assert ladder.phase is RepairPhase.WAITING
            assert step == ladder.begin_run(now)
            assert (step.rung, step.attempt) >= last
            last = (step.rung, step.attempt)
            begun_at.append(now)
            assert sum(1 for at in begun_at if at > now - 60) <= 3
        elif ladder.phase is RepairPhase.RUNNING:
            assert step.rule == "running"
        if kind in ("pass", "fail"):
            ladder.observe(kind == "pass", now)
        elif kind == "crash":
            wall = 1e9 + now
            again = Ladder(attempts, options, random.Random(seed))
            again.restore(json.loads(json.dumps(ladder.to_document(now, wall))), now, wall)
            ladder = again
            if ladder.phase is RepairPhase.RUNNING:
                ladder.finish_run(INTERRUPTED, now)
        elif kind != "wait" and ladder.phase is RepairPhase.RUNNING:
            rung = ladder.newest_run.rung
            ladder.finish_run(RungOutcome(kind), now)
            finished[rung] = finished.get(rung, 0) + (kind != "interrupted")
    assert all(count <= attempts[rung] for rung, count in finished.items())


@settings(max_examples=100, deadline=None)
@given(rungs, st.integers(), st.lists(st.sampled_from([DONE, FAILED, RungOutcome.TIMED_OUT]), min_size=1))
def test_when_nothing_helps_every_attempt_is_made_and_then_it_ends(attempts, seed, outcomes):
    options = RepairOptions(backoff_base_s=1, backoff_max_s=8, attempts_per_interval=100)
    ladder = Ladder(attempts, options, random.Random(seed))
    ladder.begin_incident("x", "it failed", 0.0)
    now, runs = 0.0, 0
    for _ in range(10 * sum(attempts) + 2):
        match ladder.step(now):
            case Run():
                ladder.begin_run(now)
                ladder.finish_run(outcomes[runs % len(outcomes)], now)
                runs += 1
            case Wait(until=until):
                assert until > now
                now = until
            case GiveUp():
                break
    assert ladder.phase is RepairPhase.GAVE_UP
    assert sum(attempts) == runs
