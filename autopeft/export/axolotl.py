"""The target ``axolotl``: YAML that trains the plan anew, each module named in full, ranks and alphas by pattern.

Keys that axolotl does not know pass silently there, so those that are written are held against a recorded list: the
fields of the pydantic models in ``axolotl/utils/schemas`` of the release below. The trained weights are not in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import yaml

from autopeft.errors import ExportError
from autopeft.export.anew import starting_configuration, verified_anew
from autopeft.export.card import base_name
from autopeft.export.rows import TRAIN_FILE, write_rows
from autopeft.export.trained import Trained

RELEASE = "axolotl 0.19.0"
KNOWN_KEYS = {
    "peft.py": {
        "load_in_8bit",
        "load_in_4bit",
        "adapter",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_fan_in_fan_out",
        "lora_target_modules",
        "lora_rank_pattern",
        "lora_alpha_pattern",
        "peft_use_dora",
        "peft_use_rslora",
        "peft_init_lora_weights",
    },
    "model.py": {"base_model", "output_dir"},
    "training.py": {
        "learning_rate",
        "micro_batch_size",
        "gradient_accumulation_steps",
        "optimizer",
        "lr_scheduler",
        "weight_decay",
        "max_grad_norm",
    },
    "config.py": {"max_steps", "sequence_len", "datasets", "warmup_ratio", "seed"},
}
"""Keys by the file of ``RELEASE`` that declares them."""

CONFIG_FILE = "axolotl.yaml"


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes the YAML and the rows into ``folder``; what was compared comes back.

    Raises:
        ExportError: If stock peft builds something else from it, or a key is not known.
    """
    config = starting_configuration(trained)
    rows = write_rows(trained, folder)
    checks = verified_anew(trained, config)
    text = yaml.safe_dump(document(trained, config), sort_keys=False, allow_unicode=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    written = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    unknown = sorted(set(written) - set().union(*KNOWN_KEYS.values()))
    if unknown or written["lora_rank_pattern"] != config.rank_pattern:
        raise ExportError(f"verification failed: keys that {RELEASE} does not know, or other ranks: {unknown}")
    return {**checks, "rows_beside": rows, "keys_known_to": RELEASE, "weights": "none: it trains anew"}


def document(trained: Trained, config: peft.PeftConfig) -> dict[str, Any]:
    """The YAML as plain values."""
    study, options = trained.study, config.to_dict()
    return {
        "base_model": base_name(trained),
        **_quantisation(study.model.load_in),
        "lora_r": options["r"],
        "lora_alpha": int(options["lora_alpha"]),
        "lora_dropout": 0.0,
        "lora_fan_in_fan_out": options["fan_in_fan_out"],
        "lora_target_modules": sorted(options["target_modules"]),
        "lora_rank_pattern": options["rank_pattern"],
        "lora_alpha_pattern": options["alpha_pattern"],
        "peft_use_dora": options["use_dora"],
        "peft_use_rslora": options["use_rslora"],
        "peft_init_lora_weights": options["init_lora_weights"],
        "datasets": [
            {
                "path": TRAIN_FILE,
                "ds_type": "json",
                "type": {
                    "field_instruction": "prompt",
                    "field_output": "completion",
                    "format": "{instruction}",
                    "no_input_format": "{instruction}",
                },
            }
        ],
        "sequence_len": study.fidelity.max_length,
        "micro_batch_size": study.fidelity.batch_size,
        "gradient_accumulation_steps": 1,
        "max_steps": study.fidelity.steps,
        "optimizer": "adamw_torch",
        "lr_scheduler": "linear",
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "learning_rate": trained.trial.configuration.training.learning_rate,
        "seed": study.seed,
        "output_dir": "trained",
    }


def _quantisation(load_in: str | None) -> dict[str, Any]:
    """Its adapter ``qlora`` is NF4 with double quantisation."""
    if load_in is None:
        return {"adapter": "lora"}
    return {"adapter": "qlora" if load_in == "4bit" else "lora", f"load_in_{load_in}": True}
