"""HiRA (ICLR 2025, openreview TwJrTz9cRS): ``h = (W0 + W0 ⊙ B A) x``; a high-rank update from low-rank factors.

Arithmetic only; the module that trains is peft's own, which has no scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, require_whole


@dataclass(frozen=True, slots=True)
class Hira:
    """A low-rank update of a module, multiplied with its weight element by element.

    Attributes:
        rank: Inner width.
    """

    name: ClassVar[str] = "hira"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "HiRA rank")

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing: any linear module can take it."""

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``rank (in + out)``."""
        return self.rank * (module.in_features + module.out_features)

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: the product B A once, and the module a second time."""
        return 2 * module.in_features * module.out_features * (tokens + self.rank)

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, a weight turned round, the update as a whole where a gradient goes on."""
        whole = module.in_features * module.out_features
        return Kept(input=True, fixed=whole if module.transposed else 0, fixed_where_flowing=whole, reads_weight=True)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Hira:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank",))
        return cls(**data)
