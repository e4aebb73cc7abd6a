"""IA³ (arXiv 2205.05638): ``h = l ⊙ W0 x``, or ``h = W0 (l ⊙ x)`` at the last module of the feed-forward sublayer.

Arithmetic only; the module that trains is peft's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.keeping import Kept
from search_spaces.sizeless import Sizeless


@dataclass(frozen=True, slots=True)
class Ia3(Sizeless):
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

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the output before the factors; the input at ``down``."""
        if module.role == "down":
            return Kept(input=True, fixed_where_flowing=module.in_features, through_weight=True)
        return Kept(per_token=module.out_features, fixed_where_flowing=module.out_features)
