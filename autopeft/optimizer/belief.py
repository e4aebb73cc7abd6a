"""What is known and believed of a terrain, and the search for the point with the largest expected gain.

The terrain is searched by climbing from neighbours of the front and random points. Pending points and batches by
kriging believer: what is waited for counts as come out as expected.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from autopeft import pareto
from autopeft.optimizer.acquisition import Cells
from autopeft.optimizer.surrogate import GaussianProcess
from autopeft.optimizer.terrain import Terrain

RANDOM_STARTS = 256
CLIMBERS = 5
MAX_STEPS = 30

Array = NDArray[np.float64]
P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Reached:
    """Points that a new one has to improve on.

    Attributes:
        heights: Of the first objective: 1 at its best, 0 at the reference, shape [k].
        others: The other objectives, minimised, exact ones first, shape [k, m - 1].
        ceiling: Best possible height.
        floor: Best possible value of the others.
    """

    heights: Array
    others: Array
    ceiling: float = 1.0
    floor: float = 0.0

    def cells(self) -> Cells:
        """The steps to improve on."""
        return Cells(self.heights, self.others, self.ceiling, self.floor)

    def members(self) -> list[int]:
        """Indices of those that no other dominates; of equal ones all."""
        points = np.column_stack([self.heights, self.others])
        best = points[pareto.front(points.tolist())]
        equal: list[int] = np.flatnonzero((points[:, None, :] == best).all(axis=2).any(axis=1)).tolist()
        return equal


@dataclass(frozen=True, slots=True)
class Belief(Generic[P]):
    """The surrogates, the points to improve on, and those not to be taken again.

    Attributes:
        terrain: Where the points are.
        height: Surrogate of the first objective, as a height.
        learned: Surrogates of the other learned objectives, minimised.
        limits: Surrogates of measured limits, each with the most allowed.
        reached: What a new point has to improve on.
        origins: The point behind each row of ``reached``.
        seen: Every point that is observed or pending.
    """

    terrain: Terrain[P]
    height: GaussianProcess
    learned: tuple[GaussianProcess, ...]
    limits: tuple[tuple[GaussianProcess, float], ...]
    reached: Reached
    origins: tuple[P, ...]
    seen: frozenset[P]

    def posterior(self, points: Sequence[P]) -> tuple[Array, Array]:
        """Mean and standard deviation of the height at ``points``, each of shape [n]."""
        return self.height.posterior(at_full(self.height, self.terrain.features(points)))

    def believing(self, points: Sequence[P]) -> Belief[P]:
        """This belief after ``points`` came out as the surrogates expect."""
        if not points:
            return self
        features = self.terrain.features(points)
        mean, _ = self.posterior(points)
        others = np.column_stack(
            [self.terrain.known(points), *(process.posterior(features)[0] for process in self.learned)]
        )
        reached = replace(
            self.reached,
            heights=np.concatenate([self.reached.heights, mean]),
            others=np.vstack([self.reached.others, others]),
        )
        return Belief(
            self.terrain,
            self.height.believing(at_full(self.height, features)),
            tuple(process.believing(features) for process in self.learned),
            self.limits,
            reached,
            (*self.origins, *points),
            self.seen | set(points),
        )

    def gains(self, points: Sequence[P], cells: Cells) -> Array:
        """Expected gain of hypervolume at ``points``, shape [n], limits and worth counted in."""
        features = self.terrain.features(points)
        mean, deviation = self.height.posterior(at_full(self.height, features))
        others = [process.posterior(features) for process in self.learned]
        learned = np.column_stack([np.empty((len(points), 0)), *(mean for mean, _ in others)])
        doubt = np.column_stack([np.empty((len(points), 0)), *(deviation for _, deviation in others)])
        gains = cells.improvement(mean, deviation, self.terrain.known(points), learned, doubt)
        for process, limit in self.limits:
            mean, deviation = process.posterior(features)
            gains = gains * ndtr((limit - mean) / deviation)
        return gains * self.terrain.worth(points)

    def best_points(self, generator: np.random.Generator) -> list[P]:
        """New feasible points by falling gain, found by climbing from the best of many starts."""
        cells = self.reached.cells()
        scores: dict[P, float] = {}
        climbers = self._score(self._starts(generator), cells, scores)[:CLIMBERS]
        for _ in range(MAX_STEPS):
            climbers = [best for point in climbers if (best := self._step(point, cells, scores, generator)) != point]
            climbers = list(dict.fromkeys(climbers))
            if not climbers:
                break
        return sorted(scores, key=lambda point: -scores[point])

    def _starts(self, generator: np.random.Generator) -> list[P]:
        """Neighbours of the front, and random points."""
        front = [self.origins[index] for index in self.reached.members()]
        near = [point for member in front for point in self.terrain.near(member, generator)]
        return near + self.terrain.scattered(RANDOM_STARTS, generator)

    def _step(self, point: P, cells: Cells, scores: dict[P, float], generator: np.random.Generator) -> P:
        """The best neighbour of ``point`` if it is better, else ``point``."""
        near = self._score(self.terrain.near(point, generator), cells, scores)
        return near[0] if near and scores[near[0]] > scores[point] else point

    def _score(self, points: Sequence[P], cells: Cells, scores: dict[P, float]) -> list[P]:
        """Those of ``points`` that are feasible and not scored or seen before, best first; their scores are kept."""
        fresh = [point for point in dict.fromkeys(points) if point not in self.seen and point not in scores]
        if not fresh:
            return []
        fresh = [fresh[index] for index in np.flatnonzero(self.terrain.feasible(fresh))]
        if not fresh:
            return []
        scores.update(zip(fresh, self.gains(fresh, cells).tolist(), strict=True))
        return sorted(fresh, key=lambda point: -scores[point])


def at_full(process: GaussianProcess, features: Array) -> Array:
    """``features`` with the share of the training set to full, if ``process`` knows of shorter trainings."""
    if process.samples.features.shape[1] == features.shape[1]:
        return features
    return np.column_stack([features, np.ones(len(features))])
