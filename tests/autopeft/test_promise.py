"""What a search promises of a configuration, and how far its final training is from that."""

import math

import pytest

from autopeft.final import FinalRun, FinalSettings, comparisons, kept_run, test_estimate, validation_estimate
from autopeft.precision import Estimate, estimate
from autopeft.promise import Answer, Figure, Promise, compare_cost, compare_quality, promised, same_plan
from autopeft.study import PARAMETERS, Origin, TrialState

test_estimate.__test__ = False


def marks(right, rows=100):
    return tuple([1] * right + [0] * (rows - right))


@pytest.fixture
def three(make_trial):
    """A chosen trial, its repeat with a fresh seed, and another."""
    chosen = make_trial(0, 0.9)
    again = make_trial(1, 0.8, origin=Origin.CONFIRMATION, digest=chosen.digest, replicate=1)
    return [chosen, again, make_trial(2, 0.7)]


def test_runs_with_fresh_seeds_promise_before_those_that_chose(make_study, three):
    study = make_study()
    promise = promised(study, three, 0, {1: marks(80)})
    assert promise.fresh
    quality, parameters = promise.figures[:2]
    assert (quality.value, quality.runs) == (0.8, 1)
    # the spread of 0.9 and 0.8 of one run, and of 100 rows
    assert quality.error == pytest.approx(math.hypot(math.sqrt(0.005), math.sqrt(0.8 * 0.2 / 99)))
    assert parameters == Figure(PARAMETERS, 64, None, 0)


def test_without_fresh_seeds_the_chosen_run_promises_and_that_is_said(make_study, three):
    promise = promised(make_study(), [three[0], three[2]], 0, {})
    assert (promise.fresh, promise.figures[0].value, promise.figures[0].error) == (False, 0.9, None)
    assert [one.number for one in same_plan(three, 2)[0]] == [2]


def test_a_trial_without_a_complete_run_promises_nothing(make_study, make_trial):
    assert promised(make_study(), [make_trial(0)], 0, {}) is None
    failed = make_trial(1, 0.9, state=TrialState.FAILED)
    assert promised(make_study(), [failed], 1, {}) is None


def test_what_is_promised_of_an_accuracy_ends_at_one():
    assert Figure("accuracy", 0.95, 0.05, 3).interval == (pytest.approx(0.852), 1.0)
    assert Figure("train_seconds", 0.95, 0.05, 3).interval == (pytest.approx(0.852), pytest.approx(1.048))


def test_a_promise_reads_back_equal():
    promise = Promise((Figure("accuracy", 0.5, None, 1), Figure(PARAMETERS, 3, None, 0)), True, 12)
    assert Promise.from_json(promise.to_json()) == promise


@pytest.mark.parametrize(
    ("mean", "answer"), [(0.80, Answer.WITHIN), (0.83, Answer.WITHIN), (0.85, Answer.ABOVE), (0.75, Answer.BELOW)]
)
def test_on_validation_only_the_seeds_widen_the_interval(mean, answer):
    measured = Estimate(mean, 5, estimate([mean], [marks(round(mean * 100))]).marks, 0.01)
    found = compare_quality(Figure("accuracy", 0.80, 0.015, 1), measured, "validation", as_searched=True)
    assert found.answer is answer
    assert found.difference == pytest.approx(mean - 0.80)


def test_on_test_its_rows_widen_it_too():
    measured = Estimate(0.85, 5, estimate([0.85], [marks(85)]).marks, 0.01)
    found = compare_quality(Figure("accuracy", 0.80, 0.015, 1), measured, "test", as_searched=True)
    assert found.answer is Answer.WITHIN


def test_an_unknown_interval_and_another_training_are_said():
    measured = Estimate(0.85, 5, estimate([0.85]).marks, 0.01)
    told = [
        compare_quality(Figure("f1", 0.8, error, 1), measured, "test", as_searched=same).answer
        for error, same in ((None, True), (0.1, False))
    ]
    assert told == [Answer.UNKNOWN, Answer.OTHER_TRAINING]


def test_exact_costs_are_equal_or_not_and_seconds_have_a_ratio():
    exact, other = Figure(PARAMETERS, 64, None, 0), Figure(PARAMETERS, 65, None, 0)
    assert compare_cost(exact, exact, as_searched=True).answer is Answer.EQUAL
    assert compare_cost(exact, other, as_searched=True).answer is Answer.DIFFERENT
    seconds = compare_cost(
        Figure("train_seconds", 2.0, None, 1), Figure("train_seconds", 3.0, 0.1, 5), as_searched=True
    )
    assert (seconds.answer, seconds.to_json()["ratio"]) == (Answer.RATIO, 1.5)


def run(seed, validation, test):
    values = {"accuracy": validation, "loss": 0.3, PARAMETERS: 64, "train_seconds": 1.0}
    return FinalRun(
        seed, values, ((1, 0.5),), marks(round(100 * validation)), "0", {}, test, 0.4, marks(round(100 * test))
    )


def test_the_adapter_is_chosen_by_validation_and_never_by_test():
    runs = [run(1, 0.7, 0.9), run(2, 0.8, 0.6), run(3, 0.8, 0.7)]
    assert kept_run("accuracy", runs, full_data=False)[0].seed == 2
    assert kept_run("accuracy", runs, full_data=True)[0].seed == 1


def test_means_over_seeds_carry_their_errors():
    runs = [run(1, 0.7, 0.9), run(2, 0.8, 0.6)]
    found = validation_estimate("accuracy", runs)
    assert (found.mean, found.repeats) == (pytest.approx(0.75), 2)
    assert found.seed_error == pytest.approx(0.05)
    assert found.row_error > 0
    assert test_estimate(runs).mean == pytest.approx(0.75)


def test_of_validation_rows_that_were_trained_on_nothing_is_compared(make_study):
    promise, runs = Promise((Figure("accuracy", 0.8, 0.1, 1),), True, 2), [run(1, 0.7, 0.9)]
    splits = [
        [one.split for one in comparisons(make_study(), FinalSettings((1,), full_data=full), promise, runs, 2)]
        for full in (False, True)
    ]
    assert splits == [["validation", "test"], ["test"]]
    assert comparisons(make_study(), FinalSettings((1,)), None, runs, 2) == []


def test_a_run_reads_back_equal():
    assert FinalRun.from_json(run(1, 0.7, 0.9).to_json()) == run(1, 0.7, 0.9)
