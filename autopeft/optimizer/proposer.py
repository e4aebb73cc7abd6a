"""What a proposer is: observations and pending configurations in, new configurations out; no database, no clock.

Also the two things all proposers share: what is already taken, and the guarantee that a batch is short only when the
space is exhausted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from autopeft.errors import ConfigurationError
from autopeft.optimizer.demands import NOTHING_MORE, Demands
from autopeft.pareto import Scale
from autopeft.study import Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.space import Point, SearchSpace

BLOCK = 64
"""Random points drawn at a time."""


class Proposer(Protocol):
    """An algorithm that suggests; equal arguments and an equal generator state give equal configurations."""

    @property
    def name(self) -> str:
        """Its key in ``PROPOSERS``."""
        ...

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
        """At most ``count`` configurations of ``space``: new ones, each within the budget.

        Args:
            space: What may be proposed.
            scale: Box of the hypervolume; its ``cost_ceiling`` is the budget.
            objectives: Quality (maximised), trained parameters (minimised), and any further ones.
            observations: Finished points, in the order of their numbers; those outside the space are ignored.
            pending: What is not to be proposed again although nothing is known of it: queued, running, failed.
            count: Configurations wanted; fewer come back only when the space has no more.
            generator: The only source of randomness.
            demands: Further objectives, limits and hints; repeats are proposed only if it allows them.

        Raises:
            BudgetError: If no configuration of the space fits the budget.
            ConfigurationError: If the objectives are not what the proposer can trade off.
        """
        ...


def point_in(space: SearchSpace, configuration: Configuration) -> Point | None:
    """The coordinates of ``configuration``, or None if it is not in ``space`` (a control of another shape, say)."""
    try:
        return space.encode(configuration)
    except ConfigurationError:
        return None


def taken(observations: Sequence[Observation], pending: Sequence[Configuration]) -> set[str]:
    """Digests that may not be proposed again."""
    finished = [observation.configuration for observation in observations]
    return {configuration.digest for configuration in [*finished, *pending]}


def first_new(
    space: SearchSpace, points: Iterable[Point], known: set[str], count: int, demands: Demands = NOTHING_MORE
) -> list[Configuration]:
    """The first ``count`` configurations at ``points`` that keep the exact limits and are not in ``known``, each once.

    ``known`` holds digests.
    """
    fresh: dict[str, Configuration] = {}
    for point in points:
        if len(fresh) >= count:
            break
        configuration = space.decode(point)
        if configuration.digest not in known and demands.keeps_exact_limits(configuration):
            fresh.setdefault(configuration.digest, configuration)
    return list(fresh.values())


def random_points(space: SearchSpace, budget: int, generator: np.random.Generator) -> Iterator[Point]:
    """Random points within ``budget``, and after many of them every point there is, so that none is missed."""
    for _ in range(4):
        yield from space.place_points(generator.random((BLOCK, space.dimension_count + 1)), budget)
    yield from space.points_within(budget)
