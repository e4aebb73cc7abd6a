"""Leases beside one that a worker holds, and the time of workers that hold several; on both databases."""

import pytest

from autopeft.errors import LeaseLostError
from autopeft.store import Failure
from autopeft.study import Fidelity, TrialState


def anything(_plan):
    return True


def first_and_beside(store, count=10, fits=anything):
    order = store.lease("w", "aspects")
    return order, store.lease_beside(order, count, "w", fits)


def test_the_next_of_the_queue_come_along_each_with_an_attempt_of_its_own(filled, measured):
    order, others = first_and_beside(filled)
    assert [other.number for other in others] == [1, 2]
    assert {other.attempt for other in others} == {1}
    assert [trial.state for trial in filled.trials("aspects")] == [TrialState.RUNNING] * 3
    assert [len(filled.attempts("aspects", number)) for number in range(3)] == [1, 1, 1]
    filled.report(others[0].trial_id, others[0].attempt, measured(0.7))
    filled.report_diverged(order.trial_id, order.attempt, "nan")
    states = [trial.state for trial in filled.trials("aspects")]
    assert states == [TrialState.DIVERGED, TrialState.COMPLETE, TrialState.RUNNING]


def test_no_more_than_are_wanted_and_none_twice(filled):
    order, others = first_and_beside(filled, count=1)
    assert [other.number for other in others] == [1]
    assert [other.number for other in filled.lease_beside(order, 5, "w", anything)] == [2]
    assert filled.lease_beside(order, 5, "w", anything) == []


def test_what_does_not_fit_stays_in_the_queue(filled, make_proposals):
    wanted = make_proposals(3)[2].configuration
    _, others = first_and_beside(filled, fits=lambda plan: plan == wanted)
    assert [other.number for other in others] == [2]
    assert filled.trial("aspects", 1).state is TrialState.QUEUED


def test_only_the_same_study_replicate_and_rung(store, make_study, make_proposals):
    ladder = Fidelity(steps=4, batch_size=8, max_length=32, ladder=(2,))
    store.create_study(make_study(fidelity=ladder))
    store.create_study(make_study("other"))
    epoch = store.acquire_driver("aspects", "driver")
    store.enqueue("aspects", epoch, make_proposals(2))
    store.enqueue("aspects", epoch, make_proposals(1, start=2, replicate=1))
    store.enqueue("aspects", epoch, make_proposals(1, start=3, rung=1))
    store.enqueue("other", store.acquire_driver("other", "driver"), make_proposals(2))
    order = next(found for _ in range(6) if (found := store.lease("w", "aspects")).replicate == 0 and found.rung == 0)
    assert [(other.study.name, other.number) for other in store.lease_beside(order, 9, "w", anything)] in (
        [("aspects", 1)],
        [("aspects", 0)],
    )


@pytest.mark.parametrize("wrong", ["lost", "failed", "memory"])
def test_what_went_wrong_before_runs_alone(filled, wait_no_longer, wrong):
    order, others = first_and_beside(filled)
    if wrong == "lost":
        filled.report_lost(order.trial_id, order.attempt, "died")
    else:
        kind = Failure.GPU_MEMORY if wrong == "memory" else Failure.EXCEPTION
        filled.report_failure(order.trial_id, order.attempt, "no", "", kind)
    for other in others:
        filled.hand_back(other.trial_id, other.attempt)
    wait_no_longer()
    again = filled.lease("w", "aspects")
    assert again.number == 0
    assert filled.lease_beside(again, 9, "w", anything) == []
    later = filled.lease("w", "aspects")
    assert later.number == 1
    filled.hand_back(again.trial_id, again.attempt)
    assert [other.number for other in filled.lease_beside(later, 9, "w", anything)] == [2]


def test_who_lost_its_lease_gets_no_company(filled):
    order = filled.lease("w", "aspects")
    filled.requeue("aspects", order.number)
    with pytest.raises(LeaseLostError):
        filled.lease_beside(order, 9, "w", anything)
    assert filled.trial("aspects", 1).state is TrialState.QUEUED


def test_a_worker_that_is_gone_loses_all_and_each_is_tried_again(filled, run_sql, wait_no_longer):
    first_and_beside(filled)
    run_sql("UPDATE trial SET expires_at = 1")
    assert filled.reap("aspects") == 3
    wait_no_longer()
    assert [trial.state for trial in filled.trials("aspects")] == [TrialState.QUEUED] * 3
    assert filled.lease("other", "aspects").attempt == 2


def test_a_moment_with_several_attempts_of_one_worker_counts_once(filled, run_sql):
    order, others = first_and_beside(filled)
    for held in (order, *others):
        filled.report_diverged(held.trial_id, held.attempt, "nan")
    times = {0: (0, 10), 1: (2, 30), 2: (5, 20)}
    for number, (start, end) in times.items():
        where = f"trial_id = (SELECT id FROM trial WHERE number = {number})"
        run_sql(f"UPDATE attempt SET started_at = {start}, finished_at = {end} WHERE {where}")
    assert filled.worker_seconds("aspects") == (30, 0)
    run_sql("UPDATE attempt SET worker = 'another' WHERE trial_id = (SELECT id FROM trial WHERE number = 2)")
    assert filled.worker_seconds("aspects") == (45, 0)
    run_sql("UPDATE attempt SET started_at = 40, finished_at = 45 WHERE worker = 'another'")
    assert filled.worker_seconds("aspects") == (35, 0)
