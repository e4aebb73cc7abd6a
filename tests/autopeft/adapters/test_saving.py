import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from autopeft.adapters import adapter_parameters, apply, load_adapter, save_adapter
from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import HEAD_FILE
from autopeft.adapters.saving import artifact_sha256
from autopeft.errors import ConfigurationError, NotFoundError
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora


@pytest.fixture
def trained(make_model, tmp_path):
    """A model with random adapters, and the folder that they are saved in."""
    model = make_model("bert")
    plan = uniform(describe(model, "tiny"), ("query", "down"), Lora(3, 6.0), 1e-3)
    apply(model, plan)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.normal_(0.0, 0.5)
    save_adapter(model, tmp_path)
    return model.eval(), plan, tmp_path


def test_a_loaded_adapter_gives_the_same_outputs(trained, make_model, inputs):
    model, plan, folder = trained
    fresh = make_model("bert")
    assert load_adapter(fresh, folder) == plan
    assert torch.equal(fresh.eval()(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


def test_an_adapter_fits_the_model_with_its_head_too(trained, checkpoint, inputs):
    model, _, folder = trained
    headed = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"), num_labels=2).eval()
    load_adapter(headed, folder)
    difference = headed.bert(**inputs).last_hidden_state - model(**inputs).last_hidden_state
    assert difference.abs().max() <= 1e-6


def test_the_folder_holds_two_plain_files(trained):
    _, plan, folder = trained
    assert {file.name for file in folder.iterdir()} == {"adapter.safetensors", "configuration.json"}
    assert json.loads((folder / "configuration.json").read_text()) == plan.to_json()
    assert "encoder.layer.0.attention.self.query.lora_A.weight" in load_file(folder / "adapter.safetensors")


@pytest.mark.parametrize("missing", ["adapter.safetensors", "configuration.json"])
def test_a_missing_file_is_named(trained, make_model, missing):
    (trained[2] / missing).unlink()
    with pytest.raises(NotFoundError, match=missing):
        load_adapter(make_model("bert"), trained[2])


def test_a_file_cut_short_is_refused(trained, make_model):
    file = trained[2] / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigurationError, match="cannot be read as safetensors"):
        load_adapter(make_model("bert"), trained[2])
    (trained[2] / "configuration.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read as JSON"):
        load_adapter(make_model("bert"), trained[2])


@pytest.mark.parametrize("change", ["one too few", "another shape"])
def test_tensors_that_do_not_fit_are_refused_and_the_model_is_left_clean(trained, make_model, change):
    file = trained[2] / "adapter.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    if change == "one too few":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:1]
    save_file(tensors, file)
    model = make_model("bert")
    with pytest.raises(ConfigurationError, match="model"):
        load_adapter(model, trained[2])
    assert not adapter_parameters(model)


def test_the_hash_of_an_artifact_changes_with_each_of_its_files(trained):
    folder = trained[2]
    with pytest.raises(NotFoundError, match=HEAD_FILE):
        artifact_sha256(folder)
    seen = set()
    for name in (HEAD_FILE, "adapter.safetensors", "configuration.json"):
        with (folder / name).open("ab") as stream:
            stream.write(b" ")
        seen.add(artifact_sha256(folder) if (folder / HEAD_FILE).exists() else None)
    assert len(seen) == 3


def test_the_functions_are_public_and_each_loads_on_first_use():
    import autopeft

    assert {"apply", "remove", "save_adapter", "load_adapter", "merge", "TrainingRows"} <= set(dir(autopeft))
    assert autopeft.apply is apply
    assert autopeft.load_adapter is load_adapter


def test_a_model_without_adapters_has_nothing_to_save(make_model, tmp_path):
    with pytest.raises(ConfigurationError, match=r"no adapters to save: call autopeft.apply"):
        save_adapter(make_model("bert"), tmp_path)
