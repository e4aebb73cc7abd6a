"""A trial that cannot fit is refused before anything is loaded."""

from types import SimpleNamespace

import pytest
import torch

from autopeft.errors import EvaluationError
from search_spaces.configuration import Configuration, LayerPlan, Training
from workers.backbones import Residents
from workers.inside import Inside
from workers.room import require_room_for, usable_bytes


def test_what_may_be_used_of_this_machine_is_most_of_its_memory():
    assert 10**8 < usable_bytes(torch.device("cpu")) < 2**46


def test_of_several_gpus_a_worker_counts_its_own_or_all_that_hold_the_backbone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10**10))
    assert usable_bytes(torch.device("cuda:1")) == int(0.92 * 10**10)
    assert usable_bytes(torch.device("cuda:0"), gpus=4) == int(0.92 * 4 * 10**10)
    monkeypatch.setenv("AUTOPEFT_GPU_FRACTION", "0.5")
    assert usable_bytes(torch.device("cuda:1")) == int(0.46 * 10**10)


def test_a_trial_that_cannot_fit_is_refused_before_loading(make_order, study, tmp_path, monkeypatch):
    def load(*_):
        raise AssertionError("the backbone was loaded")

    monkeypatch.setattr(Residents, "of", load)
    monkeypatch.setattr("workers.inside.usable_bytes", lambda device, gpus: 1000)
    order = make_order(study)
    worker = Inside("cpu", tmp_path)
    said = r"trial \d+ was not begun: training it is predicted to take .*; at most 1e-06 GB may be used; try --load-in"
    with pytest.raises(EvaluationError, match=said):
        worker.measure(order, lambda steps: None)


def test_a_family_that_no_arithmetic_is_known_of_is_let_through(make_study, tiny_backbone):
    from dataclasses import replace

    study = make_study(backbone=replace(tiny_backbone, family="mamba"))
    plan = Configuration((LayerPlan(),) * 2, Training(1e-3))
    require_room_for(study, plan, 1, "trial 0")
