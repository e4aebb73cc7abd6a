"""The promise of the store, the same on SQLite and PostgreSQL."""

import itertools

import pytest
from sqlalchemy.exc import DBAPIError

from autopeft.errors import ConfigurationError, LeaseLostError, NotFoundError, StoreError
from autopeft.store import Failure, Outcome, Reader, Store
from autopeft.study import FrontRecord, Origin, TrialState


class TestStudies:
    def test_a_study_comes_back_as_it_was_given(self, store, make_study):
        store.create_study(make_study("first", hours=1.5))
        store.create_study(make_study("second"))
        assert store.study_names() == ["first", "second"]
        assert store.study("first") == make_study("first", hours=1.5)
        assert store.study() == make_study("second")

    def test_a_name_is_taken_once(self, filled, make_study):
        with pytest.raises(StoreError, match="'aspects' exists already: resume it"):
            filled.create_study(make_study())

    @pytest.mark.parametrize("name", ["", "a/b", "..", "ä", "x" * 129])
    def test_a_name_that_could_leave_its_folder_is_refused(self, store, make_study, name):
        with pytest.raises(ConfigurationError, match="study name"):
            store.create_study(make_study(name))

    def test_a_missing_study_names_those_there_are(self, filled):
        with pytest.raises(NotFoundError, match="no study 'x'; the latest are: aspects"):
            filled.study("x")

    def test_an_empty_record_says_so(self, store):
        assert store.study_names() == []
        with pytest.raises(NotFoundError, match="holds no study"):
            store.study()

    def test_a_new_target_is_kept(self, filled, make_study):
        filled.set_target("aspects", 60, 2.0)
        assert filled.study() == make_study(trials=60, hours=2.0)

    def test_time_since_start_is_the_databases(self, filled):
        assert 0 <= filled.seconds_since_start("aspects") < 60


class TestDriver:
    def test_one_driver_at_a_time(self, filled):
        with pytest.raises(StoreError, match="driven by driver"):
            filled.acquire_driver("aspects", "another")

    def test_a_released_study_may_be_driven(self, store, make_study):
        store.create_study(make_study())
        store.release_driver("aspects", store.acquire_driver("aspects", "one"))
        assert store.acquire_driver("aspects", "two") == 2

    def test_a_lease_that_ran_out_may_be_taken_and_fences_the_old_driver_out(self, store, make_study, make_proposals):
        store.create_study(make_study())
        old = store.acquire_driver("aspects", "one", lease_seconds=-1)
        new = store.acquire_driver("aspects", "two")
        for late in (
            lambda: store.renew_driver("aspects", old),
            lambda: store.enqueue("aspects", old, make_proposals(1)),
        ):
            with pytest.raises(LeaseLostError, match=f"no longer driven by epoch {old}"):
                late()
        store.release_driver("aspects", old)
        store.renew_driver("aspects", new)
        assert store.trials("aspects") == []

    def test_the_same_owner_may_take_it_again_with_a_new_epoch(self, store, make_study):
        store.create_study(make_study())
        assert [store.acquire_driver("aspects", "one") for _ in range(2)] == [1, 2]


