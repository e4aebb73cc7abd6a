"""A ``SearchSpace`` within its budget and limits, as the terrain that the search for the best point walks on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.optimizer.history import History
from autopeft.study import PARAMETERS
from search_spaces.space import Point

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ground:
    """The space of ``history``, with what it knows of the points; a ``Terrain``."""

    history: History

    @property
    def decisive(self) -> int:
        """The learning rate."""
        return 1

    @property
    def growing(self) -> bool:
        """Along the first exact objective, or the trained parameters."""
        return True

    def features(self, points: Sequence[Point]) -> Array:
        """The exact objectives, since quality follows the logarithm of the cost, then the space's features.

        The trained parameters are among them even where they are no objective.
        """
        history = self.history
        cost = [] if PARAMETERS in history.aims.known else [history.cost(points)]
        features: Array = np.column_stack([self.known(points), *cost, history.space.point_features(points)])
        return features

    def known(self, points: Sequence[Point]) -> Array:
        """As ``Terrain.known``."""
        return self.history.known(points)

    def feasible(self, points: Sequence[Point]) -> NDArray[np.bool_]:
        """Whether each is within the budget and the exact limits, shape [n]."""
        history = self.history
        fits: NDArray[np.bool_] = history.space.point_costs(points) <= history.scale.cost_ceiling
        exact = [name for name in history.demands.limits if name in history.demands.known]
        if exact and fits.any():
            rows = np.flatnonzero(fits).tolist()
            values = history.exact([points[row] for row in rows], exact)
            fits[rows] = (values <= np.array([history.demands.limits[name] for name in exact])).all(axis=1)
        return fits

    def worth(self, points: Sequence[Point]) -> Array:
        """The fading prior over the predicted seconds, shape [n]."""
        demands = self.history.demands
        worth = np.ones(len(points))
        if demands.prior is None and demands.predicted_seconds is None:
            return worth
        plans = [self.history.space.decode(point) for point in points]
        if demands.prior is not None:
            weights = np.array([max(demands.prior.weight(plan), demands.prior.floor) for plan in plans])
            worth = weights ** (demands.prior.strength / (1 + len(self.history.observations)))
        if demands.predicted_seconds is not None:
            worth = worth / np.array([demands.predicted_seconds(plan) for plan in plans])
        return worth

    def near(self, point: Point, generator: np.random.Generator) -> list[Point]:
        """As ``Terrain.near``."""
        return self.history.space.neighbour_points(point, generator)

    def scattered(self, count: int, generator: np.random.Generator) -> list[Point]:
        """Random points within the budget."""
        space = self.history.space
        units = generator.random((count, space.dimension_count + 1))
        return space.place_points(units, self.history.scale.cost_ceiling)
