import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autopeft.adapters.models import load_classifier
from autopeft.adapters.saving import artifact_sha256, load_adapter
from autopeft.adapters.unfreezing import Unfrozen
from autopeft.errors import DivergedError, EvaluationError, OutOfMemoryError
from autopeft.study import IMPORTANCE, PARAMETERS, ROUTING, Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.presets import build
from search_spaces.routers import TopK
from workers.backbones import Residents, load_resident
from workers.evaluate import evaluate
from workers.scoring import score_rows
from workers.training import TrainingRun

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
    assert (
        set(measurement.values)
        == {"accuracy", "loss", PARAMETERS, "stored_bytes", "forward_flops", "peak_memory"} | timed
    )
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
    begin = TrainingRun.__init__

    def note(run, classifier, rows, order, *more, **options):
        seen.append(order.tolist())
        begin(run, classifier, rows, order, *more, **options)

    monkeypatch.setattr(TrainingRun, "__init__", note)
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


def test_what_routers_did_is_part_of_the_measurement(study, resident, make_order, tmp_path):
    row = LayerPlan((Placement("query", Mola(3, 2, 4.0)), Placement("up", Mola(2, 2, 4.0))))
    alone = LayerPlan((Placement("down", Mola(4, 2, 4.0, TopK(1))),))
    mixed = Configuration((row, alone), Training(1e-2))
    record = evaluate(make_order(study, mixed), resident, tmp_path).details[ROUTING]
    assert [(entry["layer"], entry["site"], entry["experts"]) for entry in record["modules"]] == [
        (0, "query", 3),
        (0, "up", 2),
        (1, "down", 4),
    ]
    assert "load" not in record["layers"][0]  # its modules have other numbers of experts
    assert record["layers"][1] == {key: record["modules"][2][key] for key in record["layers"][1]}
    assert [entry["active"] for entry in record["modules"]] == [2.0, 2.0, 1.0]
    for entry in record["modules"]:
        assert sum(entry["load"]) == pytest.approx(1, abs=2e-3)
        assert 0 < entry["entropy"] <= 1
        assert entry["redundancy"] > 0
    assert evaluate(make_order(study), resident, tmp_path).details.get(ROUTING) is None


def test_every_kind_of_plan_of_the_joint_space_trains(make_study, make_order, tmp_path):
    study = make_study()
    space = build("joint", study.backbone, (1e-3, 1e-2))
    resident, kinds, schedules = load_resident(study, CPU), set(), set()
    units = np.random.default_rng(0).random((12, space.dimension_count + 1))
    for number, point in enumerate(space.place_points(units, 2000)):
        plan = space.decode(point)
        measurement = evaluate(make_order(study, plan, number), resident, tmp_path)
        assert measurement.values[PARAMETERS] == space.cost(plan) <= 2000
        names = {method.name for _, _, method in plan.placements()}
        assert (ROUTING in measurement.details) == ("mola" in names)
        assert (IMPORTANCE in measurement.details) == (plan.training.schedule is not None)
        kinds |= {frozenset(names)}
        schedules |= {(plan.training.schedule is not None, "mola" in names)}
    assert any(len(names) > 1 for names in kinds)
    assert (True, True) in schedules


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("roberta", "stock")])
def test_full_fine_tuning_trains_all_weights_and_leaves_them_as_they_were(
    make_study, make_order, tmp_path, monkeypatch, family, pooling
):
    study = make_study(family, pooling)
    resident = load_resident(study, CPU)
    before, layers = backbone_digest(resident.classifier), study.backbone.layer_count
    head_alone = make_order(study, Configuration((LayerPlan(),) * layers, Training(1e-2)))
    alone = evaluate(head_alone, resident, tmp_path)
    whole, moved = Configuration((LayerPlan(),) * layers, Training(1e-2, backbone=True)), []
    run = TrainingRun.run

    def watched(self, until):
        run(self, until)
        moved.append(resident.changed)

    monkeypatch.setattr(TrainingRun, "run", watched)
    measurement = evaluate(make_order(study, whole), resident, tmp_path)
    assert any("query" in name for name in moved[0]) and any("embeddings" in name for name in moved[0])
    assert resident.changed == [] and not any(p.requires_grad for p in frozen(resident.classifier))
    assert backbone_of(resident.classifier) == backbone_of(load_resident(study, CPU).classifier)
    assert measurement.values[PARAMETERS] == study.backbone.parameter_count
    assert measurement.artifact is None and measurement.sha256 is None
    assert measurement.curve[-1][1] < measurement.curve[0][1]
    assert untimed(evaluate(make_order(study, whole), resident, tmp_path)) == untimed(measurement)
    again = evaluate(head_alone, resident, tmp_path)
    assert untimed(again) == untimed(alone)
    assert pooling == "stock" or before == backbone_digest(resident.classifier)


def test_full_fine_tuning_that_fails_gives_the_weights_back(study, resident, make_order, tmp_path):
    def stop(steps):
        if steps == 2:
            raise DivergedError("stopped")

    layers = study.backbone.layer_count
    whole = Configuration((LayerPlan(),) * layers, Training(1e-2, backbone=True))
    before = backbone_digest(resident.classifier)
    with pytest.raises(DivergedError):
        evaluate(make_order(study, whole), resident, tmp_path, stop)
    assert backbone_digest(resident.classifier) == before


def test_full_fine_tuning_of_packed_weights_is_refused():
    packed = torch.nn.Linear(2, 2)
    packed.weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(EvaluationError, match=r"quantised weights \(weight and 0 more\)"):
        Unfrozen.of(packed)


def frozen(classifier):
    head = {id(parameter) for parameter in classifier.head_parameters().values()}
    return [parameter for parameter in classifier.model.parameters() if id(parameter) not in head]


def backbone_of(classifier):
    return [parameter.detach().numpy().tobytes() for parameter in frozen(classifier)]
