"""The HF Trainer with peft, a plain loop with peft and our worker reach the same losses, step by step, at dropout 0.

The ways are those of ``benchmarks/stock_trials.py``; the worker reads kept states.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from autopeft.settings import CacheMode
from autopeft.study import Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora
from workers.backbones import load_resident
from workers.batches import training_order
from workers.evaluate import evaluate
from workers.seeds import initial_seed

CPU = torch.device("cpu")
PLACES = {"mixed": ("query", "value", "down"), "attention": ("query", "key", "value", "output")}


@pytest.fixture(scope="module")
def ways():
    path = Path(__file__).parent.parent.parent / "benchmarks" / "stock_trials.py"
    spec = importlib.util.spec_from_file_location("stock_trials", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lowest", [0, 1])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_three_ways_reach_the_same_losses(make_study, make_order, tmp_path, ways, lowest, places):
    study = make_study(fidelity=Fidelity(20, 8, 32))
    row = LayerPlan(tuple(Placement(site, Lora(2, 4.0)) for site in places))
    plan = Configuration((LayerPlan(),) * lowest + (row,) * (2 - lowest), Training(1e-2))
    resident = load_resident(study, CPU, CacheMode.OFF)
    order = training_order(resident.train.lengths, 8, 20, study.seed, 0)
    resident.classifier.adapt(plan, initial_seed(study.seed, 0, plan.digest))
    initial = {name: value.detach().clone() for name, value in resident.classifier.trained_parameters().items()}
    resident.classifier.strip()

    naive = ways.naive_trial(study, plan, order, initial, dropout=False)["losses"]
    honest = ways.honest_trial(study, plan, resident, order, initial)["losses"]
    found = {}
    for mode in (CacheMode.OFF, CacheMode.FP32, CacheMode.FP16):
        measured = evaluate(make_order(study, plan), load_resident(study, CPU, mode), tmp_path)
        found[mode] = [loss for _, loss in measured.curve]
    assert len(naive) == len(honest) == 20
    assert np.abs(np.array(naive) - honest).max() <= 1e-5
    assert np.abs(np.array(honest) - found[CacheMode.OFF]).max() <= 1e-5
    assert np.abs(np.array(honest) - found[CacheMode.FP32]).max() <= 1e-5
    assert np.abs(np.array(honest) - found[CacheMode.FP16]).max() <= 1e-4
