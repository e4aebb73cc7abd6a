"""The target ``llamafactory``: YAML that goes on training the adapter beside it.

LLaMA-Factory has no option for ranks by module; it keeps those of an adapter that it is given
(``adapter_name_or_path`` with ``create_new_adapter: false``). The keys are fields of the argument classes in
``llamafactory/hparams`` of the release below, and of transformers' own training arguments.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from autopeft.errors import ExportError
from autopeft.export import peft
from autopeft.export.card import base_name
from autopeft.export.rows import TRAIN_FILE, write_rows
from autopeft.export.trained import Trained

RELEASE = "llamafactory 0.9.5"
KNOWN_KEYS = {
    "model_args.py": {
        "model_name_or_path",
        "adapter_name_or_path",
        "quantization_method",
        "quantization_bit",
        "quantization_type",
        "double_quantization",
    },
    "finetuning_args.py": {"stage", "finetuning_type", "create_new_adapter"},
    "data_args.py": {"dataset", "dataset_dir", "template", "cutoff_len"},
    "transformers": {
        "do_train",
        "output_dir",
        "per_device_train_batch_size",
        "learning_rate",
        "max_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "seed",
    },
}
"""Keys by the file of ``RELEASE`` that declares them."""

CONFIG_FILE = "llamafactory.yaml"


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes adapter, YAML and rows into ``folder``; what was compared comes back.

    Raises:
        ExportError: If stock peft does not compute with the adapter what was trained.
    """
    checks = peft.write(trained, folder)
    columns = {"prompt": "prompt", "response": "completion"}
    described = {"task": {"file_name": TRAIN_FILE, "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(document(trained), sort_keys=False), encoding="utf-8")
    written = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if unknown := sorted(set(written) - set().union(*KNOWN_KEYS.values())):
        raise ExportError(f"verification failed: keys that {RELEASE} does not know: {', '.join(unknown)}")
    return {**checks, "rows_beside": write_rows(trained, folder), "keys_known_to": RELEASE}


def document(trained: Trained) -> dict[str, Any]:
    """The YAML as plain values; paths are relative to the exported folder."""
    study = trained.study
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": base_name(trained),
        "adapter_name_or_path": ".",
        **_quantisation(study.model.load_in),
        "finetuning_type": "lora",
        "create_new_adapter": False,
        "dataset": "task",
        "dataset_dir": ".",
        "template": "empty",
        "cutoff_len": study.fidelity.max_length,
        "per_device_train_batch_size": study.fidelity.batch_size,
        "max_steps": study.fidelity.steps,
        "learning_rate": trained.trial.configuration.training.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": max(1, round(0.1 * study.fidelity.steps)),
        "weight_decay": 0.01,
        "seed": study.seed,
        "output_dir": "trained",
    }


def _quantisation(load_in: str | None) -> dict[str, Any]:
    if load_in is None:
        return {}
    chosen: dict[str, Any] = {"quantization_method": "bnb", "quantization_bit": int(load_in.removesuffix("bit"))}
    return chosen | ({"quantization_type": "nf4", "double_quantization": True} if load_in == "4bit" else {})
