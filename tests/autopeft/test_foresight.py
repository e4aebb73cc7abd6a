import pytest

from autopeft import asking
from autopeft.errors import BudgetError
from autopeft.foresight import MARGIN, foreseen_memory
from autopeft.scales import require_feasible
from autopeft.study import PARAMETERS, Fidelity, Origin
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.memory import Workload, training_memory
from search_spaces.methods.lora import Lora

BESIDE = 1000.0
"""Bytes of the head that no study knows of."""


def plan(backbone, rank, sites=("query", "value")):
    return uniform(backbone, sites, Lora(rank, 2.0), 1e-3)


def peak(backbone, configuration, tokens=5, rows=4):
    return float(training_memory(configuration, backbone, Workload(rows, tokens, head="none")).held)


def trial(make_trial, backbone, number, configuration, origin=Origin.CONTROL):
    values = {"accuracy": 0.7, PARAMETERS: 64, "peak_memory": peak(backbone, configuration) + BESIDE}
    return make_trial(number, 0.7, configuration=configuration, origin=origin, values=values)


@pytest.fixture
def head_only(make_trial, tiny_backbone):
    empty = Configuration((LayerPlan(),) * 2, Training(1e-3))
    return trial(make_trial, tiny_backbone, 0, empty, Origin.REFERENCE)


def test_two_trials_tell_what_all_others_take(make_study, make_trial, tiny_backbone, head_only):
    # rows are at most 16 tokens by the study, and 5 in truth
    study = make_study(fidelity=Fidelity(steps=2, batch_size=4, max_length=16))
    foreseen = foreseen_memory(study, [head_only, trial(make_trial, tiny_backbone, 1, plan(tiny_backbone, 1))])
    for rank, sites in ((1, ("query",)), (8, ("query", "value")), (4, ("up", "down", "output"))):
        other = plan(tiny_backbone, rank, sites)
        assert foreseen(other) == pytest.approx(peak(tiny_backbone, other) + BESIDE, rel=0.01)


def test_before_a_trial_is_measured_there_is_a_lower_bound(make_study, tiny_backbone, head_only):
    study, other = make_study(), plan(tiny_backbone, 2)
    for trials in ([], [head_only]):
        assert foreseen_memory(study, trials)(other) == peak(tiny_backbone, other, tokens=1, rows=1)


def test_a_family_without_arithmetic_has_no_foresight(make_study, tiny_backbone):
    from dataclasses import replace

    study = make_study(backbone=replace(tiny_backbone, family="unheard-of"), limits={"peak_memory": 1.0})
    assert foreseen_memory(study, []) is None
    assert "foreseen_memory" not in asking.demands(study, []).known
    require_feasible(study)


def test_a_limit_below_what_the_weights_take_is_refused_before_anything_is_trained(make_study, tiny_backbone):
    require_feasible(make_study(limits={"peak_memory": 100e3}))
    with pytest.raises(BudgetError, match=r"peak_memory ≤ 12 kB: none of 128 .* the least seen: peak_memory 1"):
        require_feasible(make_study(limits={"peak_memory": 12e3}))


def test_what_is_foreseen_to_break_the_limit_is_never_proposed(make_study, make_trial, tiny_backbone, head_only):
    small, large = plan(tiny_backbone, 1), plan(tiny_backbone, 8, ("query", "value", "up", "down"))
    limit = peak(tiny_backbone, small) + BESIDE
    study = make_study(limits={"peak_memory": limit})
    asked = asking.demands(study, [head_only, trial(make_trial, tiny_backbone, 1, small)])
    assert asked.limits == {"peak_memory": limit, "foreseen_memory": limit * MARGIN}
    assert asked.keeps_exact_limits(small)
    assert peak(tiny_backbone, large) + BESIDE > limit * MARGIN
    assert not asked.keeps_exact_limits(large)
