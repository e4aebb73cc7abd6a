"""Which trials share a forward pass, and what the others are told."""

from dataclasses import replace

import pytest

from autopeft.admission import STARTS, why_alone
from autopeft.regime import Regime
from autopeft.study import Direction, Objective
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.prefix import Prefix
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection

ROWS = (LayerPlan((Placement("query", Lora(2, 4.0)), Placement("attention", Prefix(2)))), LayerPlan())


def test_an_ordinary_trial_is_packed(study, make_order):
    assert why_alone(make_order(study)) is None
    assert why_alone(make_order(study, Configuration(ROWS, Training(1e-3)))) is None
    for init in STARTS:
        assert why_alone(make_order(study, uniform(study.backbone, ("query",), Lora(2, 4.0, init=init), 1e-3))) is None


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Configuration((LayerPlan(), LayerPlan()), Training(1e-3, backbone=True)), "every weight"),
        (Configuration((LayerPlan(), LayerPlan()), Training(1e-3)), "nothing is inserted"),
        (Configuration((LayerPlan((Placement("query", Mola(3, 2, 4.0)),)), LayerPlan()), Training(1e-3)), "routers"),
        (
            Configuration((LayerPlan((Placement("query", Lora(2, 4.0, init="eva")),)), LayerPlan()), Training(1e-3)),
            "eva",
        ),
        (
            Configuration((LayerPlan((Placement("query", Lora(2, 4.0, init="pissa")),)), LayerPlan()), Training(1e-3)),
            "changes the frozen weight",
        ),
        (Configuration(ROWS[:1] * 2, Training(1e-3, schedule=UpdateSchedule())), "schedule"),
        (Configuration(ROWS[1:] * 2, Training(1e-3, selection=Selection(0.5))), "nothing is inserted"),
        (
            Configuration(
                (LayerPlan((Placement("query", Lora(2, 4.0)),)), LayerPlan()), Training(1e-3, selection=Selection(0.5))
            ),
            "selects among",
        ),
    ],
)
def test_some_plans_run_alone(study, make_order, plan, reason):
    assert reason in why_alone(make_order(study, plan))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda study: {"regime": Regime(gpus=2)}, "several GPUs"),
        (lambda study: {"regime": Regime(gradient_checkpointing=True)}, "anew"),
        (lambda study: {"regime": Regime(precision="fp16")}, "float16"),
        (lambda study: {"model": replace(study.model, load_in="4bit")}, "quantised"),
        (lambda study: {"fidelity": replace(study.fidelity, packing=True)}, "end to end"),
        (lambda study: {"fidelity": replace(study.fidelity, micro_batch=4)}, "in pieces"),
        (lambda study: {"backbone": replace(study.backbone, projects_positions=True)}, "positions"),
        (
            lambda study: {"objectives": (*study.objectives[:1], Objective("peak_memory", Direction.MINIMISE))},
            "peak_memory is measured",
        ),
        (lambda study: {"limits": {"train_seconds": 5.0}}, "train_seconds is measured"),
    ],
)
def test_all_trials_of_some_studies_run_alone(study, make_order, change, reason):
    assert reason in why_alone(make_order(replace(study, **change(study))))


def test_a_trial_that_ran_out_of_memory_runs_alone(study, make_order):
    assert "smaller pieces" in why_alone(replace(make_order(study), memory_failures=1))
