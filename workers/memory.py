"""Peak memory of training, measured: by the allocator on a GPU, by adding up what must be alive on a CPU.

On a CPU no allocator keeps count. The figure is parameters and buffers, with what adapters keep beside them +
gradients + optimiser state + what autograd keeps for the backward pass (distinct storages that are still held when the
forward pass ends, seen by saved-tensor hooks at the one step with the longest rows, and at every step where steps
differ in what they update). Temporaries inside an operation, the batch itself and the interpreter are not in it. Costs
a noted step a few per cent. ``search_spaces.memory`` predicts it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.adapters.parts import parts_of
from autopeft.adapters.quantisation import scales


class _Saved:
    """A tensor that autograd holds; goes when the part of the graph goes that holds it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # the tensor itself would be a cycle that keeps the graph alive


class MemoryMeter:
    """Measures one training run.

    Args:
        model: All that is on the device.
        device: Where it trains.

    Attributes:
        saved_bytes: The most that autograd kept for a backward pass, weights apart, in the passes that were noted.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._known = 0
        self.saved_bytes = 0
        if device.type == "cuda":
            for number in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(number)

    @contextmanager
    def forward_pass(self, noted: bool) -> Iterator[None]:
        """Surrounds a forward pass; what one that is noted saves counts, if it is the most so far."""
        if not noted:
            yield
            return
        with saved_storages() as saved:
            yield
        self.saved_bytes = max(self.saved_bytes, kept_bytes(saved, self._model))

    def after_step(self, trained: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Notes gradients and optimiser state; called once they are there."""
        state = [value for held in optimizer.state.values() for value in held.values() if isinstance(value, Tensor)]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        self._known = max(self._known, _bytes([*state, *gradients]))

    @property
    def peak_bytes(self) -> int:
        """The peak so far, in bytes; of all GPUs together that the process sees."""
        if self._device.type == "cuda":
            return sum(int(torch.cuda.max_memory_allocated(number)) for number in range(torch.cuda.device_count()))
        return sum(_weights(self._model).values()) + self._known + self.saved_bytes


@contextmanager
def saved_storages() -> Iterator[dict[int, int]]:
    """Bytes of each distinct storage that autograd keeps of what is inside, by its address; filled at the end."""
    held: weakref.WeakSet[_Saved] = weakref.WeakSet()
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        held.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved.tensor):
        yield storages
    storages.update(_storages(saved.tensor for saved in held))


def kept_bytes(saved: Mapping[int, int], model: nn.Module) -> int:
    """Bytes of ``saved`` without the weights of ``model``, which are there anyway."""
    weights = _weights(model)
    return sum(size for place, size in saved.items() if place not in weights)


def _weights(model: nn.Module) -> dict[int, int]:
    outermost = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    parts = () if outermost is None else parts_of(outermost)
    beside = [tensor for part in parts for tensor in part.beside()]
    return _storages([*model.parameters(), *model.buffers(), *beside, *scales(model)])


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each distinct storage by its address."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_storages(tensors).values())
