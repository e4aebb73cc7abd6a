"""OFT (arXiv 2306.07280): ``h = W0 R x`` with R block-diagonal and orthogonal, by Cayley's map of skew matrices.

Arithmetic only; the module that trains is peft's own (Cayley-Neumann series of five terms, arXiv 2506.19847), which
knows no transposed weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.keeping import Kept
from search_spaces.sizes import known_sizes, require_whole


@dataclass(frozen=True, slots=True)
class Oft:
    """A trained rotation of a module's input, in blocks.

    Attributes:
        block_size: Width of a block; has to divide the input's width.
    """

    name: ClassVar[str] = "oft"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    block_size: int

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.block_size, "OFT block_size", least=2)

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing, if ``module`` can take it.

        Raises:
            ConfigurationError: If the blocks do not divide its input, or its weight is kept transposed.
        """
        if module.transposed:
            raise ConfigurationError(
                f"OFT at {module.path}: peft's OFT has no layer for weights kept as [in, out]; use another method"
            )
        if module.in_features % self.block_size:
            raise ConfigurationError(
                f"OFT block_size {self.block_size} at {module.path}: has to divide the input's width, "
                f"{module.in_features}"
            )

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``(in / block) block (block - 1) / 2``."""
        return module.in_features * (self.block_size - 1) // 2

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: the rotation of each token, and three products of blocks once."""
        return 2 * module.in_features * self.block_size * (tokens + 3 * self.block_size)

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, and three powers that the rotation is built of, or four."""
        blocks = module.in_features * self.block_size
        return Kept(input=True, fixed=3 * blocks, fixed_where_flowing=blocks, through_weight=True, wide_result=True)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the block size."""
        return self.block_size

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"block_size": self.block_size}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Oft:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("block_size",))
        return cls(**data)
