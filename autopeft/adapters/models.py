"""Loads backbones: as shapes (on the meta device, no weights), and with a head on them; and their tokenizers.

Which head a kind of task gets: classes and numbers the stock class for sequence classification, or a mean over tokens
and a linear layer (not T5, whose decoder would stand idle); images the stock class for image classification; language
modelling the checkpoint's own head. Checkpoints are found by ``autopeft.adapters.sources``; code from a checkpoint is
never run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from autopeft.adapters.anatomy import describe, longest_input
from autopeft.adapters.families import family_of
from autopeft.adapters.head import Classifier
from autopeft.adapters.quantisation import REFUSED
from autopeft.adapters.sources import (
    VOCABULARIES,
    ResolvedModel,
    checkpoint_sha256,
    has_vocabulary,
    model_spec,
    resolve,
)
from autopeft.adapters.turns import ChatTemplate
from autopeft.adapters.weights import HERE, Stand, explained, load_weights, stood
from autopeft.errors import BackboneError, ConfigurationError
from autopeft.fitting import Head
from autopeft.study import ModelSpec
from search_spaces.backbone import Backbone

__all__ = [
    "ResolvedModel",
    "backbone_shapes",
    "head_figures",
    "load_classifier",
    "load_for_task",
    "load_image_classifier",
    "load_image_processor",
    "load_language_model",
    "load_template",
    "load_tokenizer",
    "model_spec",
    "require_readable",
    "resolve",
]

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2", "opt")
"""Families that generate text; they classify from the last token that is no padding."""

WITHOUT_MEAN = ("t5", "vit")
"""Families that take their stock head only."""

IMAGE_FAMILIES = ("vit",)


def backbone_shapes(source: str, load_in: str | None = None) -> Backbone:
    """The shapes of a checkpoint's headless model; loads no weights.

    Args:
        source: As for ``resolve``.
        load_in: How it is to be quantised, which some methods cannot stand on; None: not.

    Raises:
        BackboneError: If it is not found, cannot be read, or is of an unknown family.
    """
    resolved = resolve(source)
    with explained(resolved), torch.device("meta"):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_config(config, trust_remote_code=False)
    shapes = describe(model, resolved.name)
    return replace(shapes, refusals=(*shapes.refusals, *(() if load_in is None else REFUSED.get(load_in, ()))))


def load_for_task(spec: ModelSpec, kind: str, label_count: int, seed: int, stand: Stand = HERE) -> Classifier:
    """The pretrained model with the head that a kind of task needs, frozen but for what is new.

    Args:
        spec: Weights and head.
        kind: A ``TaskKind``.
        label_count: Number of classes, where there are some.
        seed: Of the head's initial values.
        stand: Where it is to be, and how it computes.

    Raises:
        BackboneError: If the weights cannot be loaded, are others than ``spec`` names, or have no such head.
        ConfigurationError: If a package that the stand needs is missing.
    """
    if kind == "causal-lm":
        return load_language_model(spec, stand)
    if kind == "image-classification":
        return load_image_classifier(spec, label_count, seed, stand)
    return load_classifier(spec, label_count, kind == "regression", seed, stand)


def load_classifier(spec: ModelSpec, label_count: int, regression: bool, seed: int, stand: Stand = HERE) -> Classifier:
    """The pretrained model with a new head, frozen but for the head.

    Args:
        spec: Weights and head.
        label_count: Number of classes; ignored for regression.
        regression: Whether the head has one output, trained on squared error.
        seed: Of the head's initial values.
        stand: Where it is to be, and how it computes.

    Raises:
        BackboneError: If the weights cannot be loaded, or are others than ``spec`` names.
    """
    resolved = _unchanged(spec)
    _require_head(resolved, spec.pooling, "regression" if regression else "classification")
    outputs = 1 if regression else label_count
    if spec.pooling != "stock":
        return _with_head(load_weights(AutoModel, resolved, spec.load_in, stand)[0], outputs, None, seed, stand)
    model, new = _load_stock(AutoModelForSequenceClassification, resolved, outputs, spec.load_in, stand)
    with explained(resolved):
        _set_padding(model, resolved, spec)
    return _with_head(model, outputs, new, seed, stand)


def load_image_classifier(spec: ModelSpec, label_count: int, seed: int, stand: Stand = HERE) -> Classifier:
    """The stock model for image classification with a new output layer, frozen but for that.

    Raises:
        BackboneError: If the weights cannot be loaded, are others than ``spec`` names, or read no images.
    """
    resolved = _unchanged(spec)
    _require_head(resolved, spec.pooling, "image-classification")
    model, new = _load_stock(AutoModelForImageClassification, resolved, label_count, spec.load_in, stand)
    return _with_head(model, label_count, new, seed, stand)


def load_language_model(spec: ModelSpec, stand: Stand = HERE) -> Classifier:
    """The checkpoint with its own language-model head, all of it frozen; nothing is new.

    Raises:
        BackboneError: If the weights cannot be loaded, are others than ``spec`` names, or generate no text.
    """
    resolved = _unchanged(spec)
    _require_head(resolved, "stock", "causal-lm")
    model, lacking = load_weights(AutoModelForCausalLM, resolved, spec.load_in, stand)
    if lacking:
        raise BackboneError(
            f"model {resolved.name}: {resolved.path} has no language-model head ({min(lacking)} is missing); "
            "give a checkpoint that was saved with it"
        )
    return _with_head(model, 0, set(), 0, stand)


def load_tokenizer(spec: ModelSpec) -> transformers.PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer; one without a padding token that the model has a row for pads with its end.

    Raises:
        BackboneError: If it has none that can be read.
    """
    resolved = resolve(spec.source)
    if not has_vocabulary(resolved.path):
        raise BackboneError(
            f"model {resolved.name}: no tokenizer in {resolved.path} (none of {', '.join(VOCABULARIES)}); "
            "save the tokenizer beside the model"
        )
    with explained(resolved):
        tokenizer = AutoTokenizer.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token is not None and not _is_embedded(tokenizer.pad_token_id, resolved):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_template(spec: ModelSpec, given: str | None) -> ChatTemplate:
    """How the checkpoint's tokenizer writes conversations: by the template ``given`` as text, else by its own.

    Raises:
        BackboneError: If it has no tokenizer that can be read, or neither has a template.
    """
    tokenizer = load_tokenizer(spec)
    if given is None and not tokenizer.chat_template:
        raise BackboneError(
            f"model {spec.source}: its tokenizer has no chat template, which the task's conversations need; give "
            "--chat-template NAME or FILE: plain and headings suit any tokenizer, chatml one that has its tokens"
        )
    return ChatTemplate(tokenizer, given)


