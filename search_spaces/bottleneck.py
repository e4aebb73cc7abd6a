"""What serial and parallel bottleneck adapters share: ``s U relu(D x)`` around a feed-forward sublayer, as sizes.

D of shape [size, hidden], U of shape [hidden, size], both with a bias. Where x comes from is the methods' own; nothing
here is a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from search_spaces.backbone import LayerShape
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, positive, require_whole


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A bottleneck at the feed-forward sublayer.

    Attributes:
        size: Inner width.
        scaling: Factor of what it adds.
    """

    name: ClassVar[str]
    sites: ClassVar[tuple[str, ...]] = ("feed_forward",)
    mergeable: ClassVar[bool] = False

    size: int
    scaling: float

    def __post_init__(self) -> None:
        """Refuses sizes that no layer can have."""
        require_whole(self.size, f"{self.name} adapter size")
        object.__setattr__(self, "scaling", positive(self.scaling, f"{self.name} adapter scaling"))

    def require_fit(self, layer: LayerShape) -> None:
        """Nothing: any layer with this site can take it."""

    def parameter_count(self, layer: LayerShape) -> int:
        """Trained parameters: ``2 hidden size``, and ``size + hidden`` biases."""
        return self.count_without_biases(layer) + self.size + layer.hidden_size

    def count_without_biases(self, layer: LayerShape) -> int:
        """As the AutoPEFT paper counts (arXiv 2301.12132): ``2 hidden size``."""
        return 2 * layer.hidden_size * self.size

    def stored_count(self, layer: LayerShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(layer)

    def forward_flops(self, layer: LayerShape, tokens: int) -> int:
        """Extra operations: ``4 hidden size`` a token."""
        return 2 * self.count_without_biases(layer) * tokens

    def kept(self, layer: LayerShape) -> Kept:
        """What autograd keeps: the input, and ``relu(D x)``."""
        return Kept(input=True, per_token=self.size)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the size."""
        return self.size

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"size": self.size, "scaling": self.scaling}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("size", "scaling"))
        return cls(**data)
