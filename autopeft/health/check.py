"""Leave-one-out check of the surrogate: every plan predicted from all others, in closed form, beside what was observed.

The process is the proposer's own (``autopeft.optimizer.surrogate``) on the cost and the coordinates of the space,
fitted once to everything; refitting its hyperparameters without each plan in turn is not done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from autopeft.errors import ConfigurationError
from autopeft.optimizer.surrogate import GaussianProcess, Samples
from autopeft.pareto import Axis
from search_spaces.configuration import Configuration
from search_spaces.space import SearchSpace

Array = NDArray[np.float64]

FEWEST = 5
"""Plans below which a check says nothing."""

MOST = 250
"""Plans that are checked: the latest ones, since the cost grows with the cube of their number."""

LEVELS = (0.5, 0.8, 0.95)
"""Intervals whose coverage is stated."""


@dataclass(frozen=True)
class Check:
    """Predictions beside observations, a row a plan.

    Attributes:
        numbers: Of the plans' first trials.
        observed: Mean of a plan's repeats, shape [n].
        predicted: From all other plans, shape [n].
        deviations: Standard deviation of the prediction, noise included, shape [n].
        noise: Standard deviation of one value, as the surrogate has it.
    """

    numbers: tuple[int, ...]
    observed: Array
    predicted: Array
    deviations: Array
    noise: float

    @property
    def error(self) -> float:
        """Root mean square of the predictions' errors."""
        return float(np.sqrt(np.mean((self.observed - self.predicted) ** 2)))

    @property
    def explained(self) -> float:
        """Share of the variance that the predictions explain; below 0 if the mean of all would do better."""
        spread = float(np.var(self.observed))
        return 1 - self.error**2 / spread if spread > 0 else 0.0

    def coverage(self, level: float) -> float:
        """Share of the observations within the central interval of that level of their predictions."""
        within = np.abs(self.observed - self.predicted) <= ndtri(0.5 + level / 2) * self.deviations
        return float(np.mean(within))

    @property
    def calibration(self) -> list[tuple[float, float]]:
        """(expected, observed) share of observations below each decile of their predictions."""
        places = ndtr((self.observed - self.predicted) / self.deviations)
        return [(level, float(np.mean(places <= level))) for level in np.round(np.arange(0.1, 1.0, 0.1), 1).tolist()]

    @property
    def verdict(self) -> str:
        """What this means, in a sentence or two."""
        if self.explained < 0.1:
            told = "The surrogate does not tell good plans from bad ones better than their mean does"
        else:
            told = f"The surrogate explains {self.explained:.0%} of the variance of plans that it has not seen"
        covered = self.coverage(0.95)
        if covered < 0.85:
            sure = f"; it is too sure of itself: only {covered:.0%} lie within its 95 % intervals."
        elif covered > 0.995 and len(self.numbers) >= 40:
            sure = "; its intervals are wider than they need to be."
        else:
            sure = f"; {covered:.0%} lie within its 95 % intervals, as they should."
        return told + sure


def leave_one_out(
    space: SearchSpace, cost: Axis, plans: Mapping[int, Configuration], values: Mapping[int, Sequence[float]]
) -> Check | None:
    """The check on ``plans``; None if fewer than ``FEWEST`` of them are in the space.

    Args:
        space: Whose coordinates the surrogate sees.
        cost: The axis of the trained parameters, which it sees too.
        plans: By number of their first trial; those outside the space (of the control) are left out.
        values: What their repeats measured, by the same numbers.
    """
    placed = {
        number: features for number, plan in plans.items() if (features := _features(space, cost, plan)) is not None
    }
    numbers = tuple(sorted(placed)[-MOST:])
    if len(numbers) < FEWEST:
        return None
    features, repeats = np.array([placed[number] for number in numbers]), [values[number] for number in numbers]
    # the learning rate, which comes last, is decisive; along the cost, which comes first, values move apart
    process = GaussianProcess.fit(Samples.grouped(features, repeats, decisive=1, growing=True))
    predicted, deviations = process.leave_one_out()
    return Check(numbers, process.samples.values, predicted, deviations, process.noise_deviation)


def _features(space: SearchSpace, cost: Axis, plan: Configuration) -> Array | None:
    try:
        features = space.features(plan)
    except ConfigurationError:
        return None
    return np.concatenate([cost.minimised([space.cost(plan)]), features])
