"""Prices follow what was measured, lean on proportions where that is little, and add up to what is left."""

import numpy as np
import pytest

from autopeft import asking
from autopeft.pace import eta_seconds
from autopeft.price import (
    DRAWS_COUNT_AS,
    Measured,
    Prices,
    calibration_plans,
    drawn,
    figures,
    from_trials,
)
from autopeft.study import Origin, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora

STEP = np.array([0.02, 0.08, 0.003, 0.05, 0.0])
ROW = np.array([0.0001, 0.0004, 0.00002, 0.0002, 0.0])


def measured(study, plans, noise=0.0):
    generator = np.random.default_rng(0)
    rows = [figures(plan, study.backbone) for plan in plans]
    return [
        Measured(plan, float(row @ STEP) * factor, float(row @ ROW) * factor)
        for plan, row, factor in zip(plans, rows, 1 + noise * generator.standard_normal(len(rows)), strict=True)
    ]


def errors(prices, study, plans):
    true = [float(figures(plan, study.backbone) @ STEP) * study.fidelity.steps for plan in plans]
    return np.abs(np.array([prices.train_seconds(plan) for plan in plans]) / true - 1)


def layer(rank):
    return LayerPlan((Placement("query", Lora(rank, 2.0)), Placement("value", Lora(rank, 2.0))))


def test_the_figures_of_a_configuration_by_hand(make_study):
    backbone = make_study().backbone
    upper = Configuration((LayerPlan(), layer(2)), Training(1e-3))
    flops = 2 * (4 * 8 * 8 + 2 * 8 * 16)
    assert figures(upper, backbone).tolist() == [1, 1, 2, pytest.approx(2 * 2 * 2 * (8 + 8) / flops), 1]
    assert figures(Configuration((LayerPlan(),) * 2, Training(1e-3)), backbone).tolist() == [1, 0, 0, 0, 2]


def test_a_few_measurements_price_the_rest_of_the_space(make_study):
    study = make_study()
    prices = Prices.fitted(study, 100, measured(study, calibration_plans(study)))
    assert np.median(errors(prices, study, drawn(study))) <= 0.05
    some = drawn(study)[0]
    assert prices.evaluate_seconds(some) == pytest.approx(100 * figures(some, study.backbone) @ ROW, rel=0.3)
    assert prices.seconds(some) == prices.train_seconds(some) + prices.evaluate_seconds(some)
    assert prices.extremes()["least_seconds"] <= prices.expected_seconds() <= prices.extremes()["most_seconds"]


def test_one_measurement_is_enough_for_a_price_of_the_right_size(make_study):
    study = make_study()
    prices = Prices.fitted(study, 1, measured(study, drawn(study)[:1]))
    assert np.median(errors(prices, study, drawn(study))) <= 0.5


def test_more_measurements_make_better_prices(make_study):
    study = make_study()
    few, many = (Prices.fitted(study, 1, measured(study, drawn(study)[:n], noise=0.1)) for n in (2, 60))
    assert errors(many, study, drawn(study)).mean() < errors(few, study, drawn(study)).mean()
    assert np.median(errors(many, study, drawn(study))) <= 0.05


def test_prices_are_never_negative(make_study):
    study = make_study()
    odd = [Measured(plan, seconds, 0.0) for plan, seconds in zip(drawn(study)[:6], (9, 1, 9, 1, 9, 1), strict=True)]
    prices = Prices.fitted(study, 1, odd)
    assert min(prices.seconds(plan) for plan in drawn(study)) >= 0
    assert prices.evaluate_seconds(drawn(study)[0]) == 0


def test_the_calibration_spans_the_layers_that_train(make_study):
    study = make_study()
    plans = calibration_plans(study)
    layers = [figures(plan, study.backbone)[1] for plan in plans]
    assert (min(layers), max(layers)) == (1, 2)
    assert plans == calibration_plans(study)


@pytest.fixture
def done(make_study, make_trial):
    """Complete trials of configurations drawn from the space, that took what ``STEP`` and ``ROW`` say."""

    def make(study, count):
        trials = []
        for number, m in enumerate(measured(study, drawn(study)[:count])):
            values = {"accuracy": 0.5, "train_seconds": m.step_seconds * study.fidelity.steps}
            values["evaluate_seconds"] = m.row_seconds * 600
            trial = make_trial(number, configuration=m.configuration, state=TrialState.COMPLETE, rung=1, values=values)
            trials.append(trial)
        return trials

    return make


def test_after_five_trials_what_is_left_is_known_within_a_quarter(make_study, make_trial, done):
    study = make_study(trials=40)
    whole = done(study, 40)
    left = eta_seconds(study, whole[:5], 40, workers=2)
    true = sum(t.values["train_seconds"] + t.values["evaluate_seconds"] for t in whole[5:]) / 2
    assert left == pytest.approx(true, rel=0.25)


def test_what_waits_or_runs_has_its_own_price(make_study, make_trial, done):
    study = make_study()
    trials = done(study, 6)
    prices = from_trials(study, trials)
    plans = drawn(study)[6:8]
    waiting = make_trial(6, configuration=plans[0], state=TrialState.QUEUED)
    running = make_trial(7, configuration=plans[1], state=TrialState.RUNNING)
    expected = prices.seconds(plans[0]) + prices.seconds(plans[1])
    assert eta_seconds(study, [*trials, waiting, running], 8, 1) == pytest.approx(expected)
    assert eta_seconds(study, trials, 6, 1) == 0
    more = eta_seconds(study, trials, 7, 1)
    assert more == pytest.approx(prices.expected_seconds([trial.configuration for trial in trials]))


def test_the_latest_proposals_count_for_what_is_to_come(make_study, done):
    study = make_study()
    prices = from_trials(study, done(study, 6))
    dearest = max(drawn(study), key=prices.seconds)
    mean, dear = prices.expected_seconds(), prices.seconds(dearest)
    assert prices.expected_seconds([dearest] * 20) == pytest.approx((DRAWS_COUNT_AS * mean + 10 * dear) / 15)


def test_nothing_is_known_before_a_trial_with_adapters_is_done(make_study, make_trial):
    study = make_study(hours=1.0)
    head = Configuration((LayerPlan(),) * 2, Training(1e-3))
    alone = make_trial(0, 0.4, configuration=head, origin=Origin.REFERENCE)
    assert from_trials(study, [alone]) is None
    assert eta_seconds(study, [alone], 9, 1) is None
    assert asking.demands(study, [alone]).predicted_seconds is None


def test_the_proposer_is_told_prices_where_hours_are_the_budget(make_study, done):
    study = make_study(hours=1.0)
    trials = done(study, 6)
    told = asking.demands(study, trials).predicted_seconds
    plan = drawn(study)[9]
    assert told(plan) == from_trials(study, trials).seconds(plan)
    assert asking.demands(make_study(), trials).predicted_seconds is None
