"""When measuring again is worth more than something new, and how likely each member is on the front.

Value of information: after one more noisy value the posterior mean of x moves by a normal step of known width, so the
expected gain of the hypervolume of the front of posterior means is closed form again, for a repeat and for a new point.
The step of a repeat is sigma^2 / sqrt(sigma^2 + tau^2), with tau the noise. Other objectives count as exact here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autopeft.optimizer.belief import Belief, Reached, at_full

Array = NDArray[np.float64]
P = TypeVar("P", bound=Hashable)

PAIRS = 4_000_000
"""Comparisons of pairs held at a time."""


def worth_repeating(belief: Belief[P], new: P | None, counts: Counter[P], most: int) -> P | None:
    """The observed point whose repeat is worth more than trying ``new``, or None.

    Args:
        belief: With the points that count.
        new: The best point that was never tried, or None if there is no such.
        counts: Measurements so far, pending ones included.
        most: Measurements that one point may have.
    """
    means = _of_means(belief)
    candidates = [index for index in means.members() if counts[belief.origins[index]] < most]
    if not candidates:
        return None
    worth = belief.terrain.worth([belief.origins[index] for index in candidates])
    values = np.array([_repeat_value(belief, means, index) for index in candidates]) * worth
    best = int(np.argmax(values))
    threshold = 0.0 if new is None else _new_value(belief, means, new)
    return belief.origins[candidates[best]] if values[best] > threshold else None


def front_probabilities(belief: Belief[P], generator: np.random.Generator, draws: int = 1024) -> Array:
    """Posterior probability that each of ``belief.origins`` is on the front of the true values, shape [k]."""
    features = belief.terrain.features(belief.origins)
    exact = belief.reached.others[:, : belief.reached.others.shape[1] - len(belief.learned)]
    columns = [np.broadcast_to(column, (draws, len(column))) for column in exact.T]
    columns += [process.draw(features, draws, generator) for process in belief.learned]
    columns.append(-belief.height.draw(at_full(belief.height, features), draws, generator))
    rows = max(1, PAIRS // max(1, len(features)) ** 2)
    wins = np.zeros(len(features))
    for start in range(0, draws, rows):
        part = [column[start : start + rows] for column in columns]
        dominated = np.ones((len(part[0]), len(features), len(features)), dtype=bool)
        better = np.zeros_like(dominated)
        for values in part:
            dominated &= values[:, :, None] <= values[:, None, :]
            better |= values[:, :, None] < values[:, None, :]
        wins += (~(dominated & better).any(axis=1)).sum(axis=0)
    return wins / draws


def _of_means(belief: Belief[P]) -> Reached:
    """What is reached, with the posterior mean of every height."""
    if not belief.origins:
        return belief.reached
    return replace(belief.reached, heights=belief.posterior(belief.origins)[0])


def _step(deviation: Array, noise: float) -> Array:
    """Standard deviation of the posterior mean's move after one more value."""
    step: Array = deviation**2 / np.sqrt(deviation**2 + noise**2)
    return np.maximum(step, 1e-12)


def _repeat_value(belief: Belief[P], means: Reached, index: int) -> float:
    rest = np.arange(len(means.heights)) != index
    cells = replace(means, heights=means.heights[rest], others=means.others[rest]).cells()
    mean, deviation = belief.posterior([belief.origins[index]])
    other, none = means.others[[index]], np.empty((1, 0))
    moved = cells.improvement(mean, _step(deviation, belief.height.noise_deviation), other, none, none)
    stays = cells.improvement(mean, np.array([1e-12]), other, none, none)
    return float(moved[0] - stays[0])


def _new_value(belief: Belief[P], means: Reached, point: P) -> float:
    mean, deviation = belief.posterior([point])
    features = belief.terrain.features([point])
    learned = [process.posterior(features)[0] for process in belief.learned]
    others, none = np.column_stack([belief.terrain.known([point]), *learned]), np.empty((1, 0))
    step = _step(deviation, belief.height.noise_deviation)
    gain = means.cells().improvement(mean, step, others, none, none)
    return float((gain * belief.terrain.worth([point]))[0])
