"""Gradient checkpointing (arXiv 1604.06174) of a frozen backbone: each layer keeps its input and is computed anew.

Transformers does it for models in training mode only, which a frozen backbone never is here: dropout stays off. The
non-reentrant form of torch is used, under which adapters above a frozen bottom get their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from autopeft.adapters.anatomy import layer_paths


def recompute_layers(model: PreTrainedModel) -> None:
    """From now on, what the layers of ``model`` keep for a backward pass is computed anew in it."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and getattr(module.config, "use_cache", False):
            module.config.use_cache = False  # keys and values that a first pass has kept would change the second
    for path in layer_paths(model):
        layer = model.base_model.get_submodule(path)
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__})


class _Recomputed(nn.Module):
    """Stands before a layer's class: its call is a checkpoint wherever gradients are wanted."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """What the layer answers."""
        if not torch.is_grad_enabled():
            return super().__call__(*inputs, **named)
        return checkpoint(super().__call__, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
