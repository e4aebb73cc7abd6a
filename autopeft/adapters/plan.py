"""Puts a configuration into a model, takes it out again, and folds it in; the model stays a plain ``PreTrainedModel``.

Inserting and removing never leaves a pretrained value changed: after ``remove`` the model computes, bit for bit, what
it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from autopeft.adapters.anatomy import describe
from autopeft.adapters.calibration import TrainingRows
from autopeft.adapters.insertion import insert
from autopeft.adapters.parts import Inserted, adapter_parameters, inserted_in, parts_of, remember
from autopeft.adapters.quantisation import dequantise as unpack
from autopeft.adapters.quantisation import quantisation_of, require_trainable
from autopeft.errors import ConfigurationError, EvaluationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters

__all__ = ["TrainingRows", "adapter_parameters", "apply", "merge", "remove"]


def apply(
    model: PreTrainedModel,
    configuration: Configuration,
    *,
    seed: int | None = None,
    rows: TrainingRows | None = None,
    loading: bool = False,
) -> None:
    """Inserts the adapters of ``configuration`` into ``model`` and freezes its backbone.

    What lies outside the backbone (a head) keeps its ``requires_grad``; the empty plan only freezes.

    Args:
        model: With or without a head, of a known family.
        configuration: What is inserted.
        seed: Of the adapters' initial values; None draws from torch's global generator.
        rows: Training rows, for initialisations that read some.
        loading: Whether saved values will replace all initial ones.

    Raises:
        BackboneError: If the model's family is not known, or cannot take a method.
        ConfigurationError: If the configuration does not fit, or adapters are in the model already.
        EvaluationError: If the adapters built do not count what the arithmetic says.
    """
    if inserted_in(model):
        raise ConfigurationError("the model has adapters already: call autopeft.remove(model) first")
    if configuration.training.backbone:
        raise ConfigurationError("full fine-tuning inserts nothing: model.requires_grad_(True) is all it takes")
    backbone = describe(model, type(model).__name__)
    configuration.validate(backbone)
    require_trainable(model, configuration, backbone)
    model.base_model.requires_grad_(False)
    with _seeded(seed):
        parts = insert(model.base_model, configuration, backbone, rows, loading=loading)
    remember(model, Inserted(configuration, parts))
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.float()  # whatever the frozen weights are kept in
        parameter.requires_grad_(True)
    _require_exact_count(model, configuration, backbone)


def remove(model: PreTrainedModel) -> None:
    """Takes all adapters out of ``model``; its backbone stays frozen and is bit-identical to what it was before."""
    for part in reversed(parts_of(model)):
        part.take_out()
    remember(model, None)
    model.base_model.requires_grad_(False)


def merge(model: PreTrainedModel, *, dequantise: bool = False) -> None:
    """Folds all adapters into the weights of ``model``, which then has none and computes the same.

    Args:
        model: With adapters.
        dequantise: Of a quantised model, whether its packed weights are unpacked to float32 first, for good. What they
            stand for is kept, so it computes the same up to the rounding of the quantised arithmetic.

    Raises:
        ConfigurationError: If some cannot be folded, or weights are packed and are to stay so; the message names them,
            and nothing is changed.
    """
    parts = parts_of(model)
    stuck = [f"{' and '.join(part.method_names)} at {part.path}" for part in parts if not part.mergeable]
    if stuck:
        named = ", ".join(stuck[:5]) + (f" and {len(stuck) - 5} more" if len(stuck) > 5 else "")
        raise ConfigurationError(
            f"cannot merge {named}: what they add is no change of a weight; keep them beside the model"
        )
    if (load_in := quantisation_of(model)) is not None:
        if not dequantise:
            raise ConfigurationError(
                f"cannot merge into weights in {load_in}, which would be rounded again: "
                "merge(model, dequantise=True) unpacks them to float32 first"
            )
        _unpack_below(model)
    for part in reversed(parts_of(model)):
        part.merge()
    remember(model, None)
    model.base_model.requires_grad_(False)


def _unpack_below(model: PreTrainedModel) -> None:
    """Unpacks the weights that the adapters of ``model`` stand on, which have the same values afterwards."""
    inserted = inserted_in(model)
    assert inserted is not None
    trained = {name: parameter.detach().clone() for name, parameter in adapter_parameters(model).items()}
    kept = {name: tensor for part in inserted.parts for name, tensor in part.kept().items()}
    remove(model)
    unpack(model)
    apply(model, inserted.configuration, loading=True)
    for part in parts_of(model):
        part.restore(kept)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            parameter.copy_(trained[name])


def _require_exact_count(model: PreTrainedModel, configuration: Configuration, backbone: Backbone) -> None:
    """Nothing, if what was built counts what the budget was held against, to the unit."""
    built = sum(parameter.numel() for parameter in adapter_parameters(model).values() if parameter.requires_grad)
    expected = trainable_parameters(configuration, backbone)
    if built != expected:
        remove(model)
        raise EvaluationError(
            f"the adapters built train {built:,} parameters, the configuration says {expected:,}; "
            "the installed peft builds other layers than this version of autopeft knows"
        )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Makes torch's global generator, which peft draws from, start at ``seed``, and puts it back."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
