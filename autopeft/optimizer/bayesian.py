"""Model-based search: a Sobol start, then the configuration with the largest expected gain of hypervolume.

One Gaussian process models quality; cost is exact (``acquisition``). The discrete space is searched from neighbours
of the front and random feasible points. Batches and pending configurations by kriging believer. Not for two learned
objectives, not for rungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft import pareto
from autopeft.errors import ConfigurationError
from autopeft.optimizer.acquisition import Staircase
from autopeft.optimizer.baselines import sobol_points
from autopeft.optimizer.proposer import first_new, point_in, random_points, taken
from autopeft.optimizer.surrogate import GaussianProcess
from autopeft.study import Direction, Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.space import Point, SearchSpace

RANDOM_STARTS = 256
CLIMBERS = 5
MAX_STEPS = 30

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClosedFormProposer:
    """Gaussian process on quality, exact cost, closed-form expected hypervolume improvement.

    Attributes:
        initial_count: Points of the Sobol start.
        seed: Scrambles the Sobol sequence.
    """

    initial_count: int
    seed: int
    name: str = "closed-form"

    def propose(
        self,
        space: SearchSpace,
        scale: pareto.Scale,
        objectives: Sequence[Objective],
        observations: Sequence[Observation],
        pending: Sequence[Configuration],
        count: int,
        generator: np.random.Generator,
    ) -> list[Configuration]:
        """As ``Proposer.propose``; first the points of the Sobol start that are still missing."""
        quality = quality_name(objectives)
        known = taken(observations, pending)
        usable = [o for o in observations if point_in(space, o.configuration) is not None]
        batch = self._start(space, scale.cost_ceiling, known, count, goes_on=not usable)
        if len(batch) == count or not usable:
            return batch
        belief = Belief.from_observations(space, scale, quality, usable, [*pending, *batch])
        while len(batch) < count:
            best = first_new(space, belief.best_points(generator), known, 1)
            best = best or first_new(space, random_points(space, scale.cost_ceiling, generator), known, 1)
            if not best:
                break
            batch += best
            known.add(best[0].digest)
            belief = belief.believing([space.encode(best[0])])
        return batch

    def _start(
        self, space: SearchSpace, budget: int, known: set[str], count: int, *, goes_on: bool
    ) -> list[Configuration]:
        """The missing ones of the first ``initial_count`` Sobol configurations; any further ones if it ``goes_on``.

        Their digests are added to ``known``.
        """
        expected = len(known) + count if goes_on else self.initial_count
        points = sobol_points(space, budget, self.seed, expected)
        if goes_on:
            batch = first_new(space, points, known, count)
        else:
            start = first_new(space, points, set(), self.initial_count)
            batch = [configuration for configuration in start if configuration.digest not in known][:count]
        known.update(configuration.digest for configuration in batch)
        return batch


def quality_name(objectives: Sequence[Objective]) -> str:
    """The name of the objective that is learned: the first.

    Raises:
        ConfigurationError: If the objectives are not a quality to maximise, then a cost to minimise.
    """
    directions = [objective.direction for objective in objectives]
    if directions != [Direction.MAXIMISE, Direction.MINIMISE]:
        got = ", ".join(f"{objective.name} ({objective.direction})" for objective in objectives) or "none"
        raise ConfigurationError(
            f"proposer closed-form: got the objectives {got}; it takes a quality to maximise, then a cost to minimise"
        )
    return objectives[0].name


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known and believed: the surrogate, the front's points and every point not to be taken again.

    Attributes:
        space: What may be proposed.
        scale: Box of the hypervolume.
        process: Surrogate of quality.
        achieved: (quality, cost) that a new point has to improve on.
        origins: The point behind each of ``achieved``.
        seen: Every point that is observed or pending.
    """

    space: SearchSpace
    scale: pareto.Scale
    process: GaussianProcess
    achieved: tuple[pareto.Point, ...]
    origins: tuple[Point, ...]
    seen: frozenset[Point]

    @classmethod
    def from_observations(
        cls,
        space: SearchSpace,
        scale: pareto.Scale,
        quality: str,
        observations: Sequence[Observation],
        pending: Sequence[Configuration],
    ) -> Belief:
        """The belief after ``observations`` (at least one, all in the space), with ``pending`` believed."""
        points = [space.encode(observation.configuration) for observation in observations]
        values = np.array([float(observation.values[quality]) for observation in observations])
        process = GaussianProcess.fit(space.point_features(points), values)
        costs = space.point_costs(points)
        counted = [index for index, observation in enumerate(observations) if observation.counts]
        achieved = tuple((float(values[index]), float(costs[index])) for index in counted)
        belief = cls(space, scale, process, achieved, tuple(points[index] for index in counted), frozenset(points))
        waiting = [point_in(space, configuration) for configuration in pending]
        return belief.believing([point for point in waiting if point is not None])

    def believing(self, points: Sequence[Point]) -> Belief:
        """This belief after ``points`` came out as the surrogate expects."""
        if not points:
            return self
        features = self.space.point_features(points)
        mean, _ = self.process.posterior(features)
        believed = zip(mean.tolist(), self.space.point_costs(points).tolist(), strict=True)
        return Belief(
            self.space,
            self.scale,
            self.process.believing(features),
            (*self.achieved, *believed),
            (*self.origins, *points),
            self.seen | set(points),
        )

    def best_points(self, generator: np.random.Generator) -> list[Point]:
        """New feasible points by falling acquisition, found by climbing from the best of many starts."""
        staircase = Staircase(self.achieved, self.scale)
        scores: dict[Point, float] = {}
        climbers = self._score(self._starts(generator), staircase, scores)[:CLIMBERS]
        for _ in range(MAX_STEPS):
            climbers = [
                best for point in climbers if (best := self._step(point, staircase, scores, generator)) != point
            ]
            if not climbers:
                break
        return sorted(scores, key=lambda point: -scores[point])

    def _starts(self, generator: np.random.Generator) -> list[Point]:
        """Neighbours of the front, and random points."""
        front = [self.origins[index] for index in pareto.front(self.achieved)]
        near = [point for member in front for point in self.space.neighbour_points(member, generator)]
        units = generator.random((RANDOM_STARTS, self.space.dimension_count + 1))
        return near + self.space.place_points(units, self.scale.cost_ceiling)

    def _step(
        self, point: Point, staircase: Staircase, scores: dict[Point, float], generator: np.random.Generator
    ) -> Point:
        """The best neighbour of ``point`` if it is better, else ``point``."""
        near = self._score(self.space.neighbour_points(point, generator), staircase, scores)
        return near[0] if near and scores[near[0]] > scores[point] else point

    def _score(self, points: Sequence[Point], staircase: Staircase, scores: dict[Point, float]) -> list[Point]:
        """Those of ``points`` that are feasible and not scored or seen before, best first; their scores are kept."""
        fresh = [point for point in dict.fromkeys(points) if point not in self.seen and point not in scores]
        if not fresh:
            return []
        costs = self.space.point_costs(fresh)
        feasible = np.flatnonzero(costs <= self.scale.cost_ceiling)
        if not feasible.size:
            return []
        fresh = [fresh[index] for index in feasible]
        mean, deviation = self.process.posterior(self.space.point_features(fresh))
        gains = staircase.improvement(mean, deviation, costs[feasible])
        scores.update(zip(fresh, gains.tolist(), strict=True))
        return sorted(fresh, key=lambda point: -scores[point])
