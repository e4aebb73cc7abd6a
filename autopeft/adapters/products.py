"""LoRA in peft's own layers, computed in place and with matrices laid out as a CPU multiplies them fastest.

Peft's forward pass adds ``scaling · B A x`` in four passes over memory, and torch multiplies by narrow matrices up to
five times slower in one order than in the other. The layers, their values and what is saved stay peft's; a layer that
is more than plain LoRA on a frozen float32 ``nn.Linear`` answers by peft's own forward pass. Up to rounding, both
answer the same.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def quicken(model: nn.Module) -> None:
    """Makes peft's LoRA layers in ``model`` answer quickly wherever they can; taken out, they leave nothing behind."""
    for module in model.modules():
        if type(module) is Linear:
            module.forward = _Quick(module)


class _Quick:
    """The forward pass of one layer.

    Args:
        layer: Peft's.
    """

    def __init__(self, layer: Linear) -> None:
        self._layer = layer

    def __call__(self, hidden: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """What the layer answers to ``hidden``, shape […, in]: shape […, out]."""
        layer, adapter = self._layer, _adapter(self._layer, hidden)
        if adapter is None or inputs or named:
            answer: Tensor = type(layer).forward(layer, hidden, *inputs, **named)
            return answer
        base, scaling = layer.base_layer, layer.scaling[adapter]
        low, high = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        found: Tensor = _Product.apply(hidden, base.weight, base.bias, low, high, scaling)  # type: ignore[no-untyped-call]
        return found


def _adapter(layer: Linear, hidden: Tensor) -> str | None:
    """The only adapter's name, if the layer is plain LoRA on a frozen float32 linear module on a CPU; else None."""
    base, names = layer.base_layer, layer.active_adapters
    if type(base) is not nn.Linear or base._forward_hooks or base._forward_pre_hooks:
        return None
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    name = names[0]
    if name not in layer.lora_A or not isinstance(layer.scaling[name], int | float):
        return None
    low, high, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    if high.bias is not None or not (isinstance(dropout, nn.Identity) or not dropout.training):
        return None
    tensors = (hidden, base.weight, low.weight, high.weight)
    if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
        return None
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    return name if frozen and not torch.is_autocast_enabled("cpu") else None


class _Product(torch.autograd.Function):
    """``x Wᵀ + b + s (x Aᵀ) Bᵀ`` for a frozen W and b, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, low: Tensor, high: Tensor, scaling: float
    ) -> Tensor:
        """The answer, shape […, out]."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        inner = low @ rows.t()  # [rank, rows]: the quick order
        answer = nn.functional.linear(rows, weight, bias)
        answer.addmm_(inner.t(), high.t(), alpha=scaling)
        _, _, _, to_low, to_high, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if to_low else None, weight, low, high, inner if to_high else None)
        ctx.scaling = scaling
        return answer.view(*hidden.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``hidden``, ``low`` and ``high``, where they are wanted."""
        rows, weight, low, high, inner = ctx.saved_tensors
        answered = gradient.reshape(-1, gradient.shape[-1])
        to_hidden, _, _, to_low, to_high, _ = ctx.needs_input_grad
        of_inner = (high.t() @ answered.t()).mul_(ctx.scaling)
        of_low = of_inner @ rows if to_low else None
        of_high = (inner @ answered).t().mul(ctx.scaling) if to_high else None
        of_hidden = None
        if to_hidden:
            of_hidden = (answered @ weight).addmm_(of_inner.t(), low).view(*gradient.shape[:-1], -1)
        return of_hidden, None, None, of_low, of_high, None
