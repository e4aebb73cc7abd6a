"""VeRA (arXiv 2310.11454): ``h = W0 x + b ⊙ B (d ⊙ A x)`` with A, B random, frozen and shared by all modules.

Arithmetic only; the modules that train are peft's own. A and B follow from the key and are not saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, positive, require_whole


@dataclass(frozen=True, slots=True)
class Vera:
    """Two trained vectors around a frozen random projection.

    Attributes:
        rank: Inner width.
        d_initial: Initial value of every element of d.
        projection_key: Seed of A and B, which all modules of one rank and key share.
    """

    name: ClassVar[str] = "vera"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int
    d_initial: float = 0.1
    projection_key: int = 0

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "VeRA rank")
        object.__setattr__(self, "d_initial", positive(self.d_initial, "VeRA d_initial"))
        require_whole(self.projection_key, "VeRA projection_key", least=0)

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing: any linear module can take it."""

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``rank + out``."""
        return self.rank + module.out_features

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: ``2 rank (in + out)`` a token."""
        return 2 * self.rank * (module.in_features + module.out_features) * tokens

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: what the two vectors are multiplied with."""
        return Kept(per_token=self.rank + module.out_features, wide_result=True)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank, "d_initial": self.d_initial, "projection_key": self.projection_key}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vera:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank", "d_initial", "projection_key"))
        return cls(**data)
