"""Regularised evolution (arXiv 1802.01548) for several objectives: the youngest trials, a tournament, one mutation.

The tournament is decided by a random Chebyshev weight, so that children come from all along the front.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autopeft.optimizer.history import History
from search_spaces.space import Point

POPULATION = 50
TOURNAMENT = 10


def evolution(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """One step away from the winners of tournaments among the youngest ``POPULATION`` trials."""
    rows, values = history.minimised()
    rows, values = rows[-POPULATION:], values[-POPULATION:]
    while len(rows):
        entrants = generator.integers(len(rows), size=TOURNAMENT)
        weights = generator.dirichlet(np.ones(values.shape[1]))
        winner = entrants[int(np.argmin((weights * values[entrants]).max(axis=1)))]
        near = history.space.neighbour_points(history.points[rows[winner]], generator)
        if not near:
            return
        yield near[int(generator.integers(len(near)))]
