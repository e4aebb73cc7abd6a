"""The target ``peft``: one adapter with full module names, ranks and alphas by pattern, that stock peft loads.

Nothing is trusted because it was written: the files are loaded by stock peft into a fresh model, and its ranks,
alphas, weights, parameter count and outputs are compared. Stock peft holds the head only where it is the family's own;
a mean-pooling head lies beside as ``head.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import Tensor

from autopeft.adapters.head import HEAD_FILE, mean_over_tokens
from autopeft.adapters.methods.stock import Target
from autopeft.adapters.models import IMAGE_FAMILIES
from autopeft.adapters.saving import write_tensors
from autopeft.errors import ExportError
from autopeft.export.card import base_name
from autopeft.export.quiet import quiet
from autopeft.export.stock import PREFIX, configuration_for, plain_modules, planned_count, tensors_for
from autopeft.export.trained import Trained, fixed_batch
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import Lora

TOLERANCE = 1e-5
"""Largest difference that any output may have."""

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes the adapter for stock peft into ``folder``; what was compared comes back.

    Raises:
        LossyExportError: If peft cannot hold the configuration in one adapter.
        ExportError: If what stock peft reads back is something else.
    """
    modules, saved_whole = plain_modules(trained), _modules_saved_whole(trained)
    write_adapter(trained, folder, configuration_for(modules), _weights(trained, saved_whole), saved_whole)
    write_head(trained, folder)
    return verified(trained, folder, modules)


def write_adapter(
    trained: Trained,
    folder: Path,
    config: peft.PeftConfig,
    tensors: Mapping[str, Tensor],
    saved_whole: Collection[str] = (),
) -> None:
    """Writes the two files that stock peft reads.

    Args:
        trained: What they are of.
        folder: Where to.
        config: Of the adapter.
        tensors: By the names that peft gives them.
        saved_whole: Modules that peft keeps whole, beside the adapter.
    """
    kind = task_type(trained)
    config.task_type = None if kind == "SEQ_CLS" and not saved_whole else kind  # of that kind peft wants a head inside
    config.base_model_name_or_path = base_name(trained)
    config.inference_mode = True
    config.modules_to_save = list(saved_whole) or None
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=sorted, allow_nan=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    write_tensors(folder / WEIGHTS_FILE, tensors)


def task_type(trained: Trained) -> str | None:
    """What peft calls the kind of task; None for images, for which it has no name."""
    if trained.is_causal:
        return "CAUSAL_LM"
    if trained.study.backbone.family in IMAGE_FAMILIES:
        return None
    return "SEQ_CLS" if trained.classifier.has_stock_head else "FEATURE_EXTRACTION"


def _modules_saved_whole(trained: Trained) -> list[str]:
    """Modules of the stock model that hold newly initialised weights; peft keeps such modules whole.

    Peft always adds ``classifier``, so a head below that name is named by it.
    """
    if not trained.classifier.has_stock_head or trained.is_causal:
        return []
    names = {name.rpartition(".")[0] for name in trained.classifier.head_parameters()}
    return sorted({"classifier" if name.startswith("classifier.") else name for name in names})


def _weights(trained: Trained, saved_whole: list[str]) -> dict[str, Tensor]:
    model, weights = trained.classifier.model, tensors_for(trained)
    for path in saved_whole:
        for name, tensor in model.get_submodule(path).state_dict().items():
            weights[f"{PREFIX}{path}.{name}"] = tensor
    return weights


