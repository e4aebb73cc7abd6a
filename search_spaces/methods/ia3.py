"""IA³ (arXiv 2205.05638): ``h = l ⊙ W0 x``, or ``h = W0 (l ⊙ x)`` at the last module of the feed-forward sublayer.

Arithmetic only; the module that trains is peft's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.sizes import known_sizes


@dataclass(frozen=True, slots=True)
class Ia3:
    """A trained factor for each output of a module; for each input at ``down``."""

    name: ClassVar[str] = "ia3"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing: any linear module can take it."""

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``out``; ``in`` at ``down``."""
        return module.in_features if module.role == "down" else module.out_features

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations unmerged: none that a matrix product would count."""
        return 0

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number; it has none, so 1."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ia3:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ())
        return cls()
