"""LoRA (arXiv 2106.09685): ``h = W0 x + (alpha / rank) B A x`` with A of shape [rank, in], B of shape [out, rank].

Arithmetic only; the module that trains is peft's own, inserted by ``autopeft.adapters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ModuleShape
from search_spaces.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank update of one linear module.

    Attributes:
        rank: Inner width, at least 1 (rank 0 is the absence of the method).
        alpha: Numerator of the scaling alpha / rank.
    """

    name: ClassVar[str] = "lora"

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigurationError(
                f"LoRA rank {self.rank!r}: expected a whole number ≥ 1; leave the module out for 0"
            )
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 0 < self.alpha < 1e6:
            raise ConfigurationError(f"LoRA alpha {self.alpha!r}: expected a number in (0, 1e6)")
        object.__setattr__(self, "alpha", float(self.alpha))

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``rank (in + out)``."""
        return self.rank * (module.in_features + module.out_features)

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {"rank": self.rank, "alpha": self.alpha}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lora:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        if set(data) != {"rank", "alpha"}:
            raise ConfigurationError(f"lora takes rank and alpha, got {', '.join(sorted(data)) or 'nothing'}")
        return cls(rank=data["rank"], alpha=data["alpha"])