class TestQueue:
    def test_numbers_count_up_and_what_is_there_is_skipped(self, store, make_study, make_proposals):
        store.create_study(make_study())
        epoch = store.acquire_driver("aspects", "driver")
        assert store.enqueue("aspects", epoch, make_proposals(3)) == [0, 1, 2]
        assert store.enqueue("aspects", epoch, [*make_proposals(4), *make_proposals(4)]) == [3]
        assert store.enqueue("aspects", epoch, make_proposals(1, replicate=1)) == [4]
        assert store.enqueue("aspects", epoch, []) == []

    def test_what_is_queued_is_what_was_proposed(self, store, make_study, make_proposals):
        store.create_study(make_study())
        [proposal] = make_proposals(1, origin=Origin.CONTROL, label="LoRA r=1 <all>")
        store.enqueue("aspects", store.acquire_driver("aspects", "driver"), [proposal])
        trial = store.trial("aspects", 0)
        assert trial.configuration == proposal.configuration
        assert trial.digest == proposal.configuration.digest
        assert (trial.state, trial.origin, trial.label) == (TrialState.QUEUED, Origin.CONTROL, "LoRA r=1 <all>")

    def test_leased_by_priority_then_number(self, filled, make_proposals):
        epoch = filled.acquire_driver("aspects", "driver")
        filled.enqueue("aspects", epoch, make_proposals(1, start=10, priority=5))
        assert [filled.lease("w", "aspects").number for _ in range(4)] == [3, 0, 1, 2]
        assert filled.lease("w", "aspects") is None

    def test_an_order_holds_all_that_a_worker_needs(self, filled, make_study, make_proposals):
        order = filled.lease("w", None)
        assert order.study == make_study()
        assert order.configuration == make_proposals(1)[0].configuration
        assert (order.number, order.attempt, order.rung, order.replicate) == (0, 1, 0, 0)
        trial = filled.trial("aspects", 0)
        assert (trial.state, trial.owner, trial.attempt) == (TrialState.RUNNING, "w", 1)

    def test_only_the_named_study_is_served(self, filled, make_study):
        filled.create_study(make_study("other"))
        assert filled.lease("w", "other") is None
        with pytest.raises(NotFoundError):
            filled.lease("w", "none")

    def test_a_missing_trial_names_the_range(self, filled):
        with pytest.raises(NotFoundError, match="no trial 7 in study 'aspects': it has 0 to 2"):
            filled.trial("aspects", 7)

    def test_states_are_filtered_and_counted(self, filled):
        filled.lease("w", None)
        assert [trial.number for trial in filled.trials("aspects", [TrialState.QUEUED])] == [1, 2]
        counts = filled.counts("aspects")
        assert (counts[TrialState.QUEUED], counts[TrialState.RUNNING], counts[TrialState.COMPLETE]) == (2, 1, 0)
        assert set(counts) == set(TrialState)


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


