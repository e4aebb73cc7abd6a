import random
from dataclasses import replace

import numpy as np
import pytest

from autopeft import pace, rungs
from autopeft.errors import AutopeftError
from autopeft.fidelity import Fidelity
from autopeft.price import from_trials
from autopeft.study import PARAMETERS, Origin, TrialState

LADDER = Fidelity(80, 4, 16, (20, 40))


@pytest.fixture
def study(make_study):
    return make_study(fidelity=LADDER, trials=8)


@pytest.fixture
def paused(make_trial):
    """Trials that wait at rung 0, by their (loss, cost)."""

    def make(*points, state=TrialState.PAUSED, **fields):
        return [make_trial(number, 0.5, cost, state=state, rung=1, **fields) for number, (_, cost) in enumerate(points)]

    def of(*points, **fields):
        trials = make(*points, **fields)
        return [
            replace(trial, values={**trial.values, "loss": loss})
            for trial, (loss, _) in zip(trials, points, strict=True)
        ]

    return of


def finish(trial, loss=None):
    """The trial one rung further."""
    lower = {**trial.lower, trial.rung - 1: trial.values}
    values = {**trial.values, "loss": trial.values["loss"] if loss is None else loss}
    state = TrialState.COMPLETE if trial.rung + 1 > LADDER.top else TrialState.PAUSED
    return replace(trial, rung=trial.rung + 1, lower=lower, values=values, state=state)


def test_a_promotion_is_due_until_half_of_a_rung_rounded_up_has_gone_on(make_trial):
    waiting = [make_trial(number, 0.5, 10, state=TrialState.PAUSED, rung=1) for number in range(3)]
    assert rungs.promotion_is_due(LADDER, waiting)
    gone = [replace(trial, state=TrialState.COMPLETE, rung=LADDER.top + 1) for trial in waiting]
    assert rungs.promotion_is_due(LADDER, [gone[0], *waiting[1:]])
    assert not rungs.promotion_is_due(LADDER, [*gone[:2], waiting[2]])
    control = [replace(trial, origin=Origin.CONTROL) for trial in waiting]
    assert not rungs.promotion_is_due(LADDER, control)


class TestRanking:
    def test_ranks_by_hand(self):
        points = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [2.0, 3.0], [3.0, 3.0]])
        assert rungs.ranking(points) == [0, 2, 1, 3, 4]

    def test_the_cheapest_and_the_best_come_first_whatever_else_there_is(self):
        generator = np.random.default_rng(0)
        for _ in range(50):
            points = generator.random((12, 2))
            order = rungs.ranking(points)
            ends = {int(points[:, 0].argmin()), int(points[:, 1].argmin())}
            assert ends <= set(order[:2])
            assert sorted(order) == list(range(12))

    def test_no_rank_holds_what_a_lower_one_dominates(self):
        points = np.random.default_rng(1).integers(0, 6, (40, 3)).astype(float)
        order = rungs.ranking(points)
        for place, one in enumerate(order):
            for other in order[place + 1 :]:
                assert not ((points[other] <= points[one]).all() and (points[other] < points[one]).any())

    def test_equal_points_are_each_there_once(self):
        assert sorted(rungs.ranking(np.ones((3, 2)))) == [0, 1, 2]
        assert rungs.ranking(np.zeros((0, 2))) == []


class TestPromotions:
    def test_the_better_half_by_loss_and_cost(self, study, paused):
        trials = paused((0.9, 10), (0.2, 100), (0.95, 50), (0.99, 90))
        assert sorted(rungs.promotions(study, trials, more_to_come=True)) == [0, 1]

    def test_while_more_may_come_half_is_rounded_down_then_up(self, study, paused):
        trials = paused((0.9, 10), (0.8, 20), (0.7, 30))
        assert len(rungs.promotions(study, trials, more_to_come=True)) == 1
        assert len(rungs.promotions(study, trials, more_to_come=False)) == 2
        assert rungs.promotions(study, trials[:1], more_to_come=True) == []
        assert rungs.promotions(study, trials[:1], more_to_come=False) == [0]

    def test_nobody_waits_for_a_rung_to_fill(self, study, paused, make_trial):
        trials = [*paused((0.5, 10), (0.6, 20)), make_trial(2, state=TrialState.RUNNING, rung=0)]
        assert len(rungs.promotions(study, trials, more_to_come=True)) == 1

    def test_what_went_on_counts_and_is_not_asked_again(self, study, paused):
        first, second = paused((0.5, 10), (0.6, 20))
        gone_on = replace(first, state=TrialState.QUEUED)
        assert rungs.promotions(study, [gone_on, second], more_to_come=True) == []
        assert rungs.promotions(study, [finish(first), second], more_to_come=True) == []

    def test_the_higher_rung_goes_first(self, study, paused):
        trials = paused((0.5, 10), (0.6, 5), (0.7, 20), (0.8, 30))
        trials[:2] = [finish(trials[0]), finish(trials[1])]
        assert rungs.promotions(study, trials, more_to_come=True)[0] in (0, 1)

    def test_the_control_neither_competes_nor_climbs(self, study, paused):
        trials = paused((0.5, 10), (0.6, 20), origin=Origin.CONTROL)
        assert rungs.promotions(study, trials, more_to_come=False) == []

    @pytest.mark.parametrize("state", [TrialState.CANCELLED, TrialState.FAILED, TrialState.DIVERGED])
    def test_what_has_ended_does_not_go_on(self, study, paused, state):
        trials = paused((0.5, 10), (0.6, 20))
        trials[0] = replace(trials[0], state=state)
        assert 0 not in rungs.promotions(study, trials, more_to_come=False)

    def test_a_study_without_a_ladder_promotes_nothing(self, make_study, make_trial):
        trials = [make_trial(0, 0.5), make_trial(1)]
        assert rungs.promotions(make_study(), trials, more_to_come=False) == []

    def test_any_order_of_events_ends_with_half_or_more_at_each_rung(self, study, paused):
        """Asynchronous play with random losses: ends, promotes each trial once a rung, and at least the ends."""
        for seed in range(20):
            dice = random.Random(seed)
            trials = paused(*((dice.random(), dice.randint(1, 99)) for _ in range(9)))
            waiting = [replace(t, state=TrialState.RUNNING, rung=0, values={}) for t in trials]
            losses = {trial.number: trial.values for trial in trials}
            while not rungs.is_over(study, waiting, more_to_come=False):
                for number in rungs.promotions(study, waiting, more_to_come=False):
                    assert waiting[number].state is TrialState.PAUSED
                    waiting[number] = replace(waiting[number], state=TrialState.RUNNING)
                running = [t for t in waiting if t.state is TrialState.RUNNING]
                if running:
                    one = dice.choice(running)
                    held = replace(one, values=losses[one.number]) if one.rung == 0 else one
                    lower = {**held.lower, held.rung - 1: held.values} if held.rung else {}
                    state = TrialState.COMPLETE if held.rung == LADDER.top else TrialState.PAUSED
                    waiting[one.number] = replace(held, state=state, rung=held.rung + 1, lower=lower)
            counts = [sum(t.rung > rung for t in waiting) for rung in range(3)]
            assert counts[0] == 9
            assert counts[1] >= 5
            assert counts[2] >= counts[1] / 2
            cheapest = min(waiting, key=lambda t: (losses[t.number][PARAMETERS], losses[t.number]["loss"]))
            assert cheapest.state is TrialState.COMPLETE


