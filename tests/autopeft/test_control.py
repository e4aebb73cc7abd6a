"""The control: which learning rates it has, at what it chooses one, and that the record alone decides."""

from dataclasses import replace

import pytest

from autopeft import control
from autopeft.study import Direction, Objective, Origin, Study, TrialState
from search_spaces.cost import trainable_parameters
from search_spaces.presets import layerwise

RATES = (1e-4, 1e-3, 1e-2)


@pytest.fixture
def study(make_study):
    return make_study(control_rates=3)


@pytest.fixture
def tried(study, make_trial):
    """Trials of the control with its rates, by their scores; None: it failed."""

    def make(*scores, state=TrialState.COMPLETE):
        trials = []
        for number, (plan, score) in enumerate(zip(control.first(study).values(), scores, strict=False)):
            one = make_trial(number, score, origin=Origin.CONTROL, configuration=plan, state=state)
            trials.append(replace(one, digest=plan.digest) if score else replace(one, state=TrialState.FAILED))
            trials[-1] = replace(trials[-1], digest=plan.digest)
        return trials

    return make


def test_rates_are_spread_over_the_range_of_the_space_with_the_usual_one_among_them(make_study, tiny_backbone):
    assert control.rates(make_study()) == (1e-3,)
    assert control.rates(make_study(control_rates=3)) == RATES
    assert control.rates(make_study(control_rates=3, control_learning_rate=2e-3)) == (1e-4, 2e-3, 1e-2)
    beyond = make_study(control_rates=2, control_learning_rate=0.5)
    assert control.rates(beyond) == (1e-4, 1e-2)
    fixed = make_study(control_rates=3, space=layerwise(tiny_backbone, (4e-3, 4e-3)))
    assert control.rates(fixed) == (4e-3,) and control.missing(fixed, ()) == {}
    assert {plan.training.learning_rate for plan in control.first(fixed).values()} == {4e-3}


def test_with_one_rate_every_size_is_first(make_study):
    one = make_study()
    assert control.first(one) == control.sizes(one) and len(control.first(one)) == 6
    assert control.to_come(one, ()) == [] and control.first_digests(one) == frozenset()
    assert control.rejected(one, ()) == frozenset()


def test_the_rate_is_chosen_at_the_size_in_the_middle(study):
    costs = {trainable_parameters(plan, study.backbone) for plan in control.first(study).values()}
    rising = sorted(trainable_parameters(plan, study.backbone) for plan in control.sizes(study).values())
    assert costs == {rising[2]}
    assert [plan.training.learning_rate for plan in control.first(study).values()] == list(RATES)
    assert len(control.planned(study)) == 3 + 5
    assert Study.from_json(study.to_json()) == study


def test_nothing_is_chosen_before_all_rates_have_ended(study, tried):
    assert control.chosen_rate(study, tried(0.6, 0.8)) is None
    waiting = [*tried(0.6, 0.8), *tried(0.6, 0.8, 0.9, state=TrialState.RUNNING)[2:]]
    assert control.chosen_rate(study, waiting) is None
    assert control.missing(study, waiting) == {} and control.rejected(study, waiting) == frozenset()
    assert len(control.to_come(study, waiting)) == 5


@pytest.mark.parametrize(
    ("scores", "rate"), [((0.6, 0.8, 0.9), 1e-2), ((0.9, 0.8, 0.9), 1e-4), ((0.7, 0.7, 0.7), 1e-3), ((0, 0, 0), 1e-3)]
)
def test_the_best_rate_is_chosen_and_the_usual_one_of_equals(study, tried, scores, rate):
    trials = tried(*scores)
    assert control.chosen_rate(study, trials) == control.chosen_rate(study, trials[::-1]) == rate
    others = control.missing(study, trials)
    assert len(others) == 5 and {plan.training.learning_rate for plan in others.values()} == {rate}
    assert all(label.endswith(f" at {rate:g}") for label in others)
    kept = {plan.digest for plan in control.first(study).values() if plan.training.learning_rate == rate}
    assert control.rejected(study, trials) == control.first_digests(study) - kept


def test_of_a_metric_that_is_better_lower_the_lowest_is_chosen(study, tried):
    lower = replace(study, objectives=(Objective("accuracy", Direction.MINIMISE), *study.objectives[1:]))
    assert control.chosen_rate(lower, tried(0.6, 0.8, 0.9)) == 1e-4


def test_a_rate_that_sizes_were_trained_with_stays(study, tried, make_trial):
    trials = tried(0.6, 0, 0.9)
    plans = list(control.missing(study, trials).values())
    trials += [replace(make_trial(9, 0.7, origin=Origin.CONTROL, configuration=plans[0]), digest=plans[0].digest)]
    retried = [*tried(0.6, 0.99, 0.9), trials[-1]]
    assert control.chosen_rate(study, retried) == 1e-2
    assert list(control.missing(study, retried).values()) == plans[1:]
