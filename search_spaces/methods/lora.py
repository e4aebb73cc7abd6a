"""LoRA (arXiv 2106.09685): ``h = W0 x + s B A x`` with A of shape [rank, in], B of shape [out, rank].

``s`` is alpha / rank, or alpha / sqrt(rank) for the rank-stabilised form (arXiv 2312.03732). Initialisations: default
(B = 0), PiSSA (arXiv 2404.02948), OLoRA (arXiv 2406.01775), orthogonal (B A = 0 with both non-zero), EVA (arXiv
2410.07170), CorDA in two forms (arXiv 2406.05223) and LoRA-GA (arXiv 2407.05000). Arithmetic only; the module that
trains is peft's own, inserted by ``autopeft.adapters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.backbone import ROLES, ModuleShape
from search_spaces.errors import ConfigurationError
from search_spaces.keeping import Kept
from search_spaces.sizes import SCALINGS, known_sizes, positive, require_choice, require_whole

INITIALISATIONS = ("default", "pissa", "olora", "orthogonal", "eva", "corda", "corda_ipm", "lora_ga")
DATA_DRIVEN = ("eva", "corda", "corda_ipm", "lora_ga")
"""Initialisations that read training rows."""

MOVE_THE_WEIGHT = ("pissa", "olora", "corda", "corda_ipm", "lora_ga")
"""Initialisations that start from B A ≠ 0 and take it off the frozen weight, so that the output stays."""

CORDA = {"corda": "kpm", "corda_ipm": "ipm"}
"""CorDA's forms as peft calls them: knowledge-preserving (weakest directions), instruction-previewed (strongest)."""


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank update of one linear module.

    Attributes:
        rank: Inner width, at least 1 (rank 0 is the absence of the method).
        alpha: Numerator of the scaling.
        scaling: One of ``SCALINGS``.
        init: One of ``INITIALISATIONS``.
    """

    name: ClassVar[str] = "lora"
    sites: ClassVar[tuple[str, ...]] = ROLES
    mergeable: ClassVar[bool] = True

    rank: int
    alpha: float
    scaling: str = "alpha/r"
    init: str = "default"

    def __post_init__(self) -> None:
        """Refuses sizes that no module can have."""
        require_whole(self.rank, "LoRA rank")
        object.__setattr__(self, "alpha", positive(self.alpha, "LoRA alpha"))
        require_choice(self.scaling, "LoRA scaling", SCALINGS)
        require_choice(self.init, "LoRA init", INITIALISATIONS)
        if self.init == "orthogonal" and self.rank % 2:
            raise ConfigurationError(f"LoRA rank {self.rank}: the orthogonal initialisation needs an even rank")

    def require_fit(self, module: ModuleShape) -> None:
        """Nothing, if ``module`` can take it.

        Raises:
            ConfigurationError: If the initialisation is not defined on such a module.
        """
        narrow = min(module.in_features, module.out_features)
        most = {"eva": module.in_features, "lora_ga": narrow // 2, **dict.fromkeys(("pissa", "olora", *CORDA), narrow)}
        if self.rank > most.get(self.init, self.rank):
            raise ConfigurationError(
                f"LoRA rank {self.rank} at {module.path}: the initialisation {self.init} takes at most "
                f"{most[self.init]} on a module of {module.in_features} to {module.out_features}"
            )
        if self.init == "olora" and module.transposed:
            raise ConfigurationError(
                f"LoRA at {module.path}: peft's OLoRA does not know weights kept as [in, out]; use another init"
            )

    def parameter_count(self, module: ModuleShape) -> int:
        """Trained parameters: ``rank (in + out)``."""
        return self.rank * (module.in_features + module.out_features)

    def stored_count(self, module: ModuleShape) -> int:
        """Elements in the saved file; twice as many where the start has to be kept beside (PiSSA and its kin)."""
        return self.parameter_count(module) * (2 if self.init in MOVE_THE_WEIGHT else 1)

    def forward_flops(self, module: ModuleShape, tokens: int) -> int:
        """Extra operations of an unmerged forward pass: ``2 rank (in + out)`` a token."""
        return 2 * self.parameter_count(module) * tokens

    def kept(self, module: ModuleShape) -> Kept:
        """What autograd keeps: the input, and ``A x``."""
        return Kept(input=True, per_token=self.rank)

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number: the rank."""
        return self.rank

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values; the ordinary scaling and initialisation are left out."""
        sizes: dict[str, Any] = {"rank": self.rank, "alpha": self.alpha}
        if self.scaling != "alpha/r":
            sizes["scaling"] = self.scaling
        if self.init != "default":
            sizes["init"] = self.init
        return sizes

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lora:
        """The method with these sizes.

        Raises:
            ConfigurationError: If a size is missing, unknown or out of range.
        """
        known_sizes(data, cls.name, ("rank", "alpha"), ("scaling", "init"))
        return cls(**data)
