"""The target ``peft``: one LoRA adapter with full module names, ranks and alphas by pattern, that stock peft loads.

Nothing is trusted because it was written: the files are loaded by stock peft into a fresh model, and its ranks,
alphas, weights, parameter count and outputs are compared. Stock peft holds the head only where it is the family's own;
a mean-pooling head lies beside as ``head.safetensors``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from autopeft.adapters.anatomy import path_prefix
from autopeft.adapters.head import HEAD_FILE, mean_over_tokens
from autopeft.adapters.methods.stock import lora_config
from autopeft.adapters.plan import adapter_parameters
from autopeft.adapters.saving import write_tensors
from autopeft.errors import ExportError, LossyExportError
from autopeft.export.card import base_name
from autopeft.export.trained import Trained, fixed_batch
from search_spaces.cost import trainable_parameters
from search_spaces.methods.lora import Lora

TOLERANCE = 1e-5
"""Largest difference that any output may have."""

_PREFIX = "base_model.model."
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes the adapter for stock peft into ``folder``; what was compared comes back.

    Raises:
        LossyExportError: If peft cannot hold the configuration in one adapter.
        ExportError: If what stock peft reads back is something else.
    """
    modules = _modules(trained)
    saved_whole = _modules_saved_whole(trained)
    config = lora_config(modules)
    config.task_type = "SEQ_CLS" if trained.classifier.has_stock_head else "FEATURE_EXTRACTION"
    config.base_model_name_or_path = base_name(trained)
    config.inference_mode = True
    config.modules_to_save = saved_whole or None
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=sorted, allow_nan=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    write_tensors(folder / WEIGHTS_FILE, _weights(trained, saved_whole))
    _write_head(trained, folder)
    return _verified(trained, folder, modules)


def _modules(trained: Trained) -> dict[str, Lora]:
    """Sizes by full module name in the stock model."""
    configuration, backbone = trained.trial.configuration, trained.study.backbone
    if configuration.is_empty:
        raise LossyExportError(
            f"trial {trained.trial.number} adapts no module (head only), and peft has no empty adapter; "
            "export it with --to autopeft"
        )
    other = sorted({method.name for _, _, method in configuration.placements()} - {"lora"})
    if other:
        raise LossyExportError(f"one peft adapter cannot hold {', '.join(other)}; export with --to autopeft")
    prefix = path_prefix(trained.classifier.model)
    return {
        prefix + backbone.module(layer, site).path: method
        for layer, site, method in configuration.placements()
        if isinstance(method, Lora)
    }


def _modules_saved_whole(trained: Trained) -> list[str]:
    """Modules of the stock model that hold newly initialised weights; peft keeps such modules whole.

    Peft always adds ``classifier``, so a head below that name is named by it.
    """
    if not trained.classifier.has_stock_head:
        return []
    names = {name.rpartition(".")[0] for name in trained.classifier.head_parameters()}
    return sorted({"classifier" if name.startswith("classifier.") else name for name in names})


def _weights(trained: Trained, saved_whole: list[str]) -> dict[str, Tensor]:
    model = trained.classifier.model
    prefix = _PREFIX + path_prefix(model)
    weights = {prefix + name: parameter.detach() for name, parameter in adapter_parameters(model).items()}
    for path in saved_whole:
        for name, tensor in model.get_submodule(path).state_dict().items():
            weights[f"{_PREFIX}{path}.{name}"] = tensor
    return weights


def _write_head(trained: Trained, folder: Path) -> None:
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
    else:
        description["modules"] = _modules_saved_whole(trained)
    (folder / "head.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _verified(trained: Trained, folder: Path, modules: dict[str, Lora]) -> dict[str, Any]:
    """What agrees between the files as stock peft reads them and the trained model.

    Raises:
        ExportError: If anything does not.
    """
    try:
        with _quiet():
            stock = load_stock(trained, folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ExportError(f"verification failed: stock peft cannot load the files: {error}") from error
    count = _require_equal_adapters(stock, folder, modules)
    expected = trainable_parameters(trained.trial.configuration, trained.study.backbone)
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
    if trained.classifier.has_stock_head:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=trained.output_count, ignore_mismatched_sizes=True, **options
        )
    else:
        model = transformers.AutoModel.from_pretrained(path, **options)
    return peft.PeftModel.from_pretrained(model, folder).eval()


def _require_equal_adapters(stock: peft.PeftModel, folder: Path, modules: dict[str, Lora]) -> int:
    """The parameters that stock peft counts in its adapters, if each rank, alpha and weight is as planned."""
    layers = {
        name.removeprefix(_PREFIX): module
        for name, module in stock.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    if set(layers) != set(modules):
        different = ", ".join(sorted(set(layers) ^ set(modules))[:3])
        raise ExportError(f"verification failed: stock peft adapts other modules than planned: {different}")
    for name, method in modules.items():
        got = layers[name].r["default"], layers[name].lora_alpha["default"]
        planned = method.rank, method.alpha
        if got != planned:
            raise ExportError(f"verification failed: {name} has rank and alpha {got} in stock peft, planned {planned}")
    read = peft.get_peft_model_state_dict(stock, save_embedding_layers=False)
    written = load_file(folder / WEIGHTS_FILE)
    if set(read) != set(written) or not all(torch.equal(read[name], written[name]) for name in written):
        raise ExportError("verification failed: stock peft does not read back the weights that were written")
    return sum(parameter.numel() for name, parameter in stock.named_parameters() if "lora_" in name)


def _differences(trained: Trained, stock: peft.PeftModel, folder: Path) -> dict[str, float]:
    """Largest absolute difference of each output between stock peft and the trained model, on the fixed input."""
    classifier = trained.classifier
    batch = fixed_batch(classifier)
    with torch.no_grad():
        logits = classifier(batch)
        if classifier.has_stock_head:
            return {"logits": _largest(stock(**batch).logits, logits)}
        hidden = stock(**batch).last_hidden_state
        head = load_file(folder / HEAD_FILE)
        pooled = mean_over_tokens(hidden, batch["attention_mask"])
        return {
            "last_hidden_state": _largest(hidden, classifier.model(**batch).last_hidden_state),
            "logits": _largest(torch.nn.functional.linear(pooled, head["weight"], head["bias"]), logits),
        }


def _largest(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from reporting that a head is new (the adapter brings it), and what peft does not use yet."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers.logging.set_verbosity(level)
