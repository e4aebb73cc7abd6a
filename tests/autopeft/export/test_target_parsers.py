"""What is exported for a trainer, read by that trainer's own parser, and run where the trainer installs.

axolotl and llamafactory are not made for the transformers and torch that autopeft needs, so they are installed without
their dependencies into a folder of their own (`make test` does it); their parsers need no more.
"""

import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from autopeft.export import axolotl, export_trial, llamafactory, trl
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import Lora

PARSERS = Path(os.environ.get("AUTOPEFT_PARSERS", Path(sys.prefix) / "parsers"))
WITH_PARSERS = pytest.mark.skipif(
    not (PARSERS / "axolotl").is_dir() or not (PARSERS / "llamafactory").is_dir(),
    reason=f"no parsers of axolotl and llamafactory in {PARSERS}: make test installs them, or see docs/export.md",
)
WITH_TRL = pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install 'autopeft[trl]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def rows_of(*rows):
    made = tuple(LayerPlan(tuple(Placement(site, method) for site, method in row)) for row in rows)
    return Configuration(made, Training(1e-3))


PLANS = {
    "ranks by module": rows_of([("query", Lora(2, 4)), ("down", Lora(3, 6))], [("gate", Lora(2, 4))]),
    "dora": rows_of([("value", Dora(2, 4))], [("value", Dora(2, 4))]),
    "pissa": rows_of([("query", Lora(2, 4, init="pissa"))], []),
}
UNIFORM = rows_of([("query", Lora(2, 4))], [("query", Lora(2, 4))])


@pytest.fixture
def exported(finished, tmp_path):
    """Exports a plan on a tiny Llama to a target."""

    def export(plan, target):
        done = finished("llama", "stock", plan)
        return export_trial(done.study, done.trial, done.measurement, done.artifacts, target, tmp_path / target)

    return export


def python(code, folder, **variables):
    """What code prints, in a process that sees the parsers."""
    path = os.pathsep.join([str(PARSERS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1", **variables}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


AXOLOTL = """
import json, yaml
from axolotl.utils.schemas.config import AxolotlInputConfig
read = yaml.safe_load(open("axolotl.yaml"))
parsed = AxolotlInputConfig(**read)
kept = {key: getattr(parsed, key) for key in read if key != "datasets"}
print(json.dumps({"kept": kept, "known": sorted(AxolotlInputConfig.model_fields)}, default=str))
"""


@WITH_PARSERS
@pytest.mark.parametrize("name", ["ranks by module", "dora", "pissa"])
def test_axolotls_own_schema_takes_the_yaml_and_keeps_every_value(name, exported):
    folder = exported(PLANS[name], "axolotl")
    written = yaml.safe_load((folder / axolotl.CONFIG_FILE).read_text())
    found = python(AXOLOTL, folder)
    assert set(written) <= set(found["known"])
    assert set().union(*axolotl.KNOWN_KEYS.values()) <= set(found["known"])
    for key, value in found["kept"].items():
        assert value == written[key] or str(value).endswith(str(written[key])), key


@WITH_PARSERS
def test_axolotls_own_schema_refuses_a_wrong_value(exported):
    folder = exported(PLANS["dora"], "axolotl")
    file = folder / axolotl.CONFIG_FILE
    file.write_text(file.read_text().replace("lora_alpha: 4", "lora_alpha: many"))
    with pytest.raises(AssertionError, match="lora_alpha"):
        python(AXOLOTL, folder)


LLAMAFACTORY = """
import json, yaml
from llamafactory.hparams import get_train_args
read = yaml.safe_load(open("llamafactory.yaml"))
groups = get_train_args({**read, "use_cpu": True, "report_to": "none"})
kept = {key: getattr(group, key) for key in read for group in groups if hasattr(group, key)}
print(json.dumps(kept, default=str))
"""


@WITH_PARSERS
@pytest.mark.parametrize("name", ["ranks by module"])
def test_llamafactorys_own_parser_takes_the_yaml_and_keeps_every_value(name, exported):
    folder = exported(PLANS[name], "llamafactory")
    written = yaml.safe_load((folder / llamafactory.CONFIG_FILE).read_text())
    kept = python(LLAMAFACTORY, folder)
    assert set(kept) == set(written)
    for key, value in kept.items():
        wanted = written[key]
        assert value in (wanted, [wanted]) or str(value).endswith(str(wanted)), (key, value, wanted)


@WITH_PARSERS
def test_llamafactorys_own_parser_refuses_an_unknown_key(exported):
    folder = exported(PLANS["dora"], "llamafactory")
    with (folder / llamafactory.CONFIG_FILE).open("a") as file:
        file.write("lora_rank_pattern: {}\n")
    with pytest.raises(AssertionError, match="lora_rank_pattern"):
        python(LLAMAFACTORY, folder)


TRL_COMMAND = """
import json
from trl.scripts.sft import make_parser
_, training, model, _ = make_parser().parse_args_and_config(json.load(open("words.json")))[:4]
print(json.dumps({"r": model.lora_r, "alpha": model.lora_alpha, "modules": model.lora_target_modules,
                  "dropout": model.lora_dropout, "steps": training.max_steps, "rate": training.learning_rate}))
"""


@WITH_TRL
def test_trls_own_parser_takes_the_command(exported):
    folder = exported(UNIFORM, "trl")
    words = shlex.split((folder / trl.COMMAND_FILE).read_text())
    (folder / "words.json").write_text(
        json.dumps([*words[2:], "--dataset_name", "mine", *["--use_cpu", "--bf16", "false"]])
    )
    found = python(TRL_COMMAND, folder)
    assert (found["r"], found["alpha"], found["dropout"], found["steps"], found["rate"]) == (2, 4, 0.0, 60, 1e-3)
    assert found["modules"] == [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]


@WITH_TRL
@pytest.mark.parametrize("name", ["ranks by module"])
def test_trl_trains_the_plan_by_the_script(name, finished, exported):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        "[PAD]": 0,
        "[UNK]": 1,
        "[END]": 2,
        **{word: 3 + i for i, word in enumerate(["a", "b", "c", "d", "e", "f"])},
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    base = finished("llama", "stock", PLANS[name]).study.model.source
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(base)
    folder = exported(PLANS[name], "trl")
    lines = [json.dumps({"prompt": f"{x} {x}", "completion": f" {x}"}) for x in "abcdef"]
    (folder / trl.TRAIN_FILE).write_text("\n".join(lines * 4))
    code = "import json, runpy; runpy.run_path('train_trl.py', run_name='__main__'); print(json.dumps('ended'))"
    assert python(code, folder, PYTHONPATH=os.environ.get("PYTHONPATH", "")) == "ended"
    weights = load_file(folder / "trained" / "adapter_model.safetensors")
    ranks = {key.split(".lora_A")[0]: len(tensor) for key, tensor in weights.items() if "lora_A" in key}
    assert len(ranks) == len(list(PLANS[name].placements()))
    assert sorted(ranks.values()) == sorted(method.rank for _, _, method in PLANS[name].placements())
    assert all(tensor.abs().max() > 0 for key, tensor in weights.items() if "lora_B" in key)
