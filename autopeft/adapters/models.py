"""Loads backbones: as shapes (on the meta device, no weights), and with a head on them; and their tokenizers.

Checkpoints are found by ``autopeft.adapters.sources``; code from a checkpoint is never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers import logging as transformers_logging

from autopeft.adapters.anatomy import describe, path_prefix
from autopeft.adapters.families import family_of
from autopeft.adapters.head import Classifier
from autopeft.adapters.sources import ResolvedModel, checkpoint_sha256, model_spec, resolve
from autopeft.errors import BackboneError
from autopeft.study import ModelSpec
from search_spaces.backbone import Backbone

__all__ = ["ResolvedModel", "backbone_shapes", "load_classifier", "load_tokenizer", "model_spec", "resolve"]

_LOADING: dict[str, Any] = {
    "local_files_only": True,
    "trust_remote_code": False,
    "use_safetensors": True,
    "output_loading_info": True,
    "dtype": torch.float32,
}
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
"""Without any of these files transformers builds a tokenizer that knows no word, and says nothing."""

_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)


def backbone_shapes(source: str) -> Backbone:
    """The shapes of a checkpoint's headless model; loads no weights.

    Raises:
        BackboneError: If it is not found, cannot be read, or is of an unknown family.
    """
    resolved = resolve(source)
    with _explained(resolved), torch.device("meta"):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_config(config, trust_remote_code=False)
    return describe(model, resolved.name)


def load_classifier(spec: ModelSpec, label_count: int, regression: bool, seed: int) -> Classifier:
    """The pretrained model with a new head, frozen but for the head, on the CPU in float32.

    Args:
        spec: Weights and head.
        label_count: Number of classes; ignored for regression.
        regression: Whether the head has one output, trained on squared error.
        seed: Of the head's initial values.

    Raises:
        BackboneError: If the weights cannot be loaded, or are others than ``spec`` names.
    """
    resolved = resolve(spec.source)
    if (found := checkpoint_sha256(resolved)) != spec.sha256:
        raise BackboneError(
            f"model {resolved.name}: the files in {resolved.path} have changed since the study began "
            f"(hash {found[:12]}, the study has {spec.sha256[:12]}); start a new study"
        )
    outputs = 1 if regression else label_count
    with _explained(resolved):
        model, new = _load_stock(resolved, outputs) if spec.pooling == "stock" else (_load_headless(resolved), None)
    classifier = Classifier(model, outputs, new)
    classifier.reset_head(seed)
    return classifier


def load_tokenizer(spec: ModelSpec) -> transformers.PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer.

    Raises:
        BackboneError: If it has none that can be read.
    """
    resolved = resolve(spec.source)
    if not any((resolved.path / name).is_file() for name in _VOCABULARIES):
        raise BackboneError(
            f"model {resolved.name}: no tokenizer in {resolved.path} (none of {', '.join(_VOCABULARIES)}); "
            "save the tokenizer beside the model"
        )
    with _explained(resolved):
        return AutoTokenizer.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)


def _load_headless(resolved: ResolvedModel) -> PreTrainedModel:
    model, loading = AutoModel.from_pretrained(resolved.path, **_LOADING)
    _require_complete(model, loading, resolved)
    return model


def _load_stock(resolved: ResolvedModel, outputs: int) -> tuple[PreTrainedModel, set[str]]:
    """The stock model for sequence classification, and the names of what is new in it.

    The output layer is always new: one that the checkpoint brings was trained for other labels.
    """
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        resolved.path, num_labels=outputs, ignore_mismatched_sizes=True, **_LOADING
    )
    new = _require_complete(model, loading, resolved)
    output_layer = family_of(model.config.model_type, resolved.name).output_layer
    return model, new | {f"{output_layer}.{name}" for name, _ in model.get_submodule(output_layer).named_parameters()}


def _require_complete(model: PreTrainedModel, loading: Mapping[str, Any], resolved: ResolvedModel) -> set[str]:
    """Names of the parameters that the checkpoint does not hold; only a head or a pooler may be among them."""
    absent = {
        key if isinstance(key, str) else key[0] for key in {*loading["missing_keys"], *loading["mismatched_keys"]}
    }
    absent &= {name for name, _ in model.named_parameters()}
    prefix = path_prefix(model)
    lacking = sorted(name for name in absent if name.startswith(prefix) and "pooler." not in name)
    if lacking:
        raise BackboneError(
            f"model {resolved.name}: {len(lacking)} weights are missing from {resolved.path} or have another shape, "
            f"the first is {lacking[0]}; the checkpoint is not complete"
        )
    return absent


@contextmanager
def _explained(resolved: ResolvedModel) -> Iterator[None]:
    """Keeps transformers quiet and turns what it raises into one clear line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"model {resolved.name}: {resolved.path} cannot be loaded: {reason}") from error
    finally:
        transformers_logging.set_verbosity(level)
