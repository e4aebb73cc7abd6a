"""Prefix tuning (arXiv 2101.00190): trained keys and values before those of the tokens, a length of its own per layer.

Flat, without the reparametrising network of the paper, so that what is trained is what is stored; in self-attention.
Arithmetic only; ``autopeft.adapters.methods.prefix`` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import LayerShape
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, require_whole


@dataclass(frozen=True, slots=True)
class Prefix:
    """Trained keys and values in the self-attention of a layer.

    Attributes:
        length: Number of them.
    """

    name: ClassVar[str] = "prefix"
    sites: ClassVar[tuple[str, ...]] = ("attention",)
    mergeable: ClassVar[bool] = False

    length: int

    def __post_init__(self) -> None:
        """Refuses sizes that no layer can have."""
        require_whole(self.length, "prefix length")

    def require_fit(self, layer: LayerShape) -> None:
        """Nothing: any layer with this site can take it."""

    def parameter_count(self, layer: LayerShape) -> int:
        """Trained parameters: ``2 length`` times the width of all key heads."""
        return 2 * self.length * layer.key_value_width

    def count_without_biases(self, layer: LayerShape) -> int:
        """As the AutoPEFT paper counts (arXiv 2301.12132): a prefix has no bias, so the same."""
        return self.parameter_count(layer)

    def stored_count(self, layer: LayerShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(layer)

    def forward_flops(self, layer: LayerShape, tokens: int) -> int:
        """Extra operations: scores and sums over the prefix, ``4 length`` times the width of all heads a token."""
        return 4 * self.length * layer.attention_width * tokens

    def kept(self, layer: LayerShape) -> Kept:
        """What autograd keeps: longer keys and values, which the pass through the layer counts."""
        return Kept()

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the length."""
        return self.length

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"length": self.length}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prefix:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("length",))
        return cls(**data)
