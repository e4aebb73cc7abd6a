"""The control's trials: a rate chosen at one size, then the other sizes."""

from dataclasses import replace

import pytest

from autopeft import asking, control
from autopeft.progress import Ending
from autopeft.rungs import require_unfinished
from autopeft.study import Measurement, Origin
from search_spaces.cost import trainable_parameters


def control_of(store, study):
    return [trial for trial in store.trials(study.name) if trial.origin is Origin.CONTROL]


@pytest.mark.parametrize(("count", "trials"), [(1, 1), (1, 8), (3, 8)])
def test_the_control_chooses_its_rate_at_one_size_while_the_search_goes_on(
    store, url, make_study, count, trials, drive, searched
):
    study = make_study(trials=trials, control_rates=3, confirmations=1)
    store.create_study(study)
    assert drive(store, url, study, count=count, until_queued={3}) is Ending.TARGET  # the last that chooses
    first, others = control_of(store, study)[:3], control_of(store, study)[3:]
    assert [trial.number for trial in first] == [1, 2, 3]
    assert [one.configuration.training.learning_rate for one in first] == list(control.rates(study))
    assert len({one.values["trainable_parameters"] for one in first}) == 1
    rate = control.chosen_rate(study, store.trials(study.name))
    assert {one.configuration.training.learning_rate for one in others} == {rate}
    assert len(others) == len(control.sizes(study)) - 1 == 5
    proposed = min(trial.number for trial in searched(store.trials(study.name)))
    assert proposed < others[0].number  # nobody waited for the choice
    again = [one for one in store.trials(study.name) if one.origin is Origin.CONFIRMATION]
    repeated = {one.digest for one in again} & {one.digest for one in control_of(store, study)}
    assert len(repeated) == 6 and not repeated & control.rejected(study, store.trials(study.name))
    assert drive(store, url, study) is Ending.TARGET and len(control_of(store, study)) == 8


def test_a_search_that_dies_before_the_choice_takes_the_same_rate_when_resumed(store, url, make_study, drive):
    study = make_study(trials=3, control_rates=3)
    store.create_study(study)
    store.enqueue(study.name, store.acquire_driver(study.name, "gone"), asking.fixed(study), -1.0)
    for score in (0.6, 0.6, 0.9, 0.7):  # the head alone, then the three rates
        order = store.lease("w", study.name)
        cost = trainable_parameters(order.configuration, study.backbone)
        values = {"accuracy": score, "trainable_parameters": cost, "loss": 0.5, "train_seconds": 0.1}
        store.report(order.trial_id, order.attempt, Measurement(order.rung, values | {"evaluate_seconds": 0.1}))
    require_unfinished(replace(study, trials=0), store.trials(study.name))  # what is left is the control's
    assert drive(store, url, study) is Ending.TARGET
    assert {one.configuration.training.learning_rate for one in control_of(store, study)[3:]} == {
        control.rates(study)[1]
    }


def test_failed_choices_and_exhausted_spaces_keep_nobody_waiting(store, url, make_study, drive):
    study = make_study(trials=4, control_rates=3)
    store.create_study(study)
    assert drive(store, url, study, fail={1, 2, 3}, count=1) is Ending.TARGET
    usual = study.control_learning_rate
    assert {one.configuration.training.learning_rate for one in control_of(store, study)[3:]} == {usual}
    assert len(control_of(store, study)) == 8
