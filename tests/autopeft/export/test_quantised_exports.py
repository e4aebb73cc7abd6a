"""A trial of a quantised study is exported as the adapter that it is, with each target's own words for the weights."""

import json
import shlex
from dataclasses import replace

import pytest
import yaml

from autopeft.export import export_trial
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora

UNIFORM = Configuration((LayerPlan((Placement("query", Lora(2, 4)),)),) * 2, Training(1e-3))
BITS = pytest.mark.parametrize("load_in", ["4bit", "8bit"])


@pytest.fixture
def exported(finished, tmp_path):
    """Exports a plan on a tiny Llama, trained in so many bits, to a target; nothing here needs bitsandbytes."""

    def export(target, load_in):
        done = finished("llama", "stock", UNIFORM)
        study = replace(done.study, model=replace(done.study.model, load_in=load_in))
        return export_trial(study, done.trial, done.measurement, done.artifacts, target, tmp_path / target)

    return export


@BITS
@pytest.mark.parametrize("target", ["peft", "autopeft"])
def test_the_adapter_is_the_same_and_verified_on_plain_weights(exported, target, load_in):
    folder = exported(target, load_in)
    checks = json.loads((folder / "verify.json").read_text())["checks"]
    assert checks["quantisation"] == {"trained_in": load_in, "verified_on": "the same weights, not quantised"}
    assert checks["largest_difference"]["logits"] <= 1e-5
    assert json.loads((folder / "study.json").read_text())["model"]["load_in"] == load_in


@BITS
def test_axolotl_is_told_by_its_own_keys(exported, load_in):
    written = yaml.safe_load((exported("axolotl", load_in) / "axolotl.yaml").read_text())
    assert written["adapter"] == ("qlora" if load_in == "4bit" else "lora")
    assert written[f"load_in_{load_in}"] is True


def test_llamafactory_is_told_by_its_own_keys(exported):
    written = yaml.safe_load((exported("llamafactory", "4bit") / "llamafactory.yaml").read_text())
    keys = ("quantization_method", "quantization_bit", "quantization_type", "double_quantization")
    assert [written[key] for key in keys] == ["bnb", 4, "nf4", True]


@BITS
def test_trl_is_told_in_its_script_and_on_its_command_line(exported, load_in):
    folder = exported("trl", load_in)
    script = (folder / "train_trl.py").read_text()
    assert f"load_in_{load_in}" in script
    assert "quantization_config=quantised" in script
    assert "bitsandbytes" in script.split("# ///")[1]
    words = shlex.split((folder / "command.txt").read_text())
    assert f"--load_in_{load_in}" in words
    assert ("--use_bnb_nested_quant" in words) is (load_in == "4bit")


def test_the_script_trains_on_packed_weights_and_checks_on_plain_ones(exported):
    text = (exported("script", "4bit") / "train.py").read_text()
    assert "bnb_4bit_use_double_quant" in text
    assert "bitsandbytes" in text.split("# ///")[1]


@BITS
def test_vllm_is_served_with_packed_weights_where_it_can(exported, load_in):
    card = (exported("vllm", load_in) / "README.md").read_text()
    assert ("--quantization bitsandbytes" in card) is (load_in == "4bit")
