from dataclasses import replace

import numpy as np

from autopeft import asking, control
from autopeft.confirming import missing
from autopeft.fidelity import Fidelity
from autopeft.objectives import parse
from autopeft.standing import standing
from autopeft.study import PARAMETERS, Origin, Trial, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


def finished(number, plan, accuracy, parameters):
    values = {"accuracy": accuracy, PARAMETERS: parameters}
    return Trial(number, plan, plan.digest, TrialState.COMPLETE, Origin.MODEL, None, 0, 1, 1, None, values, None)


def test_the_control_informs_but_counts_for_no_front_and_the_head_alone_is_left_out(make_study, make_trial):
    trials = [
        make_trial(0, 0.55, 0, origin=Origin.REFERENCE),
        make_trial(1, 0.70, 64, origin=Origin.CONTROL),
        make_trial(2, 0.80, 128),
        make_trial(3, state=TrialState.RUNNING),
        make_trial(4, state=TrialState.FAILED),
    ]
    seen = asking.observations(make_study(), trials)
    assert [(o.values[PARAMETERS], o.counts) for o in seen] == [(64, False), (128, True)]


def test_a_diverged_trial_scores_like_guessing_and_is_on_no_front(make_study, make_trial):
    (seen,) = asking.observations(make_study(), [make_trial(0, state=TrialState.DIVERGED)])
    assert (seen.values, seen.counts) == ({"accuracy": 0.5}, False)


def test_the_exact_figures_of_a_configuration_are_known_before_it_is_tried(make_study, make_trial):
    study, trial = make_study(), make_trial()
    known = asking.demands(study, [trial]).known
    assert known["stored_bytes"](trial.configuration) == 4 * 64
    # rank 1 on two square modules of width 8 in two layers, 16 tokens: 2 · 16 · (8 + 8) each
    assert known["forward_flops"](trial.configuration) == 4 * 2 * 16 * 16


def test_objectives_have_their_axes_and_observations_their_figures(make_study, make_trial):
    study = make_study(objectives=parse("accuracy,stored_bytes,peak_memory", "accuracy", {}))
    values = {"accuracy": 0.7, PARAMETERS: 64, "peak_memory_bytes": 1e6}
    trials = [make_trial(0, 0.7, origin=Origin.CONTROL, values=values)]
    axes = asking.demands(study, trials).axes
    assert set(axes) == {"stored_bytes", "peak_memory"}
    assert (axes["peak_memory"].best, axes["peak_memory"].worst) == (5e5, 2e6)
    (seen,) = asking.observations(study, trials)
    assert {name: seen.values[name] for name in ("stored_bytes", "peak_memory")} == {
        "stored_bytes": 256,
        "peak_memory": 1e6,
    }


def test_a_limit_on_a_measured_objective_is_the_end_of_its_axis_and_counted_once(make_study, make_trial):
    limits = {"peak_memory": 1.5e6, "train_seconds": 60.0, "stored_bytes": 300.0}
    study = make_study(objectives=parse("accuracy,stored_bytes,peak_memory", "accuracy", {}), limits=limits)
    trials = [make_trial(0, 0.7, values={"accuracy": 0.7, PARAMETERS: 64, "peak_memory": 1e6})]
    asked = asking.demands(study, trials)
    assert {name: limit for name, limit in asked.limits.items() if name != "foreseen_memory"} == {
        "train_seconds": 60.0,
        "stored_bytes": 300.0,
    }
    assert asked.axes["peak_memory"].worst == 1.5e6
    assert asked.keeps_exact_limits(trials[0].configuration)
    dearer = uniform(study.backbone, ("query", "value"), Lora(2, 2.0), 1e-3)
    assert not asked.keeps_exact_limits(dearer)


def test_a_repeat_gets_the_next_replicate_number(make_study, make_trial):
    first, other = make_trial(0), make_trial(1)
    plan = first.configuration
    trials = [replace(first, digest=plan.digest), replace(other, digest=plan.digest, replicate=3)]
    fresh = uniform(make_study().backbone, ("query",), Lora(2, 2.0), 1e-3)
    ready = asking.proposals([plan, fresh, plan, fresh], trials, Origin.MODEL)
    assert [proposal.replicate for proposal in ready] == [4, 0, 5, 1]
    assert [proposal.configuration for proposal in ready] == [plan, fresh, plan, fresh]


