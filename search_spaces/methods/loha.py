"""LoHa (arXiv 2108.06098, 2309.14859): ``h = W0 x + (alpha / rank) (B1 A1 ⊙ B2 A2) x``; of rank up to rank².

Each A of shape [rank, in], each B of shape [out, rank]; A2 starts at zero. Arithmetic only; the module that trains is
peft's own, which knows no transposed weights.
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
class Loha:
    """An update of one linear module that is two low-rank products, multiplied element by element.

    Attributes:
        rank: Inner width of each product.
        alpha: Numerator of the scaling alpha / rank.
    """

    name: ClassVar[str] = "loha"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "LoHa rank")
        object.__setattr__(self, "alpha", positive(self.alpha, "LoHa alpha"))

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing, if ``module`` can take it.

        Raises:
            ConfigurationError: If its weight is kept transposed.
        """
        if module.transposed:
            raise ConfigurationError(
                f"LoHa at {module.path}: peft's LoHa has no layer for weights kept as [in, out]; use another method"
            )

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``2 rank (in + out)``."""
        return 2 * self.rank * (module.in_features + module.out_features)

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: both products once, and the module a second time."""
        return 2 * module.in_features * module.out_features * (tokens + 2 * self.rank)

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, and the update as a whole where a gradient goes on."""
        whole = module.in_features * module.out_features
        return Kept(input=True, fixed_where_flowing=whole, wide_result=True)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank, "alpha": self.alpha}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Loha:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank", "alpha"))
        return cls(**data)
