"""Peak memory of training, measured: by the allocator on a GPU, by adding up what must be alive on a CPU.

On a CPU no allocator keeps count. The figure is parameters and buffers + gradients + optimiser state + what autograd
keeps for the backward pass (distinct storages, seen by saved-tensor hooks at the one step with the longest rows).
Temporaries inside an operation, the batch itself and the interpreter are not in it. Costs one step a few per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MemoryMeter:
    """Measures one training run.

    Args:
        model: All that is on the device.
        device: Where it trains.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._saved: dict[int, int] = {}
        self._known = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @contextmanager
    def forward_pass(self, widest: bool) -> Iterator[None]:
        """Surrounds a forward pass; of the widest batch, what it saves is noted."""
        if self._device.type == "cuda" or not widest:
            yield
            return
        self._saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(self._note, _as_it_is):
            yield

    def after_step(self, trained: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Notes gradients and optimiser state; called once they are there."""
        state = [value for held in optimizer.state.values() for value in held.values() if isinstance(value, Tensor)]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        self._known = _bytes([*state, *gradients])

    @property
    def peak_bytes(self) -> int:
        """The peak so far, in bytes."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        weights = _storages([*self._model.parameters(), *self._model.buffers()])
        kept = sum(size for place, size in self._saved.items() if place not in weights)
        return sum(weights.values()) + self._known + kept

    def _note(self, tensor: Tensor) -> Tensor:
        self._saved.update(_storages([tensor]))
        return tensor.detach()  # the tensor itself would be a cycle that keeps the graph alive


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each distinct storage by its address."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_storages(tensors).values())
