"""Whether a resident backbone is still what was loaded: sums over the bits of its tensors, quick enough for each trial.

Exact for any one change of a value; two changes that cancel out to the bit pass. Tests compare hashes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bit_sum(model: nn.Module, leave_out: frozenset[str] = frozenset()) -> dict[str, int]:
    """The sum of the bit patterns of each parameter and buffer, as whole numbers; ``leave_out`` are names."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sums = {name: _sum(tensor.detach()) for name, tensor in tensors.items() if name not in leave_out}
    return {name: int(total) for name, total in sums.items()}


def _sum(tensor: Tensor) -> Tensor:
    words = _WORDS[tensor.element_size()]
    return tensor.contiguous().view(words).sum(dtype=torch.int64)
