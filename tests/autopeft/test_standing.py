import math
from dataclasses import replace

import pytest

from autopeft.objectives import parse
from autopeft.scales import scale
from autopeft.standing import in_full, standing
from autopeft.study import PARAMETERS, Origin, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


def test_front_and_control_are_kept_apart(make_study, make_trial):
    trials = [
        make_trial(0, 0.55, 0, origin=Origin.REFERENCE),
        make_trial(1, 0.70, 64, origin=Origin.CONTROL, label="LoRA r=1"),
        make_trial(2, 0.80, 128),
        make_trial(3, 0.75, 256),
        make_trial(4, 0.90, 512, origin=Origin.INITIAL),
        make_trial(5, state=TrialState.FAILED),
    ]
    now = standing(make_study(), trials)
    assert [trial.number for trial in now.front] == [2, 4]
    assert [trial.number for trial in now.control] == [1]
    assert now.head_only is trials[0]
    assert 0 < now.control_hypervolume < now.hypervolume < 1


def test_a_tighter_budget_leaves_fewer_members(make_study, make_trial):
    trials = [make_trial(0, 0.8, 128), make_trial(1, 0.9, 512)]
    assert [trial.number for trial in standing(make_study(), trials, 256).front] == [0]


def test_an_empty_study_has_an_empty_standing(make_study):
    now = standing(make_study(), [])
    assert (now.front, now.control, now.references, now.hypervolume) == ((), (), (), 0.0)


def test_the_box_runs_from_the_smallest_configuration_to_the_budget(make_study):
    box = scale(make_study())
    assert (box.quality_floor, box.cost_floor, box.cost_ceiling) == (0.5, 32, 512)


def measured(make_trial, number, accuracy, parameters, **figures):
    values = {"accuracy": accuracy, PARAMETERS: parameters, "train_seconds": 1.0, "evaluate_seconds": 0.5}
    fields = {"origin": figures.pop("origin")} if "origin" in figures else {}
    return make_trial(number, accuracy, values=values | figures, **fields)


def of(make_study, names, **fields):
    return make_study(objectives=parse(names, "accuracy", {}), **fields)


def test_a_third_objective_adds_what_is_better_in_it_alone(make_study, make_trial):
    trials = [
        measured(make_trial, 0, 0.6, 64, inference_seconds=0.01, origin=Origin.CONTROL),
        measured(make_trial, 1, 0.8, 128, inference_seconds=0.02),
        measured(make_trial, 2, 0.7, 256, inference_seconds=0.01),
        measured(make_trial, 3, 0.7, 300, inference_seconds=0.01),
    ]
    two, three = make_study(), of(make_study, "accuracy,trainable_parameters,inference_seconds")
    assert [trial.number for trial in standing(two, trials).front] == [1]
    now = standing(three, trials)
    assert [trial.number for trial in now.front] == [2, 1]
    # the box of the seconds is 5 to 20 ms: trial 1 is at its end, and trial 2 half-way; parameters run from 32 to 512
    assert now.hypervolume == pytest.approx(0.4 * (1 - math.log(256 / 32) / math.log(512 / 32)) * 0.5)
    assert 0 < now.control_hypervolume < 1


def test_parameters_need_not_be_an_objective_and_the_budget_holds(make_study, make_trial):
    study = of(make_study, "accuracy,inference_seconds")
    trials = [
        measured(make_trial, 0, 0.8, 500, inference_seconds=0.02),
        measured(make_trial, 1, 0.7, 64, inference_seconds=0.02),
        measured(make_trial, 2, 0.9, 600, inference_seconds=0.01),
    ]
    assert [trial.number for trial in standing(study, trials).front] == [0]
    assert [trial.number for trial in standing(study, trials, 100).front] == [1]


def test_what_breaks_a_limit_is_on_no_front_and_said(make_study, make_trial):
    study = make_study(limits={"peak_memory": 1e6, "stored_bytes": 255})
    small = uniform(make_study().backbone, ("query",), Lora(1, 2.0), 1e-3)
    trials = [
        measured(make_trial, 0, 0.9, 32, peak_memory=2e6, origin=Origin.CONTROL),
        replace(measured(make_trial, 1, 0.8, 32, peak_memory=1e6), configuration=small),
        replace(measured(make_trial, 2, 0.9, 32, peak_memory=3e6), configuration=small),
        measured(make_trial, 3, 0.95, 64, peak_memory=5e5),
        replace(measured(make_trial, 4, 0.7, 16), configuration=small),
    ]
    now = standing(study, trials)
    assert [trial.number for trial in now.front] == [4, 1]
    assert now.control == ()
    # two square modules of width 8 at rank 1 in two layers: 256 bytes
    assert now.broken == {"peak_memory": (0, 2), "stored_bytes": (0, 3)}
    assert now.hypervolume == standing(study, [trials[1], trials[4]]).hypervolume


def test_what_lacks_a_figure_is_on_no_front_and_said(make_study, make_trial):
    trials = [measured(make_trial, 0, 0.9, 64), measured(make_trial, 1, 0.8, 64, peak_memory=1e6)]
    now = standing(of(make_study, "accuracy,peak_memory"), trials)
    assert [trial.number for trial in now.front] == [1]
    assert now.lacking == (0,)


def test_repeats_of_a_configuration_are_one_member_with_their_mean(make_study, make_trial):
    lucky = [
        replace(measured(make_trial, number, accuracy, 128), digest="same", replicate=replicate)
        for replicate, (number, accuracy) in enumerate([(1, 0.95), (4, 0.65), (5, 0.62)])
    ]
    steady = measured(make_trial, 2, 0.8, 128)
    now = standing(make_study(), [*lucky, steady])
    assert [trial.number for trial in now.front] == [2]
    assert now.repeats == {1: 3}
    assert [trial.number for trial in standing(make_study(), [*lucky[:1], steady]).front] == [1]
    alone = standing(make_study(), lucky)
    assert alone.front[0].values["accuracy"] == pytest.approx((0.95 + 0.65 + 0.62) / 3)
    full = in_full(alone, lambda number: lucky[0])
    assert full.front[0].values == alone.front[0].values
    assert full.repeats == alone.repeats


def test_a_configuration_of_the_control_that_the_search_repeats_stays_on_both_sides(make_study, make_trial):
    control = replace(measured(make_trial, 0, 0.7, 64, origin=Origin.CONTROL), digest="same")
    again = replace(measured(make_trial, 1, 0.8, 64), digest="same", replicate=1)
    now = standing(make_study(), [control, again])
    assert (now.control, now.front, now.repeats) == ((control,), (again,), {})
