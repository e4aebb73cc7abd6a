"""Norm tuning (arXiv 2312.11420): weights and biases of a layer's LayerNorms or RMSNorms are trained.

All norms inside the layer, those of queries and keys too where a family has them. Arithmetic only; the module that
trains is peft's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.backbone import LayerShape
from search_spaces.keeping import Kept
from search_spaces.sizeless import Sizeless


@dataclass(frozen=True, slots=True)
class Norm(Sizeless):
    """All norms of a layer, trained."""

    name: ClassVar[str] = "norm"
    sites: ClassVar[tuple[str, ...]] = ("norms",)
    mergeable: ClassVar[bool] = True

    def require_fit(self, layer: LayerShape) -> None:
        """Nothing: any layer with this site can take it."""

    def parameter_count(self, layer: LayerShape) -> int:
        """Trained parameters: the widths of all norms, twice where there is a bias."""
        return sum(norm.width * (2 if norm.bias else 1) for norm in layer.norms)

    def stored_count(self, layer: LayerShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(layer)

    def forward_flops(self, layer: LayerShape, tokens: int) -> int:
        """Extra operations: none."""
        return 0

    def kept(self, layer: LayerShape) -> Kept:
        """What autograd keeps besides what an untrained norm does: the pass through the layer says."""
        return Kept()
