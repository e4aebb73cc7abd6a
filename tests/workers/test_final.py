import json

import pytest

from autopeft.errors import ConfigurationError
from autopeft.study import PARAMETERS
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.methods.lora import Lora
from workers.final import train_in_full


@pytest.fixture
def plan(study, tmp_path):
    configuration = uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
    return {
        "study": study.to_json(),
        "configuration": configuration.to_json(),
        "output": str(tmp_path / "final"),
        "device": "cpu",
    }


def test_training_in_full_scores_the_test_split_and_saves_all(plan, tmp_path, capsys):
    metrics = train_in_full(plan)
    assert {file.name for file in (tmp_path / "final").iterdir()} == {
        "adapter.safetensors",
        "configuration.json",
        "head.safetensors",
        "metrics.json",
    }
    assert json.loads((tmp_path / "final" / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert 0 <= metrics["test"] <= 1
    assert (metrics["test_rows"], metrics["steps"], metrics[PARAMETERS]) == (20, 12, 256)
    assert metrics["head_parameters"] == 2 * 16 + 2
    assert "step 12 of 12" in capsys.readouterr().err


def test_epochs_steps_and_the_seed_can_be_set(plan):
    assert train_in_full({**plan, "epochs": 0.5})["steps"] == 4
    assert train_in_full({**plan, "steps": 3})["steps"] == 3
    losses = {train_in_full({**plan, "seed": seed})["validation_loss"] for seed in (0, 1)}
    assert len(losses) == 2
    assert train_in_full(plan)["validation_loss"] in losses


def test_a_task_without_a_test_split_is_trained_all_the_same(plan, make_study, task_folder, tmp_path):
    folder = tmp_path / "no-test"
    folder.mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        (folder / name).write_text((task_folder / name).read_text())
    metrics = train_in_full({**plan, "study": make_study(task=folder).to_json()})
    assert (metrics["test"], metrics["test_loss"], metrics["test_rows"]) == (None, None, 0)
    assert metrics["validation"] is not None


def test_a_configuration_of_another_depth_is_refused(plan):
    other = Configuration((LayerPlan(),) * 3, Training(1e-3))
    with pytest.raises(ConfigurationError, match="has 3 layers"):
        train_in_full({**plan, "configuration": other.to_json()})