class TestEnd:
    def test_paused_trials_that_nobody_promotes_do_not_keep_a_study_open(self, study, paused):
        trials = paused((0.5, 10), (0.6, 20))
        assert not rungs.is_over(study, trials, more_to_come=False)
        done = [finish(finish(trials[0])), trials[1]]
        assert rungs.is_over(study, done, more_to_come=False)
        assert not rungs.is_over(study, done, more_to_come=True)
        with pytest.raises(AutopeftError, match="has reached its target of 2 trials"):
            rungs.require_unfinished(replace(study, trials=2), done)

    def test_a_trial_is_as_it_was_before_its_latest_attempt(self, paused):
        [trial] = paused((0.5, 10))
        assert rungs.as_if_running(trial).state is TrialState.RUNNING
        assert (rungs.as_if_running(trial).rung, dict(rungs.as_if_running(trial).values)) == (0, {})
        second = finish(trial, 0.4)
        before = rungs.as_if_running(second)
        assert (before.rung, before.values["loss"], dict(before.lower)) == (1, 0.5, {})
        third = finish(second, 0.3)
        assert rungs.as_if_running(third) == replace(second, state=TrialState.RUNNING)
        assert rungs.as_if_running(replace(trial, state=TrialState.QUEUED)).state is TrialState.QUEUED


class TestPace:
    def test_the_expected_share_by_hand(self):
        assert rungs.expected_share(LADDER) == 0.25 + 0.5 * 0.25 + 0.25 * 0.5
        assert rungs.expected_share(LADDER, 2) == 0.5
        assert rungs.expected_share(Fidelity(80, 4, 16)) == 1.0

    def test_what_is_left_of_each_trial(self, study, paused, make_trial):
        [trial] = paused((0.5, 10))
        assert rungs.share_left(study, trial) == 0.5 * (0.25 + 0.5 * 0.5)
        assert rungs.share_left(study, replace(trial, state=TrialState.QUEUED)) == 0.25 + 0.5 * 0.5
        assert rungs.share_left(study, finish(finish(trial))) == 0.0
        assert rungs.share_left(study, make_trial(1, origin=Origin.CONTROL, rung=2)) == 1.0

    def test_the_time_left_by_hand(self, study, paused, make_trial):
        """A quarter of a run took 1.5 s, so a full one takes 6 s."""
        trials = [*paused((0.5, 10)), make_trial(1, state=TrialState.RUNNING)]
        assert pace.full_run_seconds(study, trials) == 6.0
        prices, plan = from_trials(study, trials), trials[0].configuration
        assert prices.seconds(plan) == pytest.approx(4 * 1.0 + 0.5, rel=0.05)
        left = prices.seconds(plan) * (0.25 + 0.5) + 2 * 0.5 * prices.expected_seconds([plan, plan])
        assert pace.eta_seconds(study, trials, target=4, workers=2) == pytest.approx(left / 2)

    def test_without_rungs_it_is_mean_times_what_is_left(self, make_study, make_trial):
        trials = [make_trial(0, 0.5), make_trial(1, 0.6), make_trial(2)]
        assert pace.eta_seconds(make_study(), trials, target=6, workers=2) == pytest.approx(1.5 * 4 / 2, rel=0.05)
        assert pace.eta_seconds(make_study(), [make_trial(0)], target=6, workers=2) is None
