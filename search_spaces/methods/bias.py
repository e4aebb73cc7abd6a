"""BitFit (arXiv 2106.10199): the bias of a module is trained, nothing is added.

Arithmetic only; ``autopeft.adapters.methods.bias`` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.sizes import known_sizes


@dataclass(frozen=True, slots=True)
class Bias:
    """The module's own bias, trained."""

    name: ClassVar[str] = "bias"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing, if ``module`` can take it.

        Raises:
            ConfigurationError: If it has no bias.
        """
        if not module.bias:
            raise ConfigurationError(f"bias at {module.path}: this module has none; leave it out")

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``out``."""
        return module.out_features

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations: none."""
        return 0

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number; it has none, so 1."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bias:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ())
        return cls()
