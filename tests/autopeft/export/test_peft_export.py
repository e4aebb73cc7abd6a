"""The target ``peft``: stock peft alone must compute what was trained."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from autopeft.errors import ExportError, LossyExportError, NotFoundError
from autopeft.export import export_trial
from autopeft.export import peft as peft_target
from search_spaces.configuration import Configuration, LayerPlan, Training

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CASES = [
    ("bert", "mean"),
    ("bert", "stock"),
    ("bert-without-pooler", "stock"),
    ("roberta", "stock"),
    ("roberta", "mean"),
    ("distilbert", "stock"),
]


@pytest.fixture(scope="module", params=CASES, ids=[f"{family}-{pooling}" for family, pooling in CASES])
def exported(request, finished, tmp_path_factory):
    family, pooling = request.param
    done = finished(family, pooling)
    folder = export_trial(
        done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path_factory.mktemp("exported")
    )
    return done, folder


def test_stock_peft_gives_the_ranks_the_count_and_the_outputs_that_were_trained(exported):
    """Loaded here by nothing but transformers and peft, and compared with the trained model once more."""
    import peft
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    from autopeft.export.trained import fixed_batch, load_trained

    done, folder = exported
    stock_head = done.study.model.pooling == "stock"
    loader = AutoModelForSequenceClassification if stock_head else AutoModel
    options = {"num_labels": 3} if stock_head else {}
    model = peft.PeftModel.from_pretrained(loader.from_pretrained(done.study.model.source, **options), folder).eval()
    trained = load_trained(done.study, done.trial, done.measurement, done.artifacts)
    batch = fixed_batch(trained.classifier)
    with torch.no_grad():
        expected = trained.classifier.model(**batch)
        got = model(**batch)
    name = "logits" if stock_head else "last_hidden_state"
    assert (got[name] - expected[name]).abs().max() <= 1e-5
    counted = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert counted == done.measurement.values["trainable_parameters"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == len(list(done.trial.configuration.placements()))
    assert config["task_type"] == ("SEQ_CLS" if stock_head else "FEATURE_EXTRACTION")


def test_the_code_of_the_card_runs_in_the_exported_folder(exported, monkeypatch):
    _, folder = exported
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 9
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert type(names["model"]).__name__.startswith("PeftModelFor")


def test_two_exports_of_one_trial_are_equal_to_the_byte(finished, tmp_path):
    done = finished("bert", "mean")
    first, second = (
        export_trial(done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path / name)
        for name in ("first", "second")
    )
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_a_mean_pooling_head_lies_beside_with_its_description(finished, tmp_path):
    done = finished("bert", "mean")
    folder = export_trial(done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path / "out")
    head = json.loads((folder / "head.json").read_text())
    assert (head["pooling"], head["outputs"], head["tensors"]) == ("mean", 3, {"weight": [3, 16], "bias": [3]})
    assert set(load_file(folder / "head.safetensors")) == {"weight", "bias"}


@pytest.mark.parametrize("damage", ["rank", "alpha", "module", "weights", "shape"])
def test_an_export_that_stock_peft_reads_otherwise_is_refused_and_leaves_nothing(
    damage, finished, tmp_path, monkeypatch
):
    done = finished("bert", "mean")
    load = peft_target.load_stock

    def damaged(trained, folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        weights = load_file(folder / "adapter_model.safetensors")
        if damage == "weights":
            save_file({name: tensor * 1.5 for name, tensor in weights.items()}, folder / "adapter_model.safetensors")
            model = load(trained, folder)
            save_file(weights, folder / "adapter_model.safetensors")
            return model
        if damage == "alpha":
            config["alpha_pattern"] = {}
        if damage == "module":
            dropped = config["target_modules"].pop()
            kept = {n: t for n, t in weights.items() if not n.startswith(f"base_model.model.{dropped}.")}
            config["rank_pattern"].pop(dropped, None)
            config["alpha_pattern"].pop(dropped, None)
            save_file(kept, folder / "adapter_model.safetensors")
        if damage == "shape":
            config["rank_pattern"] = {}
        if damage == "rank":
            name = next(iter(config["rank_pattern"]))
            config["rank_pattern"][name] += 1
            for key, axis in (("lora_A", 0), ("lora_B", 1)):
                full = f"base_model.model.{name}.{key}.weight"
                padding = weights[full].narrow(axis, 0, 1) * 0
                weights[full] = __import__("torch").cat([weights[full], padding], axis).contiguous()
            save_file(weights, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return load(trained, folder)

    monkeypatch.setattr(peft_target, "load_stock", damaged)
    with pytest.raises(ExportError, match="verification failed") as failure:
        export_trial(done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path / "out")
    assert failure.value.exit_code == 6
    assert not list(tmp_path.iterdir())


def test_the_head_alone_is_refused_with_the_target_that_holds_it(finished, tmp_path: Path):
    empty = Configuration((LayerPlan(),) * 12, Training(1e-3))
    done = finished("bert", "mean", empty)
    with pytest.raises(LossyExportError, match="--to script or autopeft"):
        export_trial(done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path / "out")


def test_an_adapter_that_changed_after_it_was_recorded_is_refused(finished, tmp_path: Path):
    done = finished("bert", "mean", fresh=True)
    file = done.artifacts / done.measurement.artifact / "head.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ExportError, match="have changed"):
        export_trial(done.study, done.trial, done.measurement, done.artifacts, "peft", tmp_path / "out")


def test_a_trial_without_its_files_says_so(finished, tmp_path):
    done = finished("bert", "mean")
    moved = replace(done.measurement, artifact="elsewhere/trial-7", sha256=None)
    with pytest.raises(NotFoundError, match="no saved adapter"):
        export_trial(done.study, done.trial, moved, done.artifacts, "peft", tmp_path / "out")
    outside = replace(done.measurement, artifact="../../etc", sha256=None)
    with pytest.raises(ExportError, match="outside"):
        export_trial(done.study, done.trial, outside, done.artifacts, "peft", tmp_path / "out")
    with pytest.raises(ExportError, match="no adapter was kept"):
        export_trial(
            done.study, done.trial, replace(done.measurement, artifact=None), done.artifacts, "peft", tmp_path / "out"
        )
