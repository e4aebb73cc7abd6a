import json

import numpy as np
import pytest

from autopeft.errors import BudgetError, ConfigurationError
from autopeft.objectives import exact, parse
from autopeft.pareto import Axis
from autopeft.scales import box, exact_box, require_feasible, scale, trading, with_boxes
from autopeft.study import PARAMETERS, Origin, Study


def study_of(make_study, names, **fields):
    return with_boxes(make_study(objectives=parse(names, "accuracy", {}), **fields))


def with_figures(make_trial, number, origin, **figures):
    cost = 0 if origin is Origin.REFERENCE else 64  # the head alone
    return make_trial(number, 0.7, origin=origin, values={"accuracy": 0.7, PARAMETERS: cost, **figures})


def test_two_objectives_have_the_box_of_quality_and_parameters(make_study):
    study = make_study()
    assert box(study, []) == scale(study).box
    assert box(study, [], 256) == scale(study, 256).box
    assert with_boxes(study) == study


def test_the_box_of_an_exact_cost_holds_the_space_and_is_stored(make_study):
    study = study_of(make_study, "accuracy,stored_bytes,forward_flops")
    _, stored, flops = box(study, []).axes
    # LoRA stores four bytes a trained parameter, of which there are 32 to 512; half the smallest is sure to be seen
    assert stored.best == 4 * 32 / 2
    assert stored.worst >= 4 * 512
    assert stored.logarithmic and flops.logarithmic
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study
    space, cost = study.search_space, exact(study)["forward_flops"]
    values = [cost(space.sample(np.random.default_rng(seed), 512)) for seed in range(50)]
    assert flops.best <= min(values) <= max(values) <= flops.worst


def test_a_stored_box_is_kept(make_study):
    study = study_of(make_study, "accuracy,stored_bytes")
    data = study.to_json()
    data["objectives"][1]["box"] = [1.0, 9.0]
    assert box(Study.from_json(data), []).axes[1] == Axis(1.0, 9.0, logarithmic=True)
    assert with_boxes(Study.from_json(data)).objectives[1].box == (1.0, 9.0)


def test_the_box_of_a_measured_cost_is_anchored_on_the_fixed_trials_and_stays(make_study, make_trial):
    study = study_of(make_study, "accuracy,train_seconds")
    fixed = [
        with_figures(make_trial, 0, Origin.REFERENCE, train_seconds=2.0),
        with_figures(make_trial, 1, Origin.CONTROL, train_seconds=8.0),
    ]
    searched = [with_figures(make_trial, number, Origin.MODEL, train_seconds=100.0 * number) for number in (2, 3)]
    expected = Axis(1.0, 16.0, logarithmic=True)
    assert box(study, fixed).axes[1] == expected
    assert box(study, [*fixed, *searched]).axes[1] == expected
    slow = make_trial(4, 0.9, 10**6, origin=Origin.REFERENCE)
    slow = slow.with_values({**slow.values, "train_seconds": 1e4})  # full fine-tuning stretches no axis
    assert box(study, [*fixed, slow]).axes[1] == expected
    assert box(study, searched).axes[1] == Axis(100.0, 400.0, logarithmic=True)
    assert box(study, []).axes[1] == Axis(1.0, 1.0, logarithmic=True)


def test_the_loss_runs_from_nothing_to_the_worst_of_the_fixed_trials(make_study, make_trial):
    study = study_of(make_study, "accuracy,loss")
    fixed = [with_figures(make_trial, n, Origin.CONTROL, loss=loss) for n, loss in enumerate((0.4, 1.1, 0.6))]
    assert box(study, fixed).axes[1] == Axis(0.0, 1.1)


def test_a_limit_is_the_end_of_its_axis(make_study, make_trial):
    fixed = [with_figures(make_trial, 0, Origin.CONTROL, train_seconds=8.0)]
    for limit, axis in ((6.0, Axis(3.0, 6.0, True)), (1.0, Axis(0.5, 1.0, True)), (99.0, Axis(4.0, 16.0, True))):
        study = study_of(make_study, "accuracy,train_seconds", limits={"train_seconds": limit})
        assert box(study, fixed).axes[1] == axis


def test_a_space_whose_adapters_cost_nothing_has_an_axis_without_length(make_study, monkeypatch):
    monkeypatch.setattr("search_spaces.cost.forward_flops", lambda *_: 0)
    assert exact_box(make_study(), "forward_flops") == (1.0, 1.0)


def test_exact_limits_that_nothing_keeps_are_refused_with_the_least_seen(make_study):
    require_feasible(make_study())
    require_feasible(make_study(limits={"stored_bytes": 128, "train_seconds": 1e-6}))
    with pytest.raises(BudgetError, match=r"stored_bytes ≤ 127 B: none of 128 .* the least seen: stored_bytes 128 B"):
        require_feasible(make_study(limits={"stored_bytes": 127}))


def test_a_study_can_be_looked_at_by_other_objectives(make_study):
    study = study_of(make_study, "accuracy,stored_bytes", limits={"train_seconds": 3.0})
    seen = trading(study, "accuracy,forward_flops,stored_bytes")
    assert [objective.name for objective in seen.objectives] == ["accuracy", "forward_flops", "stored_bytes"]
    assert seen.objectives[2] == study.objectives[1]
    assert seen.objectives[1].box == exact_box(study, "forward_flops")
    assert seen.limits == study.limits
    with pytest.raises(ConfigurationError, match="did you mean 'forward_flops'"):
        trading(study, "accuracy,forwardflops")