def test_the_odds_of_being_on_the_front_follow_what_was_seen(make_study):
    study = make_study(proposer="closed-form")
    space, trials = study.search_space, []
    for number in range(12):
        plan = space.sample(np.random.default_rng(number), 512)
        cost = space.cost(plan)
        trials.append(finished(number, plan, 0.5 + cost / 2000, cost))
    best = max(trials, key=lambda trial: trial.values["accuracy"])
    worst = finished(12, space.sample(np.random.default_rng(99), 512), 0.5, 512)
    odds = asking.odds(study, [*trials, worst])
    assert set(odds) == {trial.digest for trial in [*trials, worst]}
    assert odds[best.digest] > 0.5 > odds[worst.digest]
    assert asking.odds(study, [*trials, worst]) == odds
    assert asking.odds(study, []) == {}


def test_references_are_asked_for_once_beside_what_was_searched(make_study, make_trial):
    study = make_study(references=("prefix", "full"))
    proposals = asking.missing_references(study, [])
    assert {one.origin for one in proposals} == {Origin.REFERENCE} and {one.replicate for one in proposals} == {0}
    assert [one.label for one in proposals][-1] == "full fine-tuning"
    assert len(proposals) == len({one.configuration.digest for one in proposals}) > 1
    first = proposals[0]
    asked = make_trial(0, 0.7, 64, origin=Origin.REFERENCE, configuration=first.configuration)
    asked = replace(asked, digest=first.configuration.digest)
    assert [one.label for one in asking.missing_references(study, [asked])] == [one.label for one in proposals[1:]]
    tried = replace(asked, origin=Origin.MODEL)
    again = asking.missing_references(study, [tried])
    assert [one.replicate for one in again] == [asking.APART, *[0] * (len(proposals) - 1)]
    assert asking.missing_references(make_study(), []) == []


def test_references_teach_the_proposer_nothing(make_study, make_trial):
    reference = make_trial(0, 0.9, 64, origin=Origin.REFERENCE)
    assert asking.observations(make_study(), [reference]) == []


def test_every_search_begins_with_the_head_alone_and_the_first_of_its_control(make_study):
    study = make_study(control_rates=3, fidelity=Fidelity(8, 4, 16, (2, 4)))
    head, *first = asking.fixed(study)
    assert (head.origin, head.label) == (Origin.REFERENCE, "head only") and head.configuration.is_empty
    assert [one.label for one in first] == list(control.first(study))
    assert {(one.origin, one.rung, one.priority, one.replicate) for one in first} == {(Origin.CONTROL, 2, 1, 0)}


def test_a_size_that_the_search_has_tried_gets_a_data_order_apart(make_study, make_trial):
    study = make_study(control_rates=3)
    first = [
        replace(make_trial(n, 0.7, origin=Origin.CONTROL, configuration=plan), digest=plan.digest)
        for n, plan in enumerate(control.first(study).values())
    ]
    one, *others = asking.missing_control(study, first)
    tried = replace(make_trial(9, 0.8, configuration=one.configuration), digest=one.configuration.digest)
    again = asking.missing_control(study, [*first, tried])
    assert [proposal.configuration for proposal in again] == [proposal.configuration for proposal in [one, *others]]
    assert [proposal.replicate for proposal in again] == [asking.APART, *[0] * len(others)]


def test_what_control_and_search_have_in_common_leaves_the_fresh_seeds_to_both(make_study, make_trial):
    study = make_study(confirmations=1)
    plan = uniform(study.backbone, ("query",), Lora(2, 2.0), 1e-3)
    swept = replace(make_trial(0, 0.7, origin=Origin.CONTROL, configuration=plan), digest=plan.digest)
    [proposed] = asking.proposals([plan], [swept], Origin.INITIAL)
    assert proposed.replicate == asking.APART
    tried = replace(swept, number=1, origin=Origin.INITIAL, replicate=proposed.replicate)
    assert [one.replicate for one in asking.proposals([plan, plan], [swept, tried], Origin.MODEL)] == [10_001, 1]
    wanted = missing(study, [swept, tried], standing(study, [swept, tried]))
    assert [(one.replicate, one.configuration) for one in wanted] == [(1, plan)]
