import pytest
import torch
from safetensors.torch import load_file, save_file

from autopeft.adapters.models import load_classifier, load_tokenizer, model_spec
from autopeft.errors import BackboneError


def test_loading_says_nothing(checkpoint, capfd):
    folder = str(checkpoint("bert without pooler"))
    capfd.readouterr()  # transformers shows how far it is with writing
    for pooling in ("mean", "stock"):
        load_classifier(model_spec(folder, pooling), 3, False, seed=0)
    assert capfd.readouterr() == ("", "")


def test_weights_that_changed_since_the_study_began_are_refused(checkpoint, tmp_path):
    weights = load_file(checkpoint("bert") / "model.safetensors")
    (tmp_path / "config.json").write_text((checkpoint("bert") / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors")
    spec = model_spec(str(tmp_path), "mean")
    load_classifier(spec, 2, False, seed=0)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match="have changed since the study began"):
        load_classifier(spec, 2, False, seed=0)


@pytest.mark.parametrize("pooling", ["mean", "stock"])
@pytest.mark.parametrize("damage", ["missing", "another shape"])
def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_with_noise(checkpoint, tmp_path, pooling, damage):
    weights = load_file(checkpoint("bert") / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    if damage == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(3, 3)
    (tmp_path / "config.json").write_text((checkpoint("bert") / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError) as raised:
        load_classifier(model_spec(str(tmp_path), pooling), 2, False, seed=0)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_without_a_tokenizer_says_so(checkpoint):
    with pytest.raises(BackboneError, match="no tokenizer in"):
        load_tokenizer(model_spec(str(checkpoint("bert"))))
