"""BitFit (arXiv 2106.10199): the bias of a module is trained, nothing is added.

Arithmetic only; ``autopeft.adapters.methods.bias`` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.keeping import Kept
from search_spaces.sizeless import Sizeless


@dataclass(frozen=True, slots=True)
class Bias(Sizeless):
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

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: nothing."""
        return Kept()
