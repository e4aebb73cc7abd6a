"""The target ``trl``: a script that hands the plan to TRL's SFTTrainer as ``peft_config``.

TRL's command line takes one rank, one alpha and suffixes of module names; ``command.txt`` is written only where that
says the same. The trained weights are not in it: it trains anew.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import peft

from autopeft.export.anew import starting_configuration, verified_anew
from autopeft.export.card import base_name
from autopeft.export.rows import TRAIN_FILE, write_rows
from autopeft.export.script import brief, dependencies, header, quantisation
from autopeft.export.trained import Trained
from search_spaces.cost import trainable_parameters

RELEASE = "trl==1.16.0"
SCRIPT_FILE, COMMAND_FILE = "train_trl.py", "command.txt"

_SCRIPT = '''"""Trains one PEFT plan with TRL on the rows beside this file. Made by AutoPEFT."""

import json
from pathlib import Path

import peft

HERE = Path(__file__).parent
PLAN = json.loads({plan})


def peft_config() -> peft.PeftConfig:
    """The plan for ``SFTTrainer(peft_config=…)``."""
    return peft.PeftConfig.from_peft_type(**PLAN["config"])


def main() -> None:
    """Trains, and leaves the adapter in the folder ``trained``."""
    import torch
    from datasets import load_dataset
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    arguments = SFTConfig(output_dir=str(HERE / "trained"), warmup_steps=round(0.1 * PLAN["arguments"]["max_steps"]),
                          use_cpu=not gpu, bf16=gpu and torch.cuda.is_bf16_supported(), **PLAN["arguments"])
    rows = load_dataset("json", data_files=str(HERE / {rows!r}), split="train")
    quantised = None if PLAN["quantisation"] is None else BitsAndBytesConfig(**PLAN["quantisation"])
    trainer = SFTTrainer(model=PLAN["base"], args=arguments, train_dataset=rows, peft_config=peft_config(),
                         quantization_config=quantised)
    count = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert count == PLAN["trainable_parameters"], f"{{count:,}} parameters, the plan says otherwise"
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
'''


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes script and rows into ``folder``; what was compared comes back.

    Raises:
        ExportError: If stock peft builds something else from the plan.
    """
    config = starting_configuration(trained)
    checks = verified_anew(trained, config)
    fidelity = trained.study.fidelity
    plan = {
        "base": base_name(trained),
        "quantisation": quantisation(trained.study.model),
        "config": brief(config),
        "trainable_parameters": trainable_parameters(trained.trial.configuration, trained.study.backbone),
        "arguments": {
            "learning_rate": trained.trial.configuration.training.learning_rate,
            "max_steps": fidelity.steps,
            "per_device_train_batch_size": fidelity.batch_size,
            "max_length": fidelity.max_length,
            "lr_scheduler_type": "linear",
            "weight_decay": 0.01,
            "seed": trained.study.seed,
        },
    }
    needed = [*dependencies(trained.study.model, "peft"), RELEASE]
    text = header(needed) + _SCRIPT.format(plan=repr(json.dumps(plan)), rows=TRAIN_FILE)
    (folder / SCRIPT_FILE).write_text(text, encoding="utf-8")
    line = command(trained, config)
    if line:
        (folder / COMMAND_FILE).write_text(line + "\n", encoding="utf-8")
    return {
        **checks,
        "rows_beside": write_rows(trained, folder),
        "command_line": line is not None,
        "weights": "none: it trains anew",
    }


def command(trained: Trained, config: peft.PeftConfig) -> str | None:
    """The same for ``trl sft``, to which the user adds ``--dataset_name``; None where its options cannot say it.

    Without a GPU it needs ``--use_cpu --bf16 false`` besides: bfloat16 is TRL's default.
    """
    options = config.to_dict()
    uniform = isinstance(config, peft.LoraConfig) and not (options["rank_pattern"] or options["alpha_pattern"])
    if not uniform or options["init_lora_weights"] is not True or options["lora_alpha"] % 1:
        return None
    fidelity = trained.study.fidelity
    words = ["trl", "sft", "--model_name_or_path", base_name(trained), "--use_peft"]
    words += ["--lora_r", str(options["r"]), "--lora_alpha", str(int(options["lora_alpha"])), "--lora_dropout", "0"]
    words += ["--use_rslora"] * options["use_rslora"] + ["--use_dora"] * options["use_dora"]
    words += {"4bit": ["--load_in_4bit", "--use_bnb_nested_quant"], "8bit": ["--load_in_8bit"]}.get(
        str(trained.study.model.load_in), []
    )
    words += ["--learning_rate", str(trained.trial.configuration.training.learning_rate)]
    words += ["--max_steps", str(fidelity.steps), "--per_device_train_batch_size", str(fidelity.batch_size)]
    words += ["--output_dir", "trained", "--lora_target_modules", *sorted(options["target_modules"])]
    return shlex.join(words)
