"""What the search for a good point needs to know of a space: features, exact values, feasibility, neighbours.

Two grounds exist: a ``SearchSpace`` within its budget (``ground``) and any Optuna space (``optuna_space``), so that
the algorithm itself (``belief``) is written once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
P = TypeVar("P", bound=Hashable)


class Terrain(Protocol[P]):
    """A space with everything that is known about its points before one is tried."""

    @property
    def decisive(self) -> int:
        """How many of the features, the last ones, move the first objective whatever the others are."""
        ...

    @property
    def growing(self) -> bool:
        """Whether the first objective may lie farther apart the larger the first feature is."""
        ...

    def features(self, points: Sequence[P]) -> Array:
        """Coordinates for a surrogate, shape [n, d], each about [0, 1]."""
        ...

    def known(self, points: Sequence[P]) -> Array:
        """The exact objectives, shape [n, e], minimised: 0 best and 1 the reference point."""
        ...

    def feasible(self, points: Sequence[P]) -> NDArray[np.bool_]:
        """Whether each keeps every exact limit, shape [n]."""
        ...

    def worth(self, points: Sequence[P]) -> Array:
        """What the gain of each is multiplied by, shape [n]: a prior, or one over its price."""
        ...

    def near(self, point: P, generator: np.random.Generator) -> list[P]:
        """Points one step away."""
        ...

    def scattered(self, count: int, generator: np.random.Generator) -> list[P]:
        """About ``count`` random points."""
        ...
