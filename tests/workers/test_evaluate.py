import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from autopeft.adapters.models import load_classifier
from autopeft.adapters.saving import artifact_sha256, load_adapter
from autopeft.errors import DivergedError, OutOfMemoryError
from autopeft.study import PARAMETERS, Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.methods.lora import Lora
from workers.backbones import Residents, load_resident
from workers.evaluate import evaluate
from workers.scoring import score_rows

CPU = torch.device("cpu")


def untimed(measurement):
    """What must be the same when a trial is repeated."""
    values = {name: value for name, value in measurement.values.items() if not name.endswith("_seconds")}
    return values, measurement.curve, measurement.correct, measurement.sha256


def backbone_digest(classifier):
    found = hashlib.sha256()
    for name, tensor in sorted(classifier.model.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def test_a_measurement_says_all_that_a_trial_yields(study, resident, make_order, tmp_path):
    measurement = evaluate(make_order(study, number=3, attempt=2), resident, tmp_path)
    timed = {"train_seconds", "evaluate_seconds", "inference_seconds"}
    assert set(measurement.values) == {"accuracy", "loss", PARAMETERS, "peak_memory_bytes"} | timed
    per_row = measurement.values["evaluate_seconds"] / len(resident.validation)
    assert measurement.values["inference_seconds"] == per_row
    assert measurement.values[PARAMETERS] == 2 * 2 * 2 * 32
    assert measurement.values["accuracy"] == pytest.approx(sum(measurement.correct) / 30)
    assert measurement.artifact == "rooms-1/trial-3/attempt-2"
    assert measurement.curve[-1][0] == study.fidelity.steps


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        *(
            (family, pooling)
            for family in ("bert", "roberta", "distilbert", "electra")
            for pooling in ("mean", "stock")
        ),
        ("llama", "mean"),
        ("llama", "stock"),
        ("t5", "stock"),
    ],
)
def test_a_saved_trial_scores_the_same_when_it_is_loaded(make_study, make_order, tmp_path, family, pooling):
    study = make_study(family, pooling)
    resident = load_resident(study, CPU)
    measurement = evaluate(make_order(study), resident, tmp_path)
    folder = tmp_path / measurement.artifact
    assert {file.name for file in folder.iterdir()} == {"adapter.safetensors", "configuration.json", "head.safetensors"}
    assert artifact_sha256(folder) == measurement.sha256
    fresh = load_classifier(study.model, 2, False, seed=99)
    load_adapter(fresh.model, folder)
    fresh.load_head(folder)
    scored = score_rows(fresh.eval(), resident.validation, study.metric)
    assert scored.loss == pytest.approx(measurement.values["loss"], abs=1e-6)
    assert scored.correct == measurement.correct


def test_the_same_order_gives_bitwise_the_same_on_any_resident_and_attempt(study, resident, make_order, tmp_path):
    first = evaluate(make_order(study), resident, tmp_path)
    between = uniform(study.backbone, study.backbone.roles, Lora(4, 8.0), 5e-2)
    evaluate(make_order(study, between, number=1), resident, tmp_path)
    torch.manual_seed(1234)
    again = evaluate(make_order(study, attempt=7), resident, tmp_path)
    elsewhere = evaluate(make_order(study, number=9), load_resident(study, CPU), tmp_path)
    assert untimed(first) == untimed(again) == untimed(elsewhere)


def test_a_replicate_and_another_study_seed_give_another_result(study, make_study, resident, make_order, tmp_path):
    first = evaluate(make_order(study), resident, tmp_path)
    repeat = evaluate(make_order(study, replicate=1), resident, tmp_path)
    reseeded = evaluate(make_order(make_study(seed=6)), resident, tmp_path)
    assert len({measurement.values["loss"] for measurement in (first, repeat, reseeded)}) == 3


def test_every_configuration_sees_the_rows_in_the_same_order(study, resident, make_order, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("workers.evaluate.train", lambda _c, _r, order, *_: seen.append(order.tolist()) or [(1, 1.0)])
    evaluate(make_order(study), resident, tmp_path)
    evaluate(make_order(study, uniform(study.backbone, ("key",), Lora(1, 2.0), 1e-3)), resident, tmp_path)
    assert seen[0] == seen[1]
    assert len(seen[0]) == study.fidelity.steps


def test_the_backbone_is_left_bit_identical_whatever_happens(study, resident, make_order, tmp_path):
    before = backbone_digest(resident.classifier)
    evaluate(make_order(study), resident, tmp_path)
    assert backbone_digest(resident.classifier) == before

    def run_out(_done):
        raise MemoryError

    with pytest.raises(OutOfMemoryError):
        evaluate(make_order(study), resident, tmp_path, run_out)
    assert backbone_digest(resident.classifier) == before


def test_the_empty_plan_trains_the_head_alone(study, resident, make_order, tmp_path):
    empty = Configuration((LayerPlan(),) * 2, Training(1e-2))
    measurement = evaluate(make_order(study, empty), resident, tmp_path)
    assert measurement.values[PARAMETERS] == 0
    folder = tmp_path / measurement.artifact
    assert load_file(folder / "adapter.safetensors") == {}
    assert json.loads((folder / "configuration.json").read_text())["layers"] == [{}, {}]
    assert set(load_file(folder / "head.safetensors")) == {"classifier.weight", "classifier.bias"}


def test_a_trial_that_diverges_leaves_no_artifact(study, resident, make_order, tmp_path, monkeypatch):
    monkeypatch.setattr("workers.training.loss_of", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(DivergedError):
        evaluate(make_order(study), resident, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_regression_is_measured(make_study, make_order, regression_folder, tmp_path):
    study = make_study(task=regression_folder)
    measurement = evaluate(make_order(study), load_resident(study, CPU), tmp_path)
    assert measurement.correct == ()
    assert study.metric in measurement.values


def test_a_backbone_is_loaded_once_a_study(make_study):
    residents = Residents(CPU)
    study = make_study()
    first = residents.of(study)
    assert residents.of(make_study(trials=99)) is first
    assert residents.of(make_study(fidelity=Fidelity(3, 8, 32))) is first
    assert residents.of(make_study(fidelity=Fidelity(3, 8, 16))) is not first
