"""Runs a model from one of its layers on, from the hidden states that enter it; and reads those states off a full run.

For a frozen bottom that computes the same for every trial. The module tree stays as it is: for the time of a forward
pass, the layers below and what leads to them answer with the given states instead of computing, so masks, positions,
kinds of layers and whatever hangs on the layers above come out as in a full run. Where the states are kept is not
known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.adapters.families import family_of

ENTERING = "entering_states"
"""Name in a batch of the hidden states that enter a layer, shape [rows, tokens, width]."""


class _Reached(Exception):  # noqa: N818 - never leaves this module
    """The states are there: the rest need not be computed."""


def refusal(model: PreTrainedModel) -> str | None:
    """Why ``model`` cannot be run from one of its layers on; None if it can."""
    family = family_of(model.config.model_type, model.config.model_type)
    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        return "several devices hold the layers between them"
    if len(family.stacks) > 1:
        return f"{model.config.model_type} has two stacks of layers, and the second reads the first in every layer"
    if getattr(model.base_model, "z_steps", 0) > 1:
        return f"{model.config.model_type} with z_steps runs its last layer on states of two layers"
    if (
        "encoder.conv" in family.entry
        and len(_layers(model)) == 1
        and list(_inner(model.base_model, ("encoder.conv",)))
    ):
        return f"{model.config.model_type} of one layer joins it with what entered it"
    return None


@contextmanager
def replaying(model: PreTrainedModel, layer: int, states: Tensor) -> Iterator[None]:
    """While it lasts, forward passes of ``model`` begin at ``layer``, with ``states``.

    Args:
        model: One that ``refusal`` says nothing of.
        layer: From 1 to the number of layers; the latter leaves the final norm and the head to compute.
        states: Shape [rows, tokens, width], of the rows that the forward pass is about.
    """
    headless = model.base_model
    family = family_of(model.config.model_type, model.config.model_type)
    answer = (states, None) if family.tuple_layers else states
    bypassed: dict[nn.Module, Any] = dict.fromkeys(_inner(headless, family.entry), states)
    bypassed |= dict.fromkeys(_layers(model)[:layer], answer)
    try:
        for module, given in bypassed.items():
            module.forward = _always(given)
        yield
    finally:
        for module in bypassed:
            del module.forward  # the instance's, so that the class's shows again


@torch.no_grad()
def states_entering(model: PreTrainedModel, layer: int, batch: Mapping[str, Tensor]) -> Tensor:
    """The hidden states that enter ``layer`` in a forward pass, shape [rows, tokens, width].

    Args:
        model: One that ``refusal`` says nothing of, without adapters below ``layer``.
        layer: From 1 to the number of layers; the latter means what leaves the last.
        batch: Inputs.
    """
    layers = _layers(model)
    found: list[Tensor] = []

    def reach(states: Any) -> None:
        found.append(states)
        raise _Reached

    if layer < len(layers):
        hook = layers[layer].register_forward_pre_hook(
            lambda _module, inputs, named: reach(inputs[0] if inputs else named["hidden_states"]), with_kwargs=True
        )
    else:
        hook = layers[-1].register_forward_hook(
            lambda _module, _inputs, output: reach(output[0] if isinstance(output, tuple) else output)
        )
    try:
        model.base_model(**batch)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    layers = model.base_model.get_submodule(family_of(model.config.model_type, "").stacks[0].layers)
    return list(layers.children())


def _inner(headless: nn.Module, names: tuple[str, ...]) -> Iterator[nn.Module]:
    """The modules of those names that are there; a model may lack some of what its family can have."""
    for name in names:
        parent, _, last = name.rpartition(".")
        module = getattr(headless.get_submodule(parent), last, None)
        if isinstance(module, nn.Module):
            yield module


def _always(given: Any) -> Any:
    return lambda *_inputs, **_named: given