class TestByHand:
    def fail(self, store, wait_no_longer, number):
        for _ in range(2):
            wait_no_longer()
            order = store.lease("w", None)
            assert order.number == number
            store.report_failure(order.trial_id, order.attempt, "no", "")

    def test_what_failed_is_queued_again_with_a_clean_slate(self, filled, wait_no_longer, measured):
        self.fail(filled, wait_no_longer, 0)
        assert filled.retry("aspects") == [0]
        trial = filled.trial("aspects", 0)
        assert (trial.state, trial.error) == (TrialState.QUEUED, None)
        self.fail(filled, wait_no_longer, 0)
        assert filled.retry("aspects") == [0]
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured(artifact=None))
        assert filled.retry("aspects") == []
        assert len(filled.attempts("aspects", 0)) == 5

    def test_a_running_trial_is_taken_from_its_worker(self, filled, measured):
        order = filled.lease("w", None)
        assert filled.requeue("aspects", 0) is TrialState.RUNNING
        with pytest.raises(LeaseLostError):
            filled.report(order.trial_id, order.attempt, measured())
        assert filled.lease("v", None).attempt == 2

    def test_a_cancelled_trial_may_come_back(self, filled):
        filled.cancel("aspects", 0)
        assert filled.requeue("aspects", 0) is TrialState.CANCELLED
        assert filled.lease("w", None).number == 0
        assert "requeued" in [event.kind for event in filled.events("aspects")]

    def test_a_measurement_is_never_thrown_away(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        with pytest.raises(StoreError, match="trial 0 of study 'aspects' is COMPLETE"):
            filled.requeue("aspects", 0)


class TestCancel:
    def test_what_waits_is_cancelled_at_once(self, filled):
        assert filled.cancel("aspects", 0) is TrialState.CANCELLED
        assert filled.lease("w", None).number == 1

    def test_what_runs_is_asked_and_then_cancelled(self, filled):
        order = filled.lease("w", None)
        assert filled.cancel("aspects", 0) is TrialState.RUNNING
        assert filled.beat(order.trial_id, order.attempt) is True
        filled.hand_back(order.trial_id, order.attempt)
        assert filled.trial("aspects", 0).state is TrialState.CANCELLED

    def test_what_is_lost_while_asked_is_cancelled(self, filled):
        filled.lease("w", None, lease_seconds=-1)
        filled.cancel("aspects", 0)
        filled.reap()
        assert filled.trial("aspects", 0).state is TrialState.CANCELLED

    def test_what_is_final_stays(self, filled, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        assert filled.cancel("aspects", 0) is TrialState.COMPLETE

    def test_a_stopped_study_takes_no_trials_until_it_is_driven_anew(self, filled, make_proposals):
        order = filled.lease("w", None)
        assert filled.stop("aspects") == 3
        filled.renew_driver("aspects", 1)
        with pytest.raises(LeaseLostError, match="was stopped"):
            filled.enqueue("aspects", 1, make_proposals(1, start=5))
        epoch = filled.acquire_driver("aspects", "driver")
        assert filled.enqueue("aspects", epoch, make_proposals(1, start=5)) == [3]
        assert filled.beat(order.trial_id, order.attempt) is True
        assert filled.counts("aspects")[TrialState.CANCELLED] == 2


class TestWatching:
    def test_fronts_are_kept_in_order(self, filled):
        records = [FrontRecord((2, 0), 0.25, 3, 12.5), FrontRecord((1,), 0.5, 4, 20.0), FrontRecord((), 0.0, 0, 0.0)]
        for record in records:
            filled.record_front("aspects", record)
        assert filled.fronts("aspects") == records
        with pytest.raises(NotFoundError, match="no trial 9"):
            filled.record_front("aspects", FrontRecord((9,), 0.5, 4, 20.0))
        assert filled.fronts("aspects") == records

    def test_every_verb_is_an_event_and_a_new_revision(self, filled, measured):
        start = filled.revision("aspects")
        order = filled.lease("w", None)
        filled.beat(order.trial_id, order.attempt)
        filled.report(order.trial_id, order.attempt, measured())
        filled.record_front("aspects", FrontRecord((0,), 0.5, 1, 1.0))
        events = filled.events("aspects", after=start)
        assert [(event.kind, event.trial, event.attempt) for event in events] == [
            ("leased", 0, 1),
            ("reported", 0, 1),
            ("front", None, None),
        ]
        assert filled.revision("aspects") == events[-1].id > start

    @pytest.mark.parametrize("statement", ["UPDATE event SET kind = 'x'", "DELETE FROM event"])
    def test_events_are_never_changed(self, filled, run_sql, statement):
        with pytest.raises(StoreError, match="events are never changed"):
            run_sql(statement)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE trial SET state = 'RUNNING'",
            "UPDATE trial SET owner = 'w'",
            "UPDATE trial SET state = 'LOST'",
            "UPDATE trial SET number = 0",
            "UPDATE trial SET study_id = 99",
        ],
    )
    def test_the_database_itself_refuses_what_cannot_be(self, filled, run_sql, statement):
        with pytest.raises(StoreError) as caught:
            run_sql(statement)
        assert isinstance(caught.value.__cause__, DBAPIError)

    def test_workers_are_seen(self, filled):
        filled.register_worker("w", "host", "cpu", 12, {"torch": "1"})
        filled.register_worker("w", "host", "cpu", 13, {"torch": "2"})
        filled.worker_seen("w")
        filled.lease("w", None)
        [worker] = filled.workers()
        assert (worker.name, worker.host, worker.device, worker.pid) == ("w", "host", "cpu", 13)
        assert 0 <= worker.silent_seconds <= worker.age_seconds < 60
        assert filled.attempts("aspects", 0)[0].environment == {"torch": "2"}

    def test_a_reader_sees_the_same_and_cannot_write(self, filled, url, measured):
        order = filled.lease("w", None)
        filled.report(order.trial_id, order.attempt, measured())
        with Reader.open(url) as reader:
            assert reader.study() == filled.study()
            assert reader.trials("aspects") == filled.trials("aspects")
            assert reader.measurement("aspects", 0) == measured()
            assert reader.revision("aspects") == filled.revision("aspects")
            filled.lease("w", None)
            assert reader.counts("aspects") == filled.counts("aspects")
            with pytest.raises(StoreError, match=r"cannot be written|read-only"):
                Store(reader._database).reap() or Store(reader._database).worker_seen("w")


def _verbs(store, order, measurement):
    key = (order.trial_id, order.attempt)
    return [
        lambda: store.beat(*key),
        lambda: store.report(*key, measurement),
        lambda: store.report_diverged(*key, "nan"),
        lambda: store.report_failure(*key, "x", ""),
        lambda: store.hand_back(*key),
    ]
