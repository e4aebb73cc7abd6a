"""The frame of every learning peer: the same Sobol start as ours, then whatever the peer advises, if it is feasible.

An over-budget or repeated proposal costs a peer no trial: it is asked again, up to ``PATIENCE`` times in a row, and
then a random feasible configuration stands in. The peer itself is one function of the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.optimizer.baselines import Start
from autopeft.optimizer.demands import NOTHING_MORE, Demands
from autopeft.optimizer.history import History
from autopeft.optimizer.proposer import random_points, taken
from autopeft.pareto import Scale
from autopeft.study import Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.errors import ConfigurationError
from search_spaces.space import Point, SearchSpace

PATIENCE = 64
"""Useless points in a row after which a peer is asked no more."""

Advice = Callable[[History, np.random.Generator], Iterator[Point]]
"""Points to try, best first, without end or until the peer has no more; within the budget or not."""


@dataclass(frozen=True, slots=True)
class PeerProposer:
    """A Sobol start, then the advice of a peer.

    Attributes:
        name: Key in ``PROPOSERS``.
        advice: The peer.
        initial_count: Points of the Sobol start.
        seed: Scrambles the Sobol sequence.
    """

    name: str
    advice: Advice
    initial_count: int
    seed: int

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
        """As ``Proposer.propose``; measured limits and hints are not heard."""
        history = History.of(space, scale, objectives, observations, pending, demands)
        known, usable = taken(observations, pending), bool(history.observations)
        start = Start(self.initial_count, self.seed)
        batch = start.missing(space, scale.cost_ceiling, known, count, demands, goes_on=not usable)
        if len(batch) == count or not usable:
            return batch
        if len(history.minimised()[0]):  # a peer learns from what has every objective; nothing else teaches it
            batch += _feasible(history, self.advice(history, generator), known, count - len(batch), PATIENCE)
        rest = random_points(space, scale.cost_ceiling, generator)
        return batch + _feasible(history, rest, known, count - len(batch))


def _feasible(
    history: History, points: Iterator[Point], known: set[str], count: int, patience: float = math.inf
) -> list[Configuration]:
    """The first ``count`` new and feasible ones of ``points``; their digests are added to ``known``.

    Ends early after ``patience`` points in a row that were of no use.
    """
    batch: list[Configuration] = []
    idle = 0
    while len(batch) < count and idle < patience and (point := next(points, None)) is not None:
        idle += 1
        if history.space.point_costs([point])[0] > history.scale.cost_ceiling:
            continue
        try:
            configuration = history.space.decode(point)
        except ConfigurationError:
            # the empty plan is at a point, but in no space
            continue
        if configuration.digest not in known and history.demands.keeps_exact_limits(configuration):
            batch.append(configuration)
            known.add(configuration.digest)
            idle = 0
    return batch
