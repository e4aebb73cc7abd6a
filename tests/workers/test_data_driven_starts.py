"""Initialisations that read data read training rows, of the first steps, and their time is the trial's."""

import time

import numpy as np
import pytest
import torch

from search_spaces.configuration import uniform
from search_spaces.methods.lora import DATA_DRIVEN, Lora
from workers.backbones import load_resident
from workers.batches import training_order
from workers.evaluate import CALIBRATION_STEPS, calibration, evaluate

CPU = torch.device("cpu")


@pytest.mark.parametrize("init", DATA_DRIVEN)
@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_a_trial_begins_from_its_training_rows(make_study, make_order, tmp_path, init, pooling):
    study = make_study(pooling=pooling)
    resident = load_resident(study, CPU)
    read = watch(resident, "train"), watch(resident, "validation")
    plan = uniform(study.backbone, ("query", "value"), Lora(2, 4.0, init=init), 1e-2)
    measurement = evaluate(make_order(study, plan), resident, tmp_path)
    before_training = len(read[0]) - study.fidelity.steps
    assert 1 <= before_training <= 2 * CALIBRATION_STEPS
    order = training_order(resident.train.lengths, 8, study.fidelity.steps, study.seed, 0)
    assert {tuple(rows) for rows in read[0][:before_training]} <= {tuple(rows) for rows in order[:CALIBRATION_STEPS]}
    assert sum(map(len, read[1])) == len(resident.validation)
    assert measurement.values["loss"] > 0


def watch(resident, split):
    """Notes the rows that are read of a split."""
    read, rows = [], getattr(resident, split)

    class Watched(type(rows)):
        def batch(self, chosen, device):
            read.append(np.array(chosen))
            return super().batch(chosen, device)

    watched = Watched(rows.ids, rows.types, rows.labels, rows.padding)
    object.__setattr__(resident, split, watched)
    return read


def test_an_ordinary_start_reads_nothing(resident):
    read = watch(resident, "train")
    given = calibration(resident.classifier, resident.train, training_order(resident.train.lengths, 8, 12, 0, 0))
    resident.classifier.adapt(uniform_plan(resident, "default"), 1, given)
    assert read == []


def uniform_plan(resident, init):
    from autopeft.adapters.anatomy import describe

    return uniform(describe(resident.classifier.model, "tiny"), ("query",), Lora(2, 4.0, init=init), 1e-2)


def test_the_time_of_reading_is_charged_to_training(study, resident, make_order, tmp_path, monkeypatch):
    adapt = resident.classifier.adapt

    def slowly(configuration, seed, rows):
        time.sleep(0.3)
        adapt(configuration, seed, rows)

    monkeypatch.setattr(resident.classifier, "adapt", slowly)
    assert evaluate(make_order(study), resident, tmp_path).values["train_seconds"] > 0.3


def test_the_backbone_is_bit_identical_after_a_start_that_moved_it(study, resident, make_order, tmp_path):
    before = {name: tensor.clone() for name, tensor in resident.classifier.model.state_dict().items()}
    for init in (*DATA_DRIVEN, "pissa", "olora"):
        plan = uniform(study.backbone, ("query", "value"), Lora(2, 4.0, init=init), 1e-2)
        evaluate(make_order(study, plan), resident, tmp_path)
    after = resident.classifier.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert set(after) == set(before)
