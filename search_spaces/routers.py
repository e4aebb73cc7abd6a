"""Routers of MoLA as sizes: which experts a token goes to, with what weights, and what is added to the loss for it.

``TopK`` is that of MoLA (arXiv 2402.08562), ``Dynmole`` that of DynMoLE (arXiv 2504.00661). Arithmetic only; the
formulas stand in ``autopeft.adapters.routing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from search_spaces.errors import ConfigurationError
from search_spaces.sizes import require_share, require_whole

NEAREST_INDEX = 0.05
"""Least distance of an entropy index from 1, where it is not 1: nearer, its difference quotient loses its digits."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The best experts of each token, their probabilities renormalised over the kept; all of them is soft routing.

    Attributes:
        top_k: Experts a token.
        balance: Weight of the load-balancing loss in the training loss; 0 leaves it out.
    """

    name: ClassVar[str] = "top-k"

    top_k: int = 2
    balance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses sizes that no router can have."""
        require_whole(self.top_k, "MoLA top_k")
        require_share(self.balance, "MoLA balance")

    def require_fit(self, experts: int) -> None:
        """Nothing, if there are enough experts to choose from.

        Raises:
            ConfigurationError: If not.
        """
        if self.top_k > experts:
            raise ConfigurationError(f"MoLA top_k {self.top_k} of {experts} experts: give at most {experts}")

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values; the usual weight of the loss is left out."""
        return {"top_k": self.top_k} | _unusual(self, ("balance",))


@dataclass(frozen=True, slots=True)
class Dynmole:
    """As many experts as a token needs: the best ones up to a probability, all of them where it is undecided.

    Attributes:
        keep_top_k: Least experts a token.
        top_p: Experts are kept, best first, while their probabilities add up to at most this.
        threshold: Normalised entropy above which a token keeps all experts; 1 for never.
        index: Of the Tsallis entropy; 1 is Shannon's.
        balance: Weight of the load-balancing loss in the training loss; 0 leaves it out.
        entropy: Weight of the mean entropy in the training loss; 0 leaves it out.
    """

    name: ClassVar[str] = "dynmole"

    keep_top_k: int = 2
    top_p: float = 0.75
    threshold: float = 0.9
    index: float = 1.1
    balance: float = 1e-3
    entropy: float = 1e-2

    def __post_init__(self) -> None:
        """Refuses sizes that no router can have."""
        require_whole(self.keep_top_k, "DynMoLE keep_top_k")
        for name in ("top_p", "threshold", "balance", "entropy"):
            require_share(getattr(self, name), f"DynMoLE {name}")
        index = self.index
        if isinstance(index, bool) or not isinstance(index, int | float) or not 0 < index <= 10:
            raise ConfigurationError(f"DynMoLE index {index!r}: expected a number in (0, 10]")
        if index != 1 and abs(index - 1) < NEAREST_INDEX:
            raise ConfigurationError(
                f"DynMoLE index {index}: too near to 1 for its formula; give 1, or {NEAREST_INDEX} away from it or more"
            )

    def require_fit(self, experts: int) -> None:
        """Nothing, if there are enough experts to choose from.

        Raises:
            ConfigurationError: If not.
        """
        if self.keep_top_k > experts:
            raise ConfigurationError(
                f"DynMoLE keep_top_k {self.keep_top_k} of {experts} experts: give at most {experts}"
            )

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values, the router's name among them; the usual weights of the losses are left out."""
        sizes = {name: getattr(self, name) for name in ("keep_top_k", "top_p", "threshold", "index")}
        return {"router": self.name, **sizes} | _unusual(self, ("balance", "entropy"))


Router = TopK | Dynmole

USUAL = TopK()
"""MoLA's own router with its usual sizes."""


def router_from_json(sizes: Mapping[str, Any]) -> Router:
    """The router with these sizes; one with the name ``dynmole`` among them is DynMoLE's.

    Raises:
        ConfigurationError: If the name or a size is not known, or out of range.
    """
    rest = {key: value for key, value in sizes.items() if key != "router"}
    kinds: dict[str, type[Router]] = {TopK.name: TopK, Dynmole.name: Dynmole}
    name = sizes.get("router", TopK.name)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigurationError(f"MoLA router {name!r}: expected {TopK.name} or {Dynmole.name}")
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(rest) - set(known)):
        raise ConfigurationError(f"MoLA with router {kind.name} takes {', '.join(known)}, got {', '.join(unknown)}")
    return kind(**rest)


def _unusual(router: Router, names: tuple[str, ...]) -> dict[str, Any]:
    usual = type(router)()
    return {name: getattr(router, name) for name in names if getattr(router, name) != getattr(usual, name)}
