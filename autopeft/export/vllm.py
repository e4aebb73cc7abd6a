"""The target ``vllm``: LoRA of one rank and scaling 1, which its adapter reader takes; it computes the same.

That reader keeps one rank and one alpha for the whole adapter and refuses DoRA, biases and modules saved whole. So A
and B are padded with zeros to the highest rank, and each module's scaling is folded into its B. A new head lies beside
as ``head.safetensors``: vLLM does not load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopeft.adapters.methods.stock import Target
from autopeft.export.peft import verified, write_adapter, write_head
from autopeft.export.stock import PREFIX, configuration_for, plain_modules, scale, tensors_for
from autopeft.export.trained import Trained
from search_spaces.methods.lora import Lora


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Writes the padded adapter into ``folder``; what was compared comes back.

    Raises:
        ExportError: If stock peft computes something else with it.
    """
    methods = {
        name: (target, target.method)
        for name, target in plain_modules(trained).items()
        if isinstance(target.method, Lora)
    }
    rank = max(method.rank for _, method in methods.values())
    tensors = tensors_for(trained)
    for name, (_, method) in methods.items():
        low, high = (f"{PREFIX}{name}.lora_{letter}.weight" for letter in "AB")
        tensors[low] = _padded(tensors[low], rank, axis=0)
        tensors[high] = _padded(tensors[high] * scale(method), rank, axis=1)
    modules = {name: Target(Lora(rank, rank), target.transposed, target.role) for name, (target, _) in methods.items()}
    config = configuration_for(modules)
    write_adapter(trained, folder, config, tensors)
    write_head(trained, folder, beside=True)
    return {"max_lora_rank": rank, **verified(trained, folder, modules)}


def _padded(tensor: Tensor, size: int, axis: int) -> Tensor:
    missing = list(tensor.shape)
    missing[axis] = size - missing[axis]
    return torch.cat([tensor.detach(), tensor.new_zeros(missing)], dim=axis)
