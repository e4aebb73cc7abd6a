"""MoLA (arXiv 2402.08562): ``h = W0 x + s Σ g_e(x) B_e A_e x``, several LoRAs a module and a router among them.

The weights g come from ``softmax(R x)`` with a router R of shape [experts, in] of its own at each module; which of them
stay, and what is added to the loss, is the router's (``search_spaces.routers``): MoLA's top-k or DynMoLE's (arXiv
2504.00661). How many experts a layer has is the plan's choice. One expert is plain LoRA, and a configuration holds it
as that. Arithmetic only; ``autopeft.adapters.methods.mola`` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.keeping import Kept
from search_spaces.routers import USUAL, Router, router_from_json
from search_spaces.sizes import SCALINGS, positive, require_choice, require_whole

_OWN = ("experts", "rank", "alpha", "scaling")


@dataclass(frozen=True, slots=True)
class Mola:
    """Routed low-rank updates of one linear module.

    Attributes:
        experts: Their number.
        rank: Inner width of each.
        alpha: Numerator of the scaling.
        router: Sizes of the router.
        scaling: One of ``SCALINGS``, by the rank of one expert.
    """

    name: ClassVar[str] = "mola"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = False

    experts: int
    rank: int
    alpha: float
    router: Router = USUAL
    scaling: str = "alpha/r"

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.experts, "MoLA experts")
        require_whole(self.rank, "MoLA rank")
        object.__setattr__(self, "alpha", positive(self.alpha, "MoLA alpha"))
        require_choice(self.scaling, "MoLA scaling", SCALINGS)
        if self.experts > 1:
            self.router.require_fit(self.experts)

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing: any linear module can take it."""

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``experts (rank (in + out) + in)``; one expert has no router."""
        router = module.in_features if self.experts > 1 else 0
        return self.experts * (self.rank * (module.in_features + module.out_features) + router)

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file: what is trained."""
        return self.parameter_count(module)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations: all experts are computed for every token, and those not chosen weigh nothing."""
        return 2 * self.parameter_count(module) * tokens

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, ``A x`` before and after it is weighed, and what the router did."""
        inner, routing = 2 * self.experts * self.rank, 2 * self.experts + 8
        return Kept(input=True, per_token=inner, per_token_wide=routing, reads=2, wide_result=True)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the ranks of all experts added up."""
        return self.experts * self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values, those of the router among them; the ordinary scaling is left out."""
        scaling = {} if self.scaling == "alpha/r" else {"scaling": self.scaling}
        return {"experts": self.experts, "rank": self.rank, "alpha": self.alpha, **self.router.to_json(), **scaling}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mola:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        if not {"experts", "rank", "alpha"} <= set(data):
            got = ", ".join(sorted(map(str, data))) or "nothing"
            raise ConfigurationError(f"mola takes experts, rank and alpha (and may take those of a router), got {got}")
        own = {key: value for key, value in data.items() if key in _OWN}
        router = router_from_json({key: value for key, value in data.items() if key not in _OWN})
        return cls(**own, router=router)
