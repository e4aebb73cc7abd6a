"""The promise of the store, the same on SQLite and PostgreSQL."""

import pytest
from sqlalchemy.exc import DBAPIError

from autopeft.errors import ConfigurationError, LeaseLostError, NotFoundError, StoreError
from autopeft.store import Failure, Reader, Store
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
        filled.set_target("aspects", 60, None, 0.5)
        assert filled.study() == make_study(trials=60, device_hours=0.5)
        assert filled.lease("w", None).study.device_hours == 0.5

    def test_a_limit_on_device_time_and_its_price_come_back(self, store, make_study):
        store.create_study(make_study(device_hours=0.25, hour_price=2.5))
        assert store.study() == make_study(device_hours=0.25, hour_price=2.5)

    def test_device_time_is_that_of_all_attempts_however_they_ended(self, filled, measured):
        assert filled.worker_seconds("aspects") == (0, 0)
        first = filled.lease("w", None)
        ended, running = filled.worker_seconds("aspects")
        assert ended == 0
        assert 0 <= running < 60
        filled.report_failure(first.trial_id, first.attempt, "planted", "trace")
        ended, running = filled.worker_seconds("aspects")
        assert 0 <= ended < 60
        assert running == 0

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


class TestMemory:
    """A trial that runs out of memory is tried once more in smaller pieces, whatever else failed before."""

    @pytest.mark.parametrize("kind", [Failure.GPU_MEMORY, Failure.HOST_MEMORY])
    def test_once_more_with_smaller_pieces_then_failed(self, filled, wait_no_longer, kind):
        states, halvings = [], []
        for _ in range(2):
            order = filled.lease("w", "aspects")
            halvings.append(order.memory_failures)
            states.append(filled.report_failure(order.trial_id, order.attempt, "out of memory: 2 GiB", "", kind))
            wait_no_longer()
        assert (states, halvings) == ([TrialState.QUEUED, TrialState.FAILED], [0, 1])
        assert filled.trial("aspects", 0).error == "out of memory: 2 GiB"

    def test_another_failure_before_does_not_cost_the_chance(self, filled, wait_no_longer):
        kinds = [Failure.EXCEPTION, Failure.GPU_MEMORY, Failure.EXCEPTION]
        states = []
        for kind in kinds:
            order = filled.lease("w", "aspects")
            assert order.number == 0
            states.append(filled.report_failure(order.trial_id, order.attempt, "no", "", kind))
            wait_no_longer()
        assert states == [TrialState.QUEUED, TrialState.QUEUED, TrialState.FAILED]

    def test_what_may_succeed_in_smaller_pieces_is_no_error_of_the_trial(self, filled):
        order = filled.lease("w", "aspects")
        filled.report_failure(order.trial_id, order.attempt, "out of memory", "", Failure.GPU_MEMORY)
        assert filled.trial("aspects", 0).error is None
        assert filled.failures("aspects") == {"gpu memory": 1}


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