def load_image_processor(spec: ModelSpec) -> Any:
    """The checkpoint's own image processor.

    Raises:
        BackboneError: If it has none that can be read.
    """
    resolved = resolve(spec.source)
    if not (resolved.path / "preprocessor_config.json").is_file():
        raise BackboneError(
            f"model {resolved.name}: no preprocessor_config.json in {resolved.path}; save the image processor beside "
            "the model"
        )
    with explained(resolved):
        return AutoImageProcessor.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)


def head_figures(spec: ModelSpec, kind: str, label_count: int) -> Head:
    """What will stand on the backbone for a kind of task, as the arithmetic of memory needs it; loads no weights.

    Raises:
        BackboneError: If the checkpoint's configuration cannot be read.
    """
    if kind != "causal-lm":
        return Head(spec.pooling if kind != "image-classification" else "stock", max(1, label_count))
    resolved = resolve(spec.source)
    with explained(resolved):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
    vocabulary = int(config.vocab_size)
    tied = bool(getattr(config, "tie_word_embeddings", True))
    return Head("language", vocabulary, 0 if tied else vocabulary * int(config.hidden_size))


def require_readable(spec: ModelSpec, max_length: int, kind: str | None = None) -> None:
    """Nothing, if the checkpoint can be put to tasks of that kind, with its tokenizer; loads no weights.

    Args:
        spec: Weights and head.
        max_length: Most tokens of a row.
        kind: Of the task, a ``TaskKind``; None: whatever the checkpoint reads.

    Raises:
        BackboneError: If it has no tokenizer, no image processor, or no head for such tasks.
        ConfigurationError: If rows may be too long for it.
    """
    resolved = resolve(spec.source)
    if kind is None:
        kind = "image-classification" if resolved.config.get("model_type") in IMAGE_FAMILIES else "classification"
    _require_head(resolved, spec.pooling if kind != "causal-lm" else "stock", kind)
    if kind == "image-classification":
        load_image_processor(spec)
        return
    with explained(resolved):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
    require_length(config, resolved.name, max_length)
    load_tokenizer(spec)


