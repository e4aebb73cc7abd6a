"""Bottleneck adapters around a feed-forward sublayer f: serial, parallel, or both in one layer, which then add up.

Serial: ``h = f(x) + s U relu(D f(x))`` (arXiv 1902.00751, placed as in 2005.00247). Parallel:
``h = f(x) + s U relu(D x)`` (arXiv 2110.04366).

They hang on the layer, and hooks on the first and the last linear module of the sublayer lead the hidden states through
them, so that every family is served alike, whether its sublayer is one module or not. U starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from search_spaces.methods.parallel import Parallel
from search_spaces.methods.serial import Serial


class Bottleneck(nn.Module):
    """``s U relu(D x)``.

    Args:
        hidden_size: Width of x.
        size: Inner width.
        scaling: s.
        like: A weight whose device the new ones share.
    """

    def __init__(self, hidden_size: int, size: int, scaling: float, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, size)
        self.up = nn.Linear(size, hidden_size)
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.to(like.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added, in the type of ``hidden``."""
        inner = torch.relu(self.down(hidden.to(self.down.weight.dtype)))
        added: Tensor = self.scaling * self.up(inner)
        return added.to(hidden.dtype)


@dataclass(slots=True)
class BottleneckPart:
    """The bottlenecks of one layer.

    Attributes:
        headless: The model that it is in.
        path: Dotted name of the layer in it.
        first: Dotted name of the first linear module of the feed-forward sublayer; its input is x.
        last: Dotted name of the last one; its output is f(x).
        methods: Serial, parallel or both.
    """

    headless: nn.Module
    path: str
    first: str
    last: str
    methods: tuple[Serial | Parallel, ...]
    _entered: Tensor | None = None
    _handles: list[RemovableHandle] = field(default_factory=list)

    mergeable = False

    def merge(self) -> None:
        """Refused: a bottleneck is no change of a weight."""
        raise NotImplementedError

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of its methods."""
        return tuple(method.name for method in self.methods)

    def insert(self, hidden_size: int) -> None:
        """Adds the bottlenecks to the layer and leads the hidden states through them."""
        layer, last = self.headless.get_submodule(self.path), self.headless.get_submodule(self.last)
        for method in self.methods:
            weight = next(iter(last.parameters()))
            layer.add_module(f"{method.name}_adapter", Bottleneck(hidden_size, method.size, method.scaling, weight))
        self._handles = [last.register_forward_hook(self._leave)]
        if "parallel" in self.method_names:
            first = self.headless.get_submodule(self.first)
            self._handles.append(first.register_forward_pre_hook(self._enter))

    def _enter(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._entered = inputs[0]

    def _leave(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        layer = self.headless.get_submodule(self.path)
        added = output
        for method in self.methods:
            bottleneck = layer.get_submodule(f"{method.name}_adapter")
            added = added + bottleneck(output if method.name == "serial" else self._entered)
        self._entered = None
        return added

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the headless model."""
        layer = self.headless.get_submodule(self.path)
        return {
            f"{self.path}.{name}_adapter.{inner}": parameter
            for name in self.method_names
            for inner, parameter in layer.get_submodule(f"{name}_adapter").named_parameters()
        }

    def kept(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def beside(self) -> list[Tensor]:
        """Nothing."""
        return []

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing."""

    @contextmanager
    def suppressed(self, factor: float) -> Iterator[None]:
        """Scales what the bottlenecks add."""
        layer = self.headless.get_submodule(self.path)
        inside = [layer.get_submodule(f"{name}_adapter") for name in self.method_names]
        bottlenecks = [module for module in inside if isinstance(module, Bottleneck)]
        scalings = [bottleneck.scaling for bottleneck in bottlenecks]
        for bottleneck, scaling in zip(bottlenecks, scalings, strict=True):
            bottleneck.scaling = factor * scaling
        try:
            yield
        finally:
            for bottleneck, scaling in zip(bottlenecks, scalings, strict=True):
                bottleneck.scaling = scaling

    def take_out(self) -> None:
        """Takes the bottlenecks and the hooks off."""
        for handle in self._handles:
            handle.remove()
        layer = self.headless.get_submodule(self.path)
        for name in self.method_names:
            delattr(layer, f"{name}_adapter")
