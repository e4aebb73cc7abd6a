"""Proposers that do not learn: random points and a scrambled Sobol sequence, both placed within the budget.

They take part as peers and as the start of model-based search; neither looks at a measured value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from autopeft.optimizer.proposer import first_new, random_points, taken
from autopeft.pareto import Scale
from autopeft.study import Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.space import Point, SearchSpace


@dataclass(frozen=True, slots=True)
class RandomProposer:
    """Random feasible configurations, their cost log-uniform up to the budget."""

    name: str = "random"

    def propose(
        self,
        space: SearchSpace,
        scale: Scale,
        objectives: Sequence[Objective],
        observations: Sequence[Observation],
        pending: Sequence[Configuration],
        count: int,
        generator: np.random.Generator,
    ) -> list[Configuration]:
        """As ``Proposer.propose``."""
        points = random_points(space, scale.cost_ceiling, generator)
        return first_new(space, points, taken(observations, pending), count)


@dataclass(frozen=True, slots=True)
class SobolProposer:
    """The next points of a Sobol sequence that depends on the seed alone, not on the generator.

    Attributes:
        seed: Scrambles the sequence.
    """

    seed: int
    name: str = "sobol"

    def propose(
        self,
        space: SearchSpace,
        scale: Scale,
        objectives: Sequence[Objective],
        observations: Sequence[Observation],
        pending: Sequence[Configuration],
        count: int,
        generator: np.random.Generator,
    ) -> list[Configuration]:
        """As ``Proposer.propose``; asked again, it goes on where the known points end."""
        points = sobol_points(space, scale.cost_ceiling, self.seed, len(observations) + len(pending) + count)
        return first_new(space, points, taken(observations, pending), count)


def sobol_points(space: SearchSpace, budget: int, seed: int, expected: int) -> Iterator[Point]:
    """A scrambled Sobol sequence placed within ``budget``; at its end every point there is, so that none is missed.

    The sequence does not depend on ``expected``, which only says how far it goes at least.
    """
    # powers of two, and a margin for small spaces, where many points of the cube are one configuration
    exponent = max(6, int(4 * expected - 1).bit_length())
    cube = qmc.Sobol(space.dimension_count + 1, scramble=True, rng=np.random.default_rng(seed))
    yield from space.place_points(cube.random_base2(exponent), budget)
    yield from space.points_within(budget)
