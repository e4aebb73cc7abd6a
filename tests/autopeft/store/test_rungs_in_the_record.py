"""Trials that pause at a rung and go on, for both databases."""

import pytest

from autopeft.errors import LeaseLostError
from autopeft.study import Checkpoint, Fidelity, Origin, TrialState


class TestRungs:
    """A ladder of two rungs below the full run; trials pause there until the driver promotes them."""

    LADDER = Fidelity(8, 4, 16, (2, 4))

    @pytest.fixture
    def climbing(self, store, make_study, make_proposals):
        """The store, the driver's epoch, and three queued trials."""
        store.create_study(make_study(fidelity=self.LADDER))
        epoch = store.acquire_driver("aspects", "driver")
        store.enqueue("aspects", epoch, make_proposals(3))
        return store, epoch

    def finish(self, store, measured, accuracy=0.5):
        order = store.lease("w", "aspects")
        artifact = f"aspects/trial-{order.number}/attempt-{order.attempt}"
        store.report(order.trial_id, order.attempt, measured(accuracy, order.rung, artifact))
        return order

    def test_a_study_keeps_its_ladder(self, climbing):
        assert climbing[0].study("aspects").fidelity == self.LADDER

    def test_a_trial_pauses_below_the_top_and_frees_its_worker(self, climbing, measured):
        store, _ = climbing
        self.finish(store, measured, 0.6)
        trial = store.trial("aspects", 0)
        assert (trial.state, trial.rung, trial.owner) == (TrialState.PAUSED, 1, None)
        assert trial.values["accuracy"] == 0.6
        assert store.lease("w", "aspects").number == 1

    def test_promoted_it_goes_on_from_its_checkpoint_to_the_next_rung(self, climbing, measured):
        store, epoch = climbing
        for _ in range(3):
            self.finish(store, measured)
        assert store.lease("w", "aspects") is None
        assert store.promote("aspects", epoch, [0, 2]) == [0, 2]
        order = self.finish(store, measured, 0.7)
        assert (order.number, order.attempt, order.rung) == (0, 2, 1)
        assert order.checkpoints == (Checkpoint(0, "aspects/trial-0/attempt-1", "a" * 64),)
        store.promote("aspects", epoch, [0])
        order = self.finish(store, measured, 0.8)
        assert [kept.rung for kept in order.checkpoints] == [1, 0]
        trial = store.trial("aspects", 0)
        assert (trial.state, trial.rung, trial.attempt) == (TrialState.COMPLETE, 3, 3)
        accuracies = [trial.values_at(rung)["accuracy"] for rung in range(3)]
        assert accuracies == [0.5, 0.7, 0.8]
        assert trial == next(one for one in store.trials("aspects") if one.number == 0)
        kinds = [(event.kind, event.detail.get("rung")) for event in store.events("aspects") if event.trial == 0]
        assert kinds.count(("promoted", 1)) == kinds.count(("promoted", 2)) == 1

    def test_only_what_is_paused_is_promoted_and_once(self, climbing, measured):
        store, epoch = climbing
        self.finish(store, measured)
        store.lease("w", "aspects")
        assert store.promote("aspects", epoch, [0, 1, 2]) == [0]
        assert store.promote("aspects", epoch, [0, 1, 2]) == []

    def test_only_the_driver_promotes_and_only_while_the_study_is_open(self, climbing, measured):
        store, epoch = climbing
        self.finish(store, measured)
        newer = store.acquire_driver("aspects", "driver")
        with pytest.raises(LeaseLostError, match="no longer driven"):
            store.promote("aspects", epoch, [0])
        store.stop("aspects")
        assert store.trial("aspects", 0).state is TrialState.CANCELLED
        with pytest.raises(LeaseLostError, match="was stopped"):
            store.promote("aspects", newer, [0])

    def test_a_report_of_a_rung_that_is_sent_twice_counts_once(self, climbing, measured):
        store, epoch = climbing
        order = self.finish(store, measured, 0.6)
        revision = store.revision("aspects")
        store.report(order.trial_id, order.attempt, measured(0.6, 0))
        assert store.revision("aspects") == revision
        store.promote("aspects", epoch, [0])
        store.report(order.trial_id, order.attempt, measured(0.6, 0))
        assert store.trial("aspects", 0).state is TrialState.QUEUED

    def test_a_trial_may_begin_at_the_top(self, climbing, make_proposals, measured):
        store, epoch = climbing
        store.enqueue("aspects", epoch, make_proposals(1, start=9, origin=Origin.CONTROL, priority=1, rung=2))
        order = self.finish(store, measured)
        assert (order.number, order.rung) == (3, 2)
        trial = store.trial("aspects", 3)
        assert (trial.state, trial.rung, dict(trial.lower)) == (TrialState.COMPLETE, 3, {})

    def test_what_was_handed_back_in_the_middle_of_a_rung_goes_on_there(self, climbing, measured):
        store, _ = climbing
        order = store.lease("w", "aspects")
        middle = Checkpoint(0, "aspects/trial-0/attempt-1", "b" * 64)
        store.hand_back(order.trial_id, order.attempt, checkpoint=middle)
        again = store.lease("v", "aspects")
        assert (again.number, again.checkpoints) == (0, (middle,))
        store.report(again.trial_id, again.attempt, measured(0.5, 0, "aspects/trial-0/attempt-2"))
        assert store.measurement("aspects", 0).artifact == "aspects/trial-0/attempt-2"

    def test_a_failure_at_a_rung_is_tried_again_from_the_one_below(self, climbing, measured, wait_no_longer):
        store, epoch = climbing
        self.finish(store, measured, 0.6)
        store.promote("aspects", epoch, [0])
        for _ in range(2):
            order = store.lease("w", "aspects")
            assert (order.number, order.rung, len(order.checkpoints)) == (0, 1, 1)
            store.report_failure(order.trial_id, order.attempt, "no", "")
            wait_no_longer()
        assert store.trial("aspects", 0).state is TrialState.FAILED
        store.retry("aspects")
        order = store.lease("w", "aspects")
        assert (order.number, order.rung, len(order.checkpoints)) == (0, 1, 1)

    def test_a_paused_trial_may_be_cancelled_and_queued_by_hand(self, climbing, measured):
        store, _ = climbing
        self.finish(store, measured)
        assert store.requeue("aspects", 0) is TrialState.PAUSED
        assert self.finish(store, measured).rung == 1
        assert store.cancel("aspects", 0) is TrialState.CANCELLED

    def test_a_trial_that_was_cancelled_while_it_ran_to_a_rung_waits_for_nothing(self, climbing, measured):
        store, _ = climbing
        order = store.lease("w", "aspects")
        store.stop("aspects")
        store.report(order.trial_id, order.attempt, measured(0.6, order.rung))
        assert store.trial("aspects", order.number).state is TrialState.CANCELLED
        assert store.trial("aspects", order.number).values["accuracy"] == 0.6

    def test_checkpoints_go_when_nobody_will_go_on_from_them(self, climbing, measured):
        store, epoch = climbing
        for _ in range(3):
            self.finish(store, measured)
        for _ in range(2):
            store.promote("aspects", epoch, [0])
            self.finish(store, measured)
        assert store.forget_checkpoints("aspects", epoch) == {0: ["aspects/trial-0/attempt-3"]}
        store.cancel("aspects", 1)
        left = {0: ["aspects/trial-0/attempt-3"], 1: []}
        assert store.forget_checkpoints("aspects", epoch) == left
        assert store.measurement("aspects", 2).artifact == "aspects/trial-2/attempt-1"
        assert store.forget_checkpoints("aspects", epoch, paused=True) == left | {2: []}
        assert store.measurement("aspects", 2).artifact is None
        store.promote("aspects", epoch, [2])
        order = store.lease("w", "aspects")
        assert (order.number, order.rung, order.checkpoints) == (2, 1, ())

    def test_finishing_a_rung_ends_a_row_of_losses(self, climbing, measured, wait_no_longer):
        store, epoch = climbing
        for rung in range(2):
            for _ in range(2):
                order = store.lease("w", "aspects")
                assert (order.number, order.rung) == (0, rung)
                store.report_lost(order.trial_id, order.attempt, "died")
                wait_no_longer()
            self.finish(store, measured)
            store.promote("aspects", epoch, [0])
        assert store.trial("aspects", 0).state is TrialState.QUEUED
