"""Leases, reports and failures, for both databases."""

import itertools

import pytest

from autopeft.errors import LeaseLostError, NotFoundError, StoreError
from autopeft.store import Failure, Outcome
from autopeft.study import TrialState


class TestReport:
    def test_a_measurement_comes_back_as_it_was_reported(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured(0.75))
        trial = filled.trial("aspects", 0)
        assert (trial.state, trial.rung, trial.owner) == (TrialState.COMPLETE, 1, None)
        assert trial.values == measured(0.75).values
        assert filled.measurement("aspects", 0) == measured(0.75)

    def test_a_measurement_without_files_or_rows_is_one_too(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured(artifact=None))
        assert filled.measurement("aspects", 0) == measured(artifact=None)

    def test_the_same_report_counts_once(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        revision = filled.revision("aspects")
        filled.report(order.trial_id, order.attempt, measured())
        assert filled.revision("aspects") == revision

    def test_another_rung_than_ordered_is_refused_and_nothing_is_written(self, filled, measured):
        order = filled.lease("w", None)
        with pytest.raises(StoreError, match="ordered at rung 0, got rung 1"):
            filled.report(order.trial_id, order.attempt, measured(rung=1))
        assert filled.trial("aspects", 0).state is TrialState.RUNNING

    def test_a_trial_without_measurement_says_so(self, filled):
        with pytest.raises(NotFoundError, match="trial 1 of study 'aspects' is QUEUED"):
            filled.measurement("aspects", 1)

    def test_divergence_is_a_result(self, filled):
        order = filled.lease("w", None)
        for _ in range(2):
            filled.report_diverged(order.trial_id, order.attempt, "loss is nan at step 3")
        trial = filled.trial("aspects", 0)
        assert (trial.state, trial.error) == (TrialState.DIVERGED, "loss is nan at step 3")

    def test_a_failure_is_retried_once_after_a_wait(self, filled, wait_no_longer):
        order = filled.lease("w", None)
        for _ in range(2):
            state = filled.report_failure(order.trial_id, order.attempt, "ValueError: no", "Traceback …")
            assert state is TrialState.QUEUED
        assert filled.lease("w", None).number == 1
        wait_no_longer()
        again = filled.lease("w", None)
        assert (again.number, again.attempt) == (0, 2)
        assert filled.report_failure(again.trial_id, 2, "ValueError: no", "Traceback …") is TrialState.FAILED
        assert filled.report_failure(again.trial_id, 2, "ValueError: no", "Traceback …") is TrialState.FAILED
        assert filled.trial("aspects", 0).error == "ValueError: no\nTraceback …"
        assert [attempt.outcome for attempt in filled.attempts("aspects", 0)] == [Outcome.FAILED] * 2

    def test_success_after_a_failure_clears_the_error(self, filled, measured, wait_no_longer):
        order = filled.lease("w", None)
        filled.report_failure(order.trial_id, order.attempt, "ValueError: no", "")
        wait_no_longer()
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        assert filled.trial("aspects", 0).error is None

    def test_handing_back_blames_nobody(self, filled):
        for attempt in range(1, 6):
            order = filled.lease("w", None)
            assert (order.number, order.attempt) == (0, attempt)
            filled.hand_back(order.trial_id, order.attempt)
            filled.hand_back(order.trial_id, order.attempt)
        assert filled.trial("aspects", 0).state is TrialState.QUEUED


class TestReportAndLease:
    def test_the_next_order_comes_with_the_reply(self, filled, measured):
        first = filled.lease("w", "aspects")
        second = filled.report_and_lease(first.trial_id, 1, measured(), {"data": "b"}, "w", "aspects")
        assert (second.number, second.attempt, second.study) == (1, 1, first.study)
        assert filled.measurement("aspects", 0) == measured()
        assert filled.environments("aspects") == {0: {"data": "b"}}
        assert filled.trial("aspects", 1).owner == "w"
        kinds = [(event.kind, event.trial) for event in filled.events("aspects")][-3:]
        assert sorted(kinds) == [("leased", 0), ("leased", 1), ("reported", 0)]

    def test_it_is_none_where_nothing_is_due(self, filled, measured):
        first, second, _ = (filled.lease(name, None) for name in "wvu")
        assert filled.report_and_lease(first.trial_id, 1, measured(), None, "w", None) is None
        assert filled.report_and_lease(second.trial_id, 1, measured(), None, "v", "aspects") is None
        assert filled.counts("aspects")[TrialState.COMPLETE] == 2

    def test_a_lost_lease_gets_nothing(self, filled, measured):
        order = filled.lease("w", None, lease_seconds=-1)
        filled.reap()
        with pytest.raises(LeaseLostError):
            filled.report_and_lease(order.trial_id, 1, measured(), None, "w", None)
        assert filled.counts("aspects")[TrialState.RUNNING] == 0

    def test_another_rung_than_ordered_is_refused_and_nothing_is_taken(self, filled, measured):
        order = filled.lease("w", None)
        with pytest.raises(StoreError, match="was ordered at rung 0, got rung 1"):
            filled.report_and_lease(order.trial_id, 1, measured(rung=1), None, "w", None)
        assert filled.counts("aspects")[TrialState.RUNNING] == 1

    def test_sent_again_it_counts_once_and_gives_the_order_of_the_lost_reply(self, filled, measured):
        order = filled.lease("w", None)
        sent = [filled.report_and_lease(order.trial_id, 1, measured(), None, "w", None) for _ in range(2)]
        assert sent[0] == sent[1] != None  # noqa: E711 - both are orders
        assert [event.kind for event in filled.events("aspects")].count("reported") == 1
        assert len(filled.attempts("aspects", 1)) == 1


class TestLeases:
    def test_a_beat_keeps_a_lease(self, filled):
        order = filled.lease("w", None, lease_seconds=-1)
        assert filled.beat(order.trial_id, order.attempt, 60) is False
        assert filled.reap() == 0

    def test_a_lost_lease_can_do_nothing(self, filled, measured):
        order = filled.lease("w", None, lease_seconds=-1)
        assert filled.reap("aspects") == 1
        revision = filled.revision("aspects")
        for verb in _verbs(filled, order, measured()):
            with pytest.raises(LeaseLostError, match="trial 0 is no longer held by attempt 1"):
                verb()
        assert filled.revision("aspects") == revision

    def test_an_attempt_at_nothing_is_refused(self, filled):
        with pytest.raises(LeaseLostError, match="no trial with id 99"):
            filled.beat(99, 1)

    def test_a_live_lease_is_not_reaped(self, filled):
        filled.lease("w", None)
        assert filled.reap() == 0

    def test_a_lost_trial_is_tried_again(self, filled):
        filled.lease("w", None, lease_seconds=-1)
        filled.reap()
        assert filled.lease("v", None).attempt == 2
        lost, running = filled.attempts("aspects", 0)
        assert (lost.outcome, lost.worker, lost.reason) == (
            Outcome.LOST,
            "w",
            "worker w was lost: its lease ran out",
        )
        assert (running.outcome, running.finished_at, running.worker) == (None, None, "v")

    def test_a_trial_that_kills_what_runs_it_is_quarantined(self, filled, measured, wait_no_longer):
        for _ in range(2):
            healthy = filled.lease("c", None)
            filled.report(healthy.trial_id, healthy.attempt, measured(artifact=None))
        workers = itertools.cycle("ab")
        while filled.counts("aspects")[TrialState.QUARANTINED] == 0:
            assert filled.lease(next(workers), None, lease_seconds=-1).number == 2
            filled.reap()
            wait_no_longer()
        trial = filled.trial("aspects", 2)
        assert trial.attempt == 9
        assert trial.error.startswith("lost 9 times, with the workers a, b; last: worker a was lost")

    def test_one_worker_that_loses_whatever_it_takes_quarantines_nothing(self, filled, wait_no_longer):
        for _ in range(30):
            filled.lease("a", None, lease_seconds=-1)
            filled.reap()
        assert filled.counts("aspects")[TrialState.QUARANTINED] == 0

    def test_a_loss_that_the_worker_explains_is_the_trials_error(self, filled, wait_no_longer):
        order = filled.lease("a", None)
        for _ in range(2):
            state = filled.report_lost(order.trial_id, order.attempt, "killed by SIGSEGV", "Fatal error")
            assert state is TrialState.QUEUED
        assert filled.trial("aspects", 0).error == "killed by SIGSEGV\nFatal error"
        [attempt] = filled.attempts("aspects", 0)
        assert (attempt.outcome, attempt.failure, attempt.traceback) == (Outcome.LOST, Failure.LOST, "Fatal error")

    def test_failures_and_losses_are_counted_apart(self, filled, wait_no_longer):
        for worker in ("a", "b"):
            filled.lease(worker, None, lease_seconds=-1)
            filled.reap()
            wait_no_longer()
        order = filled.lease("c", None)
        filled.hand_back(order.trial_id, order.attempt)
        order = filled.lease("c", None)
        assert filled.report_failure(order.trial_id, order.attempt, "x", "") is TrialState.QUEUED


class TestFailures:
    def test_every_kind_is_kept_and_counted(self, filled, wait_no_longer):
        def attempt():
            wait_no_longer()
            return filled.lease("w", None)

        kinds = [Failure.EXCEPTION, Failure.HANG]
        for kind in kinds:
            order = attempt()
            filled.report_failure(order.trial_id, order.attempt, "no", "Traceback", kind)
        order = attempt()
        filled.hand_back(order.trial_id, order.attempt, "the disk is full", Failure.DISK)
        order = attempt()
        filled.hand_back(order.trial_id, order.attempt)
        order = attempt()
        filled.report_diverged(order.trial_id, order.attempt, "nan")
        assert [one.failure for one in filled.attempts("aspects", 0)] == kinds
        assert [one.failure for one in filled.attempts("aspects", 1)] == ["disk", "preempted", "diverged"]
        assert filled.attempts("aspects", 1)[0].reason == "the disk is full"
        assert filled.failures("aspects") == dict.fromkeys(["diverged", "disk", "exception", "hang", "preempted"], 1)

    def test_a_measurement_is_no_failure(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        assert filled.failures("aspects") == {}
        assert filled.attempts("aspects", 0)[0].failure is None

    def test_what_a_measurement_rests_on_is_kept_with_its_attempt(self, filled, measured):
        filled.register_worker("w", "host", "cpu", 1, {"torch": "2"})
        order = filled.lease("w", None)
        assert filled.environments("aspects") == {}
        filled.report(order.trial_id, order.attempt, measured(), {"data": "abc"})
        assert filled.environments("aspects") == {0: {"torch": "2", "data": "abc"}}
        assert filled.environments("aspects", [1, 2]) == {}

    def test_summaries_say_what_the_trials_do(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured(0.75))
        kept = ("number", "digest", "replicate", "state", "origin", "values", "error")
        for summary, trial in zip(filled.summaries("aspects"), filled.trials("aspects"), strict=True):
            assert [getattr(summary, name) for name in kept] == [getattr(trial, name) for name in kept]


def _verbs(store, order, measurement):
    key = (order.trial_id, order.attempt)
    return [
        lambda: store.beat(*key),
        lambda: store.report(*key, measurement),
        lambda: store.report_diverged(*key, "nan"),
        lambda: store.report_failure(*key, "x", ""),
        lambda: store.hand_back(*key),
    ]
