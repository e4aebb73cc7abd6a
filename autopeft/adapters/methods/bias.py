"""BitFit (arXiv 2106.10199): trains a module's own bias.

The trained bias is a copy that stands in the module in place of the pretrained one, which comes back on removal.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from autopeft.adapters.suppression import moved


@dataclass(slots=True)
class BiasPart:
    """The trained bias of one module.

    Attributes:
        headless: The model that it is in.
        path: Dotted name of the module in it.
        original: The pretrained bias, as the module had it.
    """

    headless: nn.Module
    path: str
    original: nn.Parameter

    method_names = ("bias",)
    mergeable = True

    @classmethod
    def insert(cls, headless: nn.Module, path: str) -> BiasPart:
        """Puts a trainable copy in place of the bias of the module at ``path``."""
        module = _linear(headless, path)
        original = module.get_parameter("bias")
        module.bias = nn.Parameter(original.detach().clone())
        return cls(headless, path, original)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The bias, by its own name in the headless model."""
        return {f"{self.path}.bias": _linear(self.headless, self.path).get_parameter("bias")}

    def kept(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def beside(self) -> list[Tensor]:
        """The pretrained bias."""
        return [self.original]

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def suppressed(self, factor: float) -> AbstractContextManager[None]:
        """Moves the bias towards the pretrained one."""
        bias = _linear(self.headless, self.path).get_parameter("bias")
        return moved([(bias, self.original.detach())], factor)

    def merge(self) -> None:
        """Writes the trained values into the pretrained bias."""
        with torch.no_grad():
            self.original.copy_(_linear(self.headless, self.path).get_parameter("bias"))
        self.take_out()

    def take_out(self) -> None:
        """Puts the pretrained bias back, moved to where the module is now."""
        module = _linear(self.headless, self.path)
        self.original.data = self.original.data.to(module.get_parameter("bias"))
        module.bias = self.original


def _linear(headless: nn.Module, path: str) -> nn.Module:
    module = headless.get_submodule(path)
    linear: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return linear
