"""Model-based search: a Sobol start, then the configuration with the largest expected gain of hypervolume.

One Gaussian process models each learned objective; what follows from the configuration is exact (``acquisition``).
Budget and exact limits are hard, measured limits count by the probability of keeping them. Lower rungs inform the
surrogate only. Not for spaces of more than a few hundred dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopeft import pareto
from autopeft.optimizer.baselines import Start
from autopeft.optimizer.belief import Belief
from autopeft.optimizer.demands import NOTHING_MORE, Demands
from autopeft.optimizer.evidence import believe
from autopeft.optimizer.history import History
from autopeft.optimizer.proposer import first_new, random_points, taken
from autopeft.optimizer.repeats import front_probabilities, worth_repeating
from autopeft.study import Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.space import Point, SearchSpace


@dataclass(frozen=True, slots=True)
class ClosedFormProposer:
    """Gaussian processes on what is learned, exact costs, closed-form expected hypervolume improvement.

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
        demands: Demands = NOTHING_MORE,
    ) -> list[Configuration]:
        """As ``Proposer.propose``; first the points of the Sobol start that are still missing."""
        history = History.of(space, scale, objectives, observations, pending, demands)
        known, usable = taken(observations, pending), bool(history.observations)
        start = Start(self.initial_count, self.seed)
        batch = start.missing(space, scale.cost_ceiling, known, count, demands, goes_on=not usable)
        if len(batch) == count or not usable:
            return batch
        counts = Counter([*history.points, *history.pending])
        belief = believe(history).believing([space.encode(configuration) for configuration in batch])
        while len(batch) < count:
            best = _next(history, belief, known, counts, generator)
            if best is None:
                break
            batch.append(best)
            known.add(best.digest)
            point = space.encode(best)
            counts[point] += 1
            belief = belief.believing([point])
        return batch


def _next(
    history: History,
    belief: Belief[Point],
    known: set[str],
    counts: Counter[Point],
    generator: np.random.Generator,
) -> Configuration | None:
    """The best new configuration, or an observed one that is worth repeating; None if there is neither."""
    space, demands = history.space, history.demands
    fresh = first_new(space, belief.best_points(generator), known, 1, demands)
    if not fresh:
        fresh = first_new(space, random_points(space, history.scale.cost_ceiling, generator), known, 1, demands)
    if demands.repeats > 1:
        again = worth_repeating(belief, space.encode(fresh[0]) if fresh else None, counts, demands.repeats)
        if again is not None:
            return space.decode(again)
    return fresh[0] if fresh else None


def membership(
    space: SearchSpace,
    scale: pareto.Scale,
    objectives: Sequence[Objective],
    observations: Sequence[Observation],
    generator: np.random.Generator,
    demands: Demands = NOTHING_MORE,
) -> dict[str, float]:
    """Posterior probability of being on the front, by digest, of every configuration that counts.

    Args:
        space: As for ``Proposer.propose``, like the rest.
        scale: Box of the hypervolume.
        objectives: What is traded off.
        observations: Finished points.
        generator: Draws the true values that the observations leave possible.
        demands: Further objectives and limits.
    """
    history = History.of(space, scale, objectives, observations, (), demands)
    if not history.observations:
        return {}
    belief = believe(history)
    if not belief.origins:
        return {}
    probabilities = front_probabilities(belief, generator)
    digests = [space.decode(point).digest for point in belief.origins]
    return dict(zip(digests, probabilities.tolist(), strict=True))
