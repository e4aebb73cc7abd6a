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
    backbone = describe(model, type(model).__name__)
    configuration.validate(backbone)
    model.base_model.requires_grad_(False)
    with _seeded(seed):
        parts = insert(model.base_model, configuration, backbone, rows, loading=loading)
    remember(model, Inserted(configuration, parts))
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    _require_exact_count(model, configuration, backbone)


def remove(model: PreTrainedModel) -> None:
    """Takes all adapters out of ``model``; its backbone stays frozen and is bit-identical to what it was before."""
    for part in reversed(parts_of(model)):
        part.take_out()
    remember(model, None)
    model.base_model.requires_grad_(False)


def merge(model: PreTrainedModel) -> None:
    """Folds all adapters into the weights of ``model``, which then has none and computes the same.

    Raises:
        ConfigurationError: If some cannot be folded; the message names them, and nothing is changed.
    """
    parts = parts_of(model)
    stuck = [f"{' and '.join(part.method_names)} at {part.path}" for part in parts if not part.mergeable]
    if stuck:
        named = ", ".join(stuck[:5]) + (f" and {len(stuck) - 5} more" if len(stuck) > 5 else "")
        raise ConfigurationError(
            f"cannot merge {named}: what they add is no change of a weight; keep them beside the model"
        )
    for part in reversed(parts):
        part.merge()
    remember(model, None)
    model.base_model.requires_grad_(False)


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
