"""The selection of DiffoRA (arXiv 2502.08905): which modules keep their LoRA, learned by gates in a supernet.

The differential adaptation matrix has an entry a (layer, module). A gate in (0, 1) stands on the LoRA of each, the
gates are learned beside the weights (``workers.selection``), and the matrix is cut: the ⌈ratio · M⌉ largest of each
row, or the ⌈ratio · L M⌉ largest of all. The paper's text was not at hand when this was written: how gates relax and at
which ratio the matrix is cut are choices of this project. Plain data and arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from search_spaces.dimensions import significant
from search_spaces.errors import ConfigurationError
from search_spaces.sizes import require_choice

SCOPES = ("row", "global")
RELAXATIONS = ("sigmoid", "softmax")
WEIGHTS = ("retrain", "continue")
WARM_UP_FRACTION = 0.15
"""Share of a search in which the weights learn alone."""

Entry = tuple[int, str]
"""A layer and the site of a module in it."""

Scores = Mapping[Entry, float]


@dataclass(frozen=True, slots=True)
class Selection:
    """How a supernet is searched and cut.

    Attributes:
        ratio: Share of the modules that is kept, in (0, 1].
        scope: ``row``: of each layer; ``global``: of all, so that a layer may keep nothing.
        relaxation: ``sigmoid``: each gate for itself; ``softmax``: those of a layer add up to one.
        order: 1, or 2 for DARTS' second order (arXiv 1806.09055, eq. 8), at about 2.5 times the cost.
        search_fraction: Share of a trial's steps that the search is worth, in (0, 0.9].
        gate_rate: Learning rate of the gates.
        weights: ``retrain``: what is kept starts anew; ``continue``: from the supernet, its gates folded in.
    """

    ratio: float = 0.5
    scope: str = "row"
    relaxation: str = "sigmoid"
    order: int = 1
    search_fraction: float = 0.2
    gate_rate: float = 0.03
    weights: str = "retrain"

    def __post_init__(self) -> None:
        """Rounds to the canonical precision and refuses what is no selection."""
        for name, most in (("ratio", 1.0), ("search_fraction", 0.9), ("gate_rate", 10.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                raise ConfigurationError(f"selection, {name} {value!r}: expected a number in (0, {most:g}]")
            object.__setattr__(self, name, significant(float(value)))
        require_choice(self.scope, "selection, scope", SCOPES)
        require_choice(self.relaxation, "selection, relaxation", RELAXATIONS)
        require_choice(self.weights, "selection, weights", WEIGHTS)
        if isinstance(self.order, bool) or self.order not in (1, 2):
            raise ConfigurationError(f"selection, order {self.order!r}: expected 1 or 2")

    def price(self, steps: int) -> int:
        """Steps of a trial's ``steps`` that are paid for the search: at least one, and one is left to train."""
        return min(max(1, round(self.search_fraction * steps)), max(1, steps - 1))

    def search_steps(self, steps: int) -> int:
        """Steps of the weights in the search that ``price`` pays for: with those of the gates as dear as that; ≥ 1.

        A step of the gates costs one pass forward and back, or four in the second order; in the warm-up there is none.
        """
        passes = 1 + (1 - WARM_UP_FRACTION) * (1 if self.order == 1 else 4)
        return max(1, round(self.price(steps) / passes))

    def to_json(self) -> dict[str, Any]:
        """Every field as a plain value."""
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """The selection with these fields; those that are not given stand at their defaults.

        Raises:
            ConfigurationError: If a field is unknown or out of range.
        """
        known = tuple(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or not set(data) <= set(known):
            got = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else type(data).__name__
            raise ConfigurationError(f"selection: it may have {', '.join(known)}, got {got}")
        return cls(**data)


def kept_count(ratio: float, entries: int) -> int:
    """How many of so many entries a ratio keeps: the next whole number up, and at least 1."""
    return min(entries, max(1, math.ceil(ratio * entries - 1e-9)))


def cut(scores: Scores, ratio: float, scope: str) -> frozenset[Entry]:
    """The entries that are kept; of equal scores the first in order of layers and sites.

    Args:
        scores: Of each (layer, site).
        ratio: Share that is kept, in (0, 1].
        scope: One of ``SCOPES``.
    """
    kept: list[Entry] = []
    for group in _groups(scores, scope):
        kept += sorted(group, key=lambda entry: -scores[entry])[: kept_count(ratio, len(group))]
    return frozenset(kept)


def margins(scores: Scores, ratio: float, scope: str) -> list[float | None]:
    """The last kept score less the first dropped one, of each row or of all; None where nothing is dropped.

    Small margins say that another seed may cut otherwise.
    """
    found: list[float | None] = []
    for group in _groups(scores, scope):
        ordered, count = sorted((scores[entry] for entry in group), reverse=True), kept_count(ratio, len(group))
        found.append(ordered[count - 1] - ordered[count] if count < len(ordered) else None)
    return found


def is_cut(kept: Set[Entry], entries: Set[Entry], ratio: float, scope: str) -> bool:
    """Whether a cut of ``entries`` may keep these: of those that compete with each other, as many as the ratio says."""
    groups = _groups(dict.fromkeys(sorted(entries), 0.0), scope)
    counts = [sum(entry in kept for entry in group) for group in groups]
    return kept <= entries and counts == [kept_count(ratio, len(group)) for group in groups]


def _groups(scores: Scores, scope: str) -> list[list[Entry]]:
    """The entries that compete with each other: of a layer, or all."""
    if scope == "global":
        return [list(scores)]
    return [[entry for entry in scores if entry[0] == layer] for layer in sorted({layer for layer, _ in scores})]
