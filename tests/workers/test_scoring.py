import dataclasses

import pytest
import torch

from autopeft.adapters.anatomy import describe
from autopeft.errors import DivergedError
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers.backbones import load_resident
from workers.batches import training_order
from workers.scoring import score_rows
from workers.training import train


def test_predictions_come_in_the_order_of_the_rows(resident, monkeypatch):
    monkeypatch.setattr("workers.scoring.SCORING_BATCH", 4)
    resident.classifier.adapt(_strong(resident), seed=1)
    train(resident.classifier, resident.train, training_order(resident.train.lengths, 8, 30, 0, 0), 2e-2)
    scored = score_rows(resident.classifier, resident.validation, "accuracy")
    assert set(scored.predictions) == {0, 1}
    for row in range(30):
        inputs, labels = resident.validation.batch(torch.tensor([row]).numpy(), torch.device("cpu"))
        predicted = resident.classifier(inputs).argmax(-1)
        assert scored.predictions[row] == predicted.item()
        assert scored.correct[row] == int(predicted.item() == labels.item())
    assert scored.value == pytest.approx(sum(scored.correct) / 30)
    assert len(scored.correct) == 30


def _strong(resident):
    backbone = describe(resident.classifier.model, "tiny")
    return uniform(backbone, backbone.roles, Lora(4, 16.0), 2e-2)


def test_the_loss_is_the_mean_over_rows(resident):
    scored = score_rows(resident.classifier, resident.validation, "accuracy")
    inputs, labels = resident.validation.batch(torch.arange(30).numpy(), torch.device("cpu"))
    whole = torch.nn.functional.cross_entropy(resident.classifier(inputs), labels)
    assert scored.loss == pytest.approx(whole.item(), abs=1e-6)


def test_scoring_builds_no_graph_and_leaves_no_gradient(resident):
    score_rows(resident.classifier, resident.validation, "accuracy")
    assert all(parameter.grad is None for parameter in resident.classifier.parameters())


def test_a_loss_that_is_not_finite_is_divergence(resident):
    with torch.no_grad():
        resident.classifier.head_parameters()["classifier.bias"].fill_(float("inf"))
    with pytest.raises(DivergedError, match="expected a finite number"):
        score_rows(resident.classifier, resident.validation, "accuracy")


def test_a_regression_has_numbers_and_no_right_or_wrong(make_study, regression_folder):
    study = make_study(task=regression_folder)
    resident = load_resident(study, torch.device("cpu"))
    assert resident.task.is_regression
    scored = score_rows(resident.classifier, resident.validation, study.metric)
    assert scored.correct == ()
    assert all(isinstance(number, float) for number in scored.predictions)
    shifted = dataclasses.replace(resident.validation, labels=resident.validation.labels + 3)
    assert score_rows(resident.classifier, shifted, study.metric).loss > scored.loss
