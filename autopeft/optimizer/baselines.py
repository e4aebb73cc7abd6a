"""Proposers that do not learn: random points and a scrambled Sobol sequence, both placed within the budget.

They take part as peers and as the start of model-based search; neither looks at a measured value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from autopeft.optimizer.demands import NOTHING_MORE, Demands, Prior
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
        demands: Demands = NOTHING_MORE,
    ) -> list[Configuration]:
        """As ``Proposer.propose``."""
        points = random_points(space, scale.cost_ceiling, generator)
        return first_new(space, points, taken(observations, pending), count, demands)


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
        demands: Demands = NOTHING_MORE,
    ) -> list[Configuration]:
        """As ``Proposer.propose``; asked again, it goes on where the known points end."""
        points = sobol_points(space, scale.cost_ceiling, self.seed, len(observations) + len(pending) + count)
        return first_new(space, points, taken(observations, pending), count, demands)


def sobol_points(space: SearchSpace, budget: int, seed: int, expected: int) -> Iterator[Point]:
    """A scrambled Sobol sequence placed within ``budget``; at its end every point there is, so that none is missed.

    The sequence does not depend on ``expected``, which only says how far it goes at least.
    """
    # powers of two, and a margin for small spaces, where many points of the cube are one configuration
    exponent = max(6, int(4 * expected - 1).bit_length())
    cube = qmc.Sobol(space.dimension_count + 1, scramble=True, rng=np.random.default_rng(seed))
    yield from space.place_points(cube.random_base2(exponent), budget)
    yield from space.points_within(budget)


def likelier_first(space: SearchSpace, points: Iterator[Point], prior: Prior, seed: int) -> Iterator[Point]:
    """Each point kept with the probability that is its weight, and at the end those that were not: none is lost.

    Of points spread within the budget, these are draws from the prior's bits under the condition of the budget.
    """
    generator = np.random.default_rng([seed % 2**63, 1])
    left: list[Point] = []
    for point in points:
        if generator.random() < max(prior.weight(space.decode(point)), prior.floor):
            yield point
        else:
            left.append(point)
    yield from left


@dataclass(frozen=True, slots=True)
class Start:
    """The points that every learning proposer begins with: the space's anchors, then a Sobol sequence.

    Where there is a prior, the sequence is thinned by it.

    Attributes:
        count: How many.
        seed: Scrambles the sequence.
    """

    count: int
    seed: int

    def missing(
        self, space: SearchSpace, budget: int, known: set[str], count: int, demands: Demands, *, goes_on: bool
    ) -> list[Configuration]:
        """Up to ``count`` of the start that are not in ``known``; any further points of the sequence if it ``goes_on``.

        Their digests are added to ``known``.
        """
        expected = len(known) + count if goes_on else self.count
        sequence = sobol_points(space, budget, self.seed, expected)
        if demands.prior is not None:
            sequence = likelier_first(space, sequence, demands.prior, self.seed)
        points = itertools.chain(space.anchors(budget), sequence)
        if goes_on:
            batch = first_new(space, points, known, count, demands)
        else:
            start = first_new(space, points, set(), self.count, demands)
            batch = [configuration for configuration in start if configuration.digest not in known][:count]
        known.update(configuration.digest for configuration in batch)
        return batch
