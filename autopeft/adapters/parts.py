"""What stands in a model: the parts that ``apply`` put there, kept on the model, and what can be asked of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from search_spaces.configuration import Configuration

_RECORD = "_autopeft_inserted"


class Part(Protocol):
    """Adapters at one place of a model."""

    @property
    def path(self) -> str:
        """Dotted name of the place in the headless model."""
        ...

    @property
    def method_names(self) -> tuple[str, ...]:
        """Methods that are there."""
        ...

    @property
    def mergeable(self) -> bool:
        """Whether they can be folded into the frozen weights."""
        ...

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the headless model."""
        ...

    def kept(self) -> dict[str, Tensor]:
        """What has to be saved beside."""
        ...

    def beside(self) -> list[Tensor]:
        """What is held in memory beside the model: pretrained values that come back, starts that are saved."""
        ...

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Takes in what was saved beside."""
        ...

    def suppressed(self, factor: float) -> AbstractContextManager[None]:
        """Scales what the part answers by ``factor`` in [0, 1] inside; bit for bit as before after it."""
        ...

    def merge(self) -> None:
        """Folds the part into the frozen weights and takes it out; only where it is ``mergeable``."""
        ...

    def take_out(self) -> None:
        """Leaves the place bit for bit as it was before."""
        ...


@runtime_checkable
class Regularised(Protocol):
    """A part that has a say in the training loss."""

    def auxiliary_loss(self) -> Tensor:
        """What is added to the loss of the batch that the model has just seen, weighted; a scalar."""
        ...


@dataclass(frozen=True, slots=True)
class Inserted:
    """A configuration in a model, and the parts that it became; those on top of others come last."""

    configuration: Configuration
    parts: tuple[Part, ...]


def inserted_in(model: PreTrainedModel) -> Inserted | None:
    """What ``apply`` put into ``model``; None if nothing is there."""
    found: Inserted | None = getattr(model.base_model, _RECORD, None)
    return found


def parts_of(model: PreTrainedModel) -> tuple[Part, ...]:
    """The parts in ``model``."""
    found = inserted_in(model)
    return found.parts if found else ()


def remember(model: PreTrainedModel, inserted: Inserted | None) -> None:
    """Keeps on the model what was put into it, or forgets it."""
    if inserted is not None:
        setattr(model.base_model, _RECORD, inserted)
    elif hasattr(model.base_model, _RECORD):
        delattr(model.base_model, _RECORD)


def adapter_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Every adapter parameter by its name in the headless backbone, like ``encoder.layer.0….query.lora_A.weight``."""
    return {name: parameter for part in parts_of(model) for name, parameter in part.parameters().items()}


def auxiliary_loss(model: PreTrainedModel) -> Tensor | None:
    """What the adapters in ``model`` add to the loss of the batch that it has just seen, a scalar; None for nothing."""
    losses = [part.auxiliary_loss() for part in parts_of(model) if isinstance(part, Regularised)]
    return torch.stack([loss.to(losses[0].device) for loss in losses]).sum() if losses else None