def require_length(config: Any, name: str, max_length: int) -> None:
    """Nothing, if a model with this configuration reads rows of ``max_length`` tokens.

    Raises:
        ConfigurationError: If it does not.
    """
    if max_length > (limit := longest_input(config)):
        raise ConfigurationError(
            f"max length {max_length}: {name} reads at most {limit} tokens; give --max-length {limit} or less"
        )


def _unchanged(spec: ModelSpec) -> ResolvedModel:
    """The checkpoint, if it is the one that the study began with."""
    resolved = resolve(spec.source)
    if (found := checkpoint_sha256(resolved)) != spec.sha256:
        raise BackboneError(
            f"model {resolved.name}: the files in {resolved.path} have changed since the study began "
            f"(hash {found[:12]}, the study has {spec.sha256[:12]}); start a new study"
        )
    return resolved


def _require_head(resolved: ResolvedModel, pooling: str, kind: str) -> None:
    """Nothing, if models of this family have the head that such tasks and the pooling ask for."""
    family = str(resolved.config.get("model_type"))
    if (kind == "image-classification") != (family in IMAGE_FAMILIES):
        reads, task = ("images", "text") if family in IMAGE_FAMILIES else ("text", "images")
        raise BackboneError(f"model {resolved.name}: {family} reads {reads}, the task holds {task}; give another model")
    if kind == "causal-lm" and family not in DECODERS:
        raise BackboneError(
            f"model {resolved.name}: {family} generates no text, which the task asks for; give one of the families "
            f"{', '.join(DECODERS)}"
        )
    if pooling != "stock" and family in WITHOUT_MEAN:
        raise BackboneError(f"model {resolved.name}: {family} takes its stock head only; give --pooling stock")


def _with_head(model: PreTrainedModel, outputs: int, new: set[str] | None, seed: int, stand: Stand) -> Classifier:
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # keys and values of a training pass would be kept for nobody
    classifier = stood(Classifier(model, outputs, new), stand)
    classifier.reset_head(seed)
    return classifier


def _is_embedded(token: int | None, resolved: ResolvedModel) -> bool:
    """Whether the model has a row in its embeddings for ``token``; some tokenizers add one behind the last."""
    rows = resolved.config.get("vocab_size")
    return token is not None and (not isinstance(rows, int) or token < rows)


def _set_padding(model: PreTrainedModel, resolved: ResolvedModel, spec: ModelSpec) -> None:
    """Tells a decoder with a stock head, which looks for the last token that is no padding, what padding is."""
    if model.config.model_type == "t5" and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = model.config.pad_token_id
    if model.config.model_type not in DECODERS:
        return
    if has_vocabulary(resolved.path):
        model.config.pad_token_id = load_tokenizer(spec).pad_token_id
    if model.config.pad_token_id is None:
        raise BackboneError(
            f"model {resolved.name}: neither a padding nor an end token, which its stock head needs; use --pooling mean"
        )


def _load_stock(
    auto: Any, resolved: ResolvedModel, outputs: int, load_in: str | None, stand: Stand
) -> tuple[PreTrainedModel, set[str]]:
    """The stock model of the class that ``auto`` picks, and the names of what is new in it.

    The output layer is always new: one that the checkpoint brings was trained for other labels.
    """
    model, new = load_weights(auto, resolved, load_in, stand, num_labels=outputs, ignore_mismatched_sizes=True)
    output_layer = family_of(model.config.model_type, resolved.name).output_layer
    return model, new | {f"{output_layer}.{name}" for name, _ in model.get_submodule(output_layer).named_parameters()}
