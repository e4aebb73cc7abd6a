"""A trial that chooses its own modules (DiffoRA): what it trains, saves and counts is what it kept."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autopeft.errors import ConfigurationError
from autopeft.study import PARAMETERS, SELECTION, Checkpoint, Fidelity
from search_spaces.configuration import Training, uniform
from search_spaces.cost import dearest, trainable_parameters
from search_spaces.methods.lora import Lora
from search_spaces.presets import build
from search_spaces.selection import Selection
from workers.backbones import load_resident
from workers.evaluate import evaluate
from workers.memory import MemoryMeter
from workers.selection import Gates
from workers.stopping import Preempted
from workers.supernet import Chosen, choose

CPU = torch.device("cpu")


def choosing(study, **chosen):
    """LoRA of rank 2 at every module, of which a trial keeps some."""
    plain = uniform(study.backbone, study.backbone.roles, Lora(2, 4.0), 2e-2)
    return dataclasses.replace(plain, training=Training(2e-2, selection=Selection(search_fraction=0.5, **chosen)))


@pytest.fixture
def trained(study, resident, make_order, tmp_path):
    """A trial with a selection, evaluated: its order, its measurement, its folder."""

    def train(number=0, checkpoints=(), **chosen):
        order = make_order(study, choosing(study, **chosen), number)
        order = dataclasses.replace(order, checkpoints=tuple(checkpoints))
        measurement = evaluate(order, resident, tmp_path)
        return order, measurement, tmp_path / measurement.artifact

    return train


@pytest.mark.parametrize(("scope", "ratio"), [("row", 0.5), ("row", 0.4), ("global", 0.25)])
def test_only_what_was_kept_is_trained_counted_and_saved(trained, study, scope, ratio):
    order, measurement, folder = trained(scope=scope, ratio=ratio)
    found = measurement.details[SELECTION]
    kept = {tuple(entry) for entry in found["kept"]}
    modules = 2 * len(study.backbone.roles)
    assert len(kept) == {"row": 2 * -(-ratio * 6 // 1), "global": -(-ratio * modules // 1)}[scope]
    tensors = load_file(folder / "adapter.safetensors")
    paths = {study.backbone.module(layer, site).path for layer, site in kept}
    assert {name.partition(".lora_")[0] for name in tensors} == paths
    elements = sum(tensor.numel() for tensor in tensors.values())
    assert measurement.values[PARAMETERS] == found["parameters"] == elements
    assert found["supernet_parameters"] == trainable_parameters(order.configuration.supernet, study.backbone)
    saved = json.loads((folder / "configuration.json").read_text())
    assert saved == order.configuration.keeping(kept).to_json()
    assert "selection" not in saved["training"]


def test_no_choice_costs_more_than_the_configuration_says(trained, study):
    order, measurement, _ = trained(scope="global", ratio=0.3)
    planned = trainable_parameters(order.configuration, study.backbone)
    assert measurement.values[PARAMETERS] <= planned
    assert planned == trainable_parameters(dearest(order.configuration, study.backbone), study.backbone)


def test_the_search_is_paid_for_with_the_trials_own_steps(trained, study):
    _, measurement, _ = trained()
    found = measurement.details[SELECTION]
    assert found["paid_steps"] + measurement.curve[-1][0] == study.fidelity.steps == 12
    assert found["search_steps"] < found["paid_steps"]


def test_matrix_margins_and_seed_are_in_the_measurement(trained, study):
    _, measurement, _ = trained(ratio=0.5)
    found = measurement.details[SELECTION]
    assert set(found["scores"]) == set(study.backbone.roles)
    assert len(found["by_layer"]) == len(found["margins"]) == study.backbone.layer_count
    assert all(margin >= 0 for margin in found["margins"])
    assert found["ratio"] == 0.5
    assert len(found["split_sha256"]) == 64


def test_the_same_trial_comes_out_the_same(trained):
    assert trained()[1].sha256 == trained()[1].sha256


def test_weights_go_on_from_the_supernet_only_if_asked(study, resident):
    classifier, values = resident.classifier, {}
    for weights in ("retrain", "continue"):
        configuration = choosing(study, weights=weights)
        choose(classifier, configuration, study, resident.train, 7, MemoryMeter(classifier, CPU))
        values[weights] = [p.detach().clone() for n, p in classifier.trained_parameters().items() if "lora_B" in n]
        classifier.strip()
    assert not any(value.any() for value in values["retrain"])
    assert all(value.any() for value in values["continue"])


def test_a_gate_that_is_folded_in_computes_as_before(study, resident):
    classifier, configuration = resident.classifier, choosing(study)
    classifier.adapt(configuration.supernet, seed=3)
    with torch.no_grad():
        for parameter in classifier.trained_parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        gates = Gates(classifier, configuration, study.backbone, "sigmoid")
        gates.logits.normal_(generator=torch.Generator().manual_seed(2))
        inputs = resident.train.batch(torch.arange(4).numpy(), CPU)[0]
        gates.stand(gates.values())
        under_gates = classifier(inputs)
        gates.fold_in()
        assert torch.allclose(classifier(inputs), under_gates, atol=1e-6)
    classifier.strip()


def test_a_trial_goes_on_from_its_checkpoint_without_choosing_again(make_study, make_order, tmp_path):
    study = make_study(fidelity=Fidelity(steps=12, batch_size=8, max_length=32, ladder=(6,)))
    resident = load_resident(study, CPU)
    configuration = choosing(study)
    whole = evaluate(dataclasses.replace(make_order(study, configuration), rung=1), resident, tmp_path / "whole")
    first = evaluate(make_order(study, configuration), resident, tmp_path)
    assert first.curve[-1][0] == 3
    kept = (Checkpoint(0, first.artifact, first.sha256),)
    order = dataclasses.replace(make_order(study, configuration, attempt=2), rung=1, checkpoints=kept)
    second = evaluate(order, resident, tmp_path)
    assert second.sha256 == whole.sha256
    assert second.details[SELECTION] == whole.details[SELECTION]


def test_a_trial_that_is_stopped_while_it_chooses_leaves_nothing(study, resident, make_order, tmp_path):
    def stop(_done):
        raise Preempted("the worker must end", keep=True)

    with pytest.raises(Preempted) as stopped:
        evaluate(make_order(study, choosing(study)), resident, tmp_path, stop)
    assert stopped.value.checkpoint is None
    assert resident.classifier.configuration is None


def test_what_was_chosen_goes_along_with_the_state_of_the_training():
    again = Chosen()
    again.go_on_from(Chosen({"kept": [[0, "query"]]}).state())
    assert again.record == {"kept": [[0, "query"]]}


def test_without_a_selection_there_is_nothing_to_choose(study, resident):
    plain = uniform(study.backbone, ("query",), Lora(2, 4.0), 2e-2)
    with pytest.raises(ConfigurationError, match="nothing is to be chosen"):
        choose(resident.classifier, plain, study, resident.train, 0, MemoryMeter(resident.classifier, CPU))


def test_plans_of_the_space_whose_trials_learn_can_be_trained(make_study, make_order, tmp_path):
    study = make_study(fidelity=Fidelity(steps=5, batch_size=4, max_length=32))
    resident, space = load_resident(study, CPU), build("diffora/learned", study.backbone, (1e-3, 1e-2))
    for number in range(4):
        plan = space.sample(np.random.default_rng(number), space.largest_cost)
        measurement = evaluate(make_order(study, plan, number), resident, tmp_path)
        assert measurement.values[PARAMETERS] <= space.cost(plan)
        assert measurement.details[SELECTION]["weights"] == plan.training.selection.weights