def write_head(trained: Trained, folder: Path, *, beside: bool = False) -> None:
    """Writes the description of the head, and the head itself where peft's files do not hold it.

    Args:
        trained: What it is of.
        folder: Where to.
        beside: Write a stock head too.
    """
    description: dict[str, Any] = {
        "schema": "autopeft.head/1",
        "pooling": trained.study.model.pooling,
        "outputs": trained.output_count,
        "labels": None if trained.labels is None else list(trained.labels),
    }
    if trained.classifier.classifier is not None:
        state = trained.classifier.classifier.state_dict()
        write_tensors(folder / HEAD_FILE, state)
        description["tensors"] = {name: list(tensor.shape) for name, tensor in state.items()}
    elif beside and trained.head is not None:
        write_tensors(folder / HEAD_FILE, trained.classifier.head_parameters())
        description["modules"] = _modules_saved_whole(trained)
    else:
        description["modules"] = _modules_saved_whole(trained)
    (folder / "head.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def verified(trained: Trained, folder: Path, modules: Mapping[str, Target]) -> dict[str, Any]:
    """What agrees between the files as stock peft reads them and the trained model.

    Raises:
        ExportError: If anything does not.
    """
    try:
        with quiet():
            stock = load_stock(trained, folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ExportError(f"verification failed: stock peft cannot load the files: {error}") from error
    count = _require_equal_adapters(stock, folder, modules, _modules_saved_whole(trained))
    expected = planned_count(trained, modules)
    if count != expected:
        raise ExportError(f"verification failed: stock peft counts {count:,} parameters, the plan has {expected:,}")
    differences = _differences(trained, stock, folder)
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        raise ExportError(
            f"verification failed: outputs of stock peft differ by {worst:.3g}, at most {TOLERANCE} allowed"
        )
    return {
        "modules": len(modules),
        "ranks_and_alphas_equal": True,
        "trainable_parameters": count,
        "tolerance": TOLERANCE,
        "largest_difference": differences,
    }


def load_stock(trained: Trained, folder: Path) -> peft.PeftModel:
    """The export in ``folder`` on a fresh model, by nothing but transformers and peft."""
    path, options = trained.base.path, {"local_files_only": True, "dtype": torch.float32}
    if trained.is_causal:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
    elif trained.classifier.has_stock_head:
        images = trained.study.backbone.family in IMAGE_FAMILIES
        kind = "AutoModelForImageClassification" if images else "AutoModelForSequenceClassification"
        model = getattr(transformers, kind).from_pretrained(
            path, num_labels=trained.output_count, ignore_mismatched_sizes=True, **options
        )
        model.config.pad_token_id = trained.classifier.model.config.pad_token_id
    else:
        model = transformers.AutoModel.from_pretrained(path, **options)
    return peft.PeftModel.from_pretrained(model, folder).eval()


def _require_equal_adapters(
    stock: peft.PeftModel, folder: Path, modules: Mapping[str, Target], saved_whole: Collection[str]
) -> int:
    """The parameters that stock peft counts in its adapters, if each rank, alpha and weight is as planned."""
    layers = {
        name.removeprefix(PREFIX): module
        for name, module in stock.named_modules()
        if isinstance(module, BaseTunerLayer) and not isinstance(module, ModulesToSaveWrapper)
    }
    if set(layers) != set(modules):
        different = ", ".join(sorted(set(layers) ^ set(modules))[:3])
        raise ExportError(f"verification failed: stock peft adapts other modules than planned: {different}")
    for name, target in modules.items():
        if not isinstance(target.method, Lora | Dora):
            continue  # tensors and outputs below say whether it is the same
        got = layers[name].r["default"], layers[name].lora_alpha["default"]
        planned = target.method.rank, target.method.alpha
        if got != planned:
            raise ExportError(f"verification failed: {name} has rank and alpha {got} in stock peft, planned {planned}")
    read = peft.get_peft_model_state_dict(stock, save_embedding_layers=False)
    written = load_file(folder / WEIGHTS_FILE)
    if set(read) != set(written) or not all(torch.equal(read[name], written[name]) for name in written):
        raise ExportError("verification failed: stock peft does not read back the weights that were written")
    whole = tuple(f"{PREFIX}{path}." for path in saved_whole)
    return sum(tensor.numel() for name, tensor in read.items() if not name.startswith(whole))


def _differences(trained: Trained, stock: peft.PeftModel, folder: Path) -> dict[str, float]:
    """Largest absolute difference of each output between stock peft and the trained model, on the fixed input."""
    classifier = trained.classifier
    batch = fixed_batch(classifier)
    with torch.no_grad():
        logits = classifier(batch)
        if classifier.has_stock_head:
            if (folder / HEAD_FILE).is_file():
                stock.base_model.model.load_state_dict(load_file(folder / HEAD_FILE), strict=False)
            return {"logits": _largest(stock(**batch).logits.float(), logits)}
        hidden = stock(**batch).last_hidden_state
        head = load_file(folder / HEAD_FILE)
        pooled = mean_over_tokens(hidden, batch["attention_mask"])
        return {
            "last_hidden_state": _largest(hidden, classifier.model(**batch).last_hidden_state),
            "logits": _largest(torch.nn.functional.linear(pooled, head["weight"], head["bias"]), logits),
        }


def _largest(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
