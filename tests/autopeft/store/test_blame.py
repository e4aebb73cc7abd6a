import random

import pytest

from autopeft.store import blame
from autopeft.store.blame import systematic_failure
from autopeft.study import TrialState

QUEUED, QUARANTINED = TrialState.QUEUED, TrialState.QUARANTINED


def test_the_second_failure_is_the_last():
    assert [blame.after_failure(failures) for failures in (1, 2)] == [QUEUED, TrialState.FAILED]


def test_the_second_lack_of_memory_is_the_last():
    assert [blame.after_memory_failure(failures) for failures in (1, 2, 3)] == [QUEUED, *[TrialState.FAILED] * 2]


def test_the_wait_doubles_up_to_a_minute():
    assert [blame.wait_seconds(blamed) for blamed in (0, 1, 2, 5, 6, 5000)] == [0.0, 2.0, 4.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("lost", "workers", "others_ended", "others_lost", "state"),
    [
        (1, 1, 1000, 0, QUEUED),
        (2, 2, 1000, 0, QUEUED),
        (3, 2, 60, 0, QUARANTINED),
        (3, 1, 60, 0, QUARANTINED),
        (3, 2, 10, 0, QUEUED),
        (5, 2, 10, 0, QUARANTINED),
        (3, 2, 70, 10, QUEUED),
        (9, 1, 9, 9, QUEUED),
        (1000, 1, 1000, 1000, QUEUED),
        (10, 2, 100, 90, QUARANTINED),
    ],
)
def test_losses_count_where_those_of_others_do_not_explain_them(lost, workers, others_ended, others_lost, state):
    assert blame.after_loss(lost, workers, others_ended, others_lost) is state


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.3])
def test_a_healthy_trial_is_quarantined_less_than_once_in_a_thousand_storms(rate):
    dice, quarantined = random.Random(0), 0
    for _ in range(1000 * 60):
        lost = 0
        while dice.random() < rate and not quarantined:
            lost += 1
            if blame.after_loss(lost, 2, 70, round(70 * rate)) is QUARANTINED:
                quarantined += 1
    assert quarantined == 0


class TestSystematicFailure:
    @pytest.fixture
    def failed(self, make_trial):
        def make(*errors, **fields):
            states = {"state": TrialState.FAILED, **fields}
            return [make_trial(number, error=f"{error}\nTraceback", **states) for number, error in enumerate(errors)]

        return make

    def test_the_first_trials_that_fail_alike_are_one_message(self, failed):
        errors = [f"RuntimeError: expected 384 columns, got {size} at 0x7f{size}" for size in (1, 22, 333)]
        found = systematic_failure(failed(*errors))
        assert found == "the first 3 trials all failed alike: RuntimeError: expected 384 columns, got 1 at 0x7f1"

    def test_trials_that_will_be_tried_again_count_as_well(self, failed):
        assert systematic_failure(failed("no data", "no data", "no data", state=QUEUED)) is not None

    def test_two_are_not_enough(self, failed):
        assert systematic_failure(failed("no data", "no data")) is None

    def test_different_messages_are_different_failures(self, failed):
        assert systematic_failure(failed("no data", "no data", "no model")) is None

    @pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.DIVERGED])
    def test_one_trial_that_was_trained_says_that_training_works(self, failed, make_trial, state):
        trials = [*failed("no data", "no data", "no data"), make_trial(9, state=state)]
        assert systematic_failure(trials) is None

    def test_a_record_without_failures_has_none(self, make_trial):
        assert systematic_failure([make_trial(number) for number in range(5)]) is None
        assert systematic_failure([]) is None
