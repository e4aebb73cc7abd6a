"""Every target computes what was trained, or says by name what it cannot hold."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from safetensors.torch import load_file

from autopeft.errors import ExportError, LossyExportError
from autopeft.export import TARGETS, export_trial
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera
from search_spaces.selection import Selection

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROLES = ("query", "key", "value", "output", "up", "down")


def rows_of(*layers):
    return Configuration(tuple(LayerPlan(tuple(Placement(*p) for p in layer)) for layer in layers), Training(1e-3))


def at_modules(first, second):
    return rows_of([("query", first), ("down", second)], [("up", first), ("down", first)])


UNIFORM = {
    "dora": at_modules(Dora(2, 4), Dora(4, 4)),
    "rank-stabilised": at_modules(Lora(2, 4, "rank-stabilised"), Lora(4, 3, "rank-stabilised")),
    "pissa": at_modules(Lora(2, 4, "alpha/r", "pissa"), Lora(3, 2, "rank-stabilised")),
    "ia3": at_modules(Ia3(), Ia3()),
    "hira": at_modules(Hira(2), Hira(2)),
    "lokr": at_modules(Lokr(2, 4), Lokr(1, 2)),
    "vera": at_modules(Vera(4), Vera(4)),
    "oft": at_modules(Oft(4), Oft(4)),
    "norm": rows_of([("norms", Norm())], []),
}
MIXED = rows_of(
    [("query", Lora(2, 4)), ("value", Bias()), ("attention", Prefix(2)), ("up", Mola(3, 2, 4))],
    [("query", Dora(2, 4)), ("feed_forward", Serial(3)), ("feed_forward", Parallel(2)), ("norms", Norm())],
)
SIX_LAYERS = rows_of(
    [("query", Lora(2, 4)), ("query", Bias()), ("value", Ia3())],
    [("query", Dora(1, 2)), ("norms", Norm()), ("key", Vera(4))],
    [("feed_forward", Serial(3)), ("feed_forward", Parallel(5))],
    [("attention", Prefix(3)), ("up", Hira(2)), ("up", Ia3())],
    [("down", Oft(4)), ("attention", Prefix(1)), ("feed_forward", Parallel(2))],
    [("output", Lokr(1, 2)), ("value", Lora(2, 4, "alpha/r", "pissa")), ("up", Mola(3, 2, 4))],
)
"""Every layer with methods of its own."""


def exported(done, target, output, **options):
    return export_trial(done.study, done.trial, done.measurement, done.artifacts, target, output, **options)


def checks(folder):
    return json.loads((folder / "verify.json").read_text())["checks"]


@pytest.mark.parametrize("name", UNIFORM)
def test_stock_peft_computes_one_method_with_any_sizes(name, finished, tmp_path):
    done = finished("bert-without-pooler", "mean", UNIFORM[name])
    found = checks(exported(done, "peft", tmp_path / "out"))
    assert found["largest_difference"]["logits"] <= 1e-5
    if name != "pissa":
        assert found["trainable_parameters"] == done.measurement.values["trainable_parameters"]


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"autopeft", "script"}))
def test_what_a_target_cannot_hold_is_refused_by_name(target, finished, tmp_path):
    done = finished("bert-without-pooler", "mean", MIXED)
    lost = r"layer 0 up: mola experts 3, rank 2.*layer 1 feed_forward: serial size 3.*--lossy"
    with pytest.raises(LossyExportError, match=lost) as failure:
        exported(done, target, tmp_path / "out")
    assert failure.value.exit_code == 6
    assert not list(tmp_path.iterdir())


def test_two_ranks_of_hira_are_refused_since_peft_builds_one(finished, tmp_path):
    done = finished("bert-without-pooler", "mean", at_modules(Hira(2), Hira(4)))
    with pytest.raises(LossyExportError, match="layer 0 down: hira rank 4"):
        exported(done, "peft", tmp_path / "out")


def test_a_lossy_export_says_what_is_lost_and_holds_the_rest(finished, tmp_path):
    done = finished("bert-without-pooler", "mean", MIXED)
    folder = exported(done, "vllm", tmp_path / "out", lossy=True)
    found = checks(folder)
    assert "layer 0 value: bias" in found["lost"]
    assert found["largest_difference"]["logits"] <= 1e-5 < found["largest_difference_from_the_trial"]
    assert "layer 1 feed_forward: serial size 3" in (folder / "README.md").read_text()
    assert Configuration.from_json(json.loads((folder / "configuration.json").read_text())) == MIXED


def test_vllm_gets_one_rank_and_a_scaling_of_one(finished, tmp_path):
    plan = rows_of([("query", Lora(2, 6)), ("down", Lora(5, 1, "rank-stabilised"))], [("gate", Lora(1, 3))])
    folder = exported(finished("llama", "stock", plan), "vllm", tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (5, 5, {}, {})
    assert config["modules_to_save"] is None
    weights = load_file(folder / "adapter_model.safetensors")
    assert all(5 in tensor.shape for tensor in weights.values())
    assert checks(folder)["largest_difference"]["logits"] <= 1e-5


@pytest.mark.parametrize("family", ["roberta", "bert-without-pooler"])
def test_vllm_gets_the_adapter_of_a_classifier_with_its_own_head_beside(family, finished, tmp_path):
    done = finished(family, "stock", at_modules(Lora(2, 4), Lora(4, 4)))
    folder = exported(done, "vllm", tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["modules_to_save"], config["task_type"]) == (None, None)  # of a classifier peft would want a head
    assert load_file(folder / "head.safetensors")
    assert not any("classifier" in name for name in load_file(folder / "adapter_model.safetensors"))
    assert checks(folder)["largest_difference"]["logits"] <= 1e-5


PLAN = rows_of([("query", Lora(2, 4)), ("down", Lora(3, 6))], [("gate", Lora(2, 4))])


def test_a_trainer_of_language_models_loses_a_classification_head(finished, tmp_path):
    done = finished("bert-without-pooler", "mean", UNIFORM["dora"])
    for target in ("axolotl", "llamafactory", "trl"):
        with pytest.raises(LossyExportError, match="the head"):
            exported(done, target, tmp_path / target)


def test_axolotl_gets_ranks_and_alphas_by_full_module_name(finished, tmp_path):
    folder = exported(finished("llama", "stock", PLAN), "axolotl", tmp_path / "out")
    document = yaml.safe_load((folder / "axolotl.yaml").read_text())
    assert (document["lora_r"], document["lora_alpha"]) == (2, 4)
    assert document["lora_rank_pattern"] == {"model.layers.0.mlp.down_proj": 3}
    assert document["lora_alpha_pattern"] == {"model.layers.0.mlp.down_proj": 6}


def test_llamafactory_goes_on_from_the_adapter_beside(finished, tmp_path):
    folder = exported(finished("llama", "stock", PLAN), "llamafactory", tmp_path / "out")
    document = yaml.safe_load((folder / "llamafactory.yaml").read_text())
    assert (document["adapter_name_or_path"], document["create_new_adapter"]) == (".", False)
    assert checks(folder)["largest_difference"]["logits"] <= 1e-5


def test_trl_gets_a_script_and_a_command_only_for_one_rank(finished, tmp_path):
    uniform = rows_of([("query", Lora(2, 4))], [("query", Lora(2, 4))])
    folder = exported(finished("llama", "stock", uniform), "trl", tmp_path / "one")
    assert "--lora_r 2 --lora_alpha 4" in (folder / "command.txt").read_text()
    folder = exported(finished("llama", "stock", PLAN), "trl", tmp_path / "many")
    assert not (folder / "command.txt").exists()
    assert "peft_config=peft_config()" in (folder / "train_trl.py").read_text()


@pytest.mark.parametrize(
    ("family", "pooling", "plan"),
    [
        ("bert-without-pooler", "mean", UNIFORM["dora"]),
        ("roberta", "stock", None),
        ("bert-without-pooler", "stock", MIXED),
        ("bert-of-six-layers", "mean", SIX_LAYERS),
        ("llama", "stock", PLAN),
    ],
)
def test_the_script_gives_the_logits_of_the_trial(family, pooling, plan, finished, tmp_path):
    done = finished(family, pooling, plan)
    found = checks(exported(done, "script", tmp_path / "out"))
    assert found["largest_difference"]["logits"] <= 1e-5
    needs_autopeft = any(name.startswith("autopeft") for name in found["needs"])
    assert needs_autopeft == (plan in (MIXED, SIX_LAYERS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "plan"),
    [
        ("bert-without-pooler", UNIFORM["dora"]),
        ("bert-without-pooler", MIXED),
        ("bert-of-six-layers", SIX_LAYERS),
    ],
    ids=["alone", "with autopeft", "a method in each of six layers"],
)
def test_the_script_checks_and_trains_by_itself(family, plan, finished, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    done = finished(family, "mean", plan)
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(done.study.model.source)
    folder = exported(done, "script", tmp_path / "out")
    script = [sys.executable, str(folder / "train.py")]
    assert (
        "largest difference" in subprocess.run([*script, "--check"], check=True, capture_output=True, text=True).stdout
    )
    lines = [json.dumps({"text": word, "label": label}) for label, word in enumerate(("good", "bad"))]
    for name in ("train.jsonl", "validation.jsonl"):
        (folder / name).write_text("\n".join(lines * 8))
    output = subprocess.run([*script, "--steps", "40"], check=True, capture_output=True, text=True).stdout
    losses = json.loads(output)
    assert losses["last"] < losses["first"]
    assert (folder / "trained" / "trained.safetensors").is_file()


@pytest.mark.parametrize("target", ["autopeft", "peft", "script"])
def test_a_trial_that_chose_its_modules_exports_what_it_kept(target, finished, tmp_path):
    """As an ordinary plan: nothing of what was dropped, and nothing of the choice."""
    kept = rows_of([("query", Lora(2, 4.0)), ("down", Lora(2, 4.0))], [("value", Lora(2, 4.0)), ("up", Lora(2, 4.0))])
    done = finished("roberta", "mean", kept)
    sites = ("query", "value", "up", "down")
    table = uniform(done.study.backbone, sites, Lora(2, 4.0), 1e-3)
    asked = replace(table, training=Training(1e-3, selection=Selection(ratio=0.5)))
    trial = replace(done.trial, configuration=asked, digest=asked.digest)
    folder = export_trial(done.study, trial, done.measurement, done.artifacts, target, tmp_path / "exported")
    assert json.loads((folder / "configuration.json").read_text()) == kept.to_json()
    if target == "peft":
        assert len(json.loads((folder / "adapter_config.json").read_text())["target_modules"]) == 4


def test_files_that_the_trial_cannot_have_chosen_are_refused(finished, tmp_path):
    kept = rows_of([("query", Lora(2, 4.0))], [("value", Lora(2, 4.0))])
    done = finished("roberta", "mean", kept)
    table = uniform(done.study.backbone, ("query", "value", "up", "down"), Lora(2, 4.0), 1e-3)
    asked = replace(table, training=Training(1e-3, selection=Selection(ratio=0.5)))
    trial = replace(done.trial, configuration=asked, digest=asked.digest)
    with pytest.raises(ExportError, match="holds another configuration"):
        export_trial(done.study, trial, done.measurement, done.artifacts, "peft", tmp_path / "exported")
