"""LoKr (arXiv 2309.14859): ``h = W0 x + (alpha / rank) (C ⊗ D) x``, with D low-rank where that saves anything.

Arithmetic only; the module that trains is peft's own, which knows no transposed weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, positive, require_whole


@dataclass(frozen=True, slots=True)
class Lokr:
    """A Kronecker-product update of one linear module.

    Attributes:
        rank: Rank of the larger factor D.
        alpha: Numerator of the scaling alpha / rank.
        factor: Size of the smaller factor C on each side; -1 for the one nearest to a square split.
    """

    name: ClassVar[str] = "lokr"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int
    alpha: float
    factor: int = -1

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "LoKr rank")
        object.__setattr__(self, "alpha", positive(self.alpha, "LoKr alpha"))
        if self.factor != -1:
            require_whole(self.factor, "LoKr factor")

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing, if ``module`` can take it.

        Raises:
            ConfigurationError: If its weight is kept transposed.
        """
        if module.transposed:
            raise ConfigurationError(
                f"LoKr at {module.path}: peft's LoKr has no layer for weights kept as [in, out]; use another method"
            )

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: C of shape [a, c], and D of shape [b, d] whole or as rank (b + d)."""
        (a, b), (c, d) = split(module.out_features, self.factor), split(module.in_features, self.factor)
        return a * c + (self.rank * (b + d) if self._is_low_rank(b, d) else b * d)

    def _is_low_rank(self, b: int, d: int) -> bool:
        return self.rank < max(b, d) / 2

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: the module a second time, and D's product once where it is low-rank."""
        b, d = split(module.out_features, self.factor)[1], split(module.in_features, self.factor)[1]
        product = 2 * b * d * self.rank if self._is_low_rank(b, d) else 0
        return 2 * module.in_features * module.out_features * tokens + product

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, D where it is a product, the whole update where a gradient goes on."""
        b, d = split(module.out_features, self.factor)[1], split(module.in_features, self.factor)[1]
        fixed = b * d if self._is_low_rank(b, d) else 0
        return Kept(
            input=True, fixed=fixed, fixed_where_flowing=module.in_features * module.out_features, wide_result=True
        )

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank, "alpha": self.alpha, "factor": self.factor}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lokr:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank", "alpha", "factor"))
        return cls(**data)


def split(width: int, factor: int) -> tuple[int, int]:
    """``width`` as a product, the smaller number first: ``factor`` where it divides, else the best below it."""
    if factor > 0 and width % factor == 0:
        return factor, width // factor
    limit = width if factor == -1 else factor
    divisors = [m for m in range(1, int(width**0.5) + 1) if width % m == 0 and m <= limit]
    return divisors[-1], width // divisors[-1]
