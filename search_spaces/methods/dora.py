"""DoRA (arXiv 2402.09353): ``h = m (W0 + s B A) x / ‖W0 + s B A‖``, a magnitude a row and a low-rank direction.

Arithmetic only; the module that trains is peft's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, positive, require_whole


@dataclass(frozen=True, slots=True)
class Dora:
    """A low-rank update of a module's direction, with a trained magnitude for each output.

    Attributes:
        rank: Inner width.
        alpha: Numerator of the scaling alpha / rank.
    """

    name: ClassVar[str] = "dora"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "DoRA rank")
        object.__setattr__(self, "alpha", positive(self.alpha, "DoRA alpha"))

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing: any linear module can take it."""

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``rank (in + out) + out``."""
        return self.rank * (module.in_features + module.out_features) + module.out_features

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: LoRA's a token, and once a pass the product B A that the norm is taken of."""
        return 2 * self.rank * (module.in_features + module.out_features) * (tokens + module.in_features)

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: as LoRA, both results and two norms of each output."""
        results = norms = 2 * module.out_features
        return Kept(True, self.rank + results, fixed=norms, fixed_where_flowing=module.out_features)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank, "alpha": self.alpha}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Dora:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank", "alpha"))
        return cls(**data)
