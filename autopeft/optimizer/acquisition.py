"""Expected hypervolume improvement in closed form: quality is Gaussian, cost is exact, so no sampling.

With the front's staircase cut into steps j of constant level a_j over the scaled cost,
``EHVI(x) = sum_j width_j(cost(x)) E[(min(quality, 1) - a_j)+]``. It is the expected gain of
``pareto.hypervolume`` to the letter: same box, same clipping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

from autopeft import pareto

Array = NDArray[np.float64]


class Staircase:
    """The best quality so far at each cost, over the box of ``scale``.

    Args:
        points: (quality, cost), as measured; those over the budget are ignored.
        scale: The box.
    """

    def __init__(self, points: Sequence[pareto.Point], scale: pareto.Scale) -> None:
        self._scale = scale
        inside = [point for point in points if point[1] <= scale.cost_ceiling]
        members = [scale.minimised(inside[index]) for index in pareto.front(inside)]
        self.edges = np.array([0.0, *(cost for _, cost in members), 1.0])
        self.levels = np.array([0.0, *(1 - loss for loss, _ in members)])

    def improvement(self, mean: Array, deviation: Array, costs: NDArray[np.int64]) -> Array:
        """Expected gain of hypervolume, shape [n].

        Args:
            mean: Of the quality as measured, shape [n].
            deviation: Its standard deviation > 0, shape [n].
            costs: Trained parameters, each at most the budget, shape [n].
        """
        floor = self._scale.quality_floor
        mean, deviation = (mean - floor) / (1 - floor), deviation / (1 - floor)
        scaled = np.array([self._scale.minimised((floor, cost))[1] for cost in costs])
        widths = np.maximum(0.0, self.edges[1:] - np.maximum(self.edges[:-1], scaled[:, None]))
        over = expected_improvement(mean, deviation, np.array([1.0]))
        gains = expected_improvement(mean, deviation, self.levels) - over
        total: Array = (widths * np.maximum(gains, 0.0)).sum(axis=1)
        return total


def expected_improvement(mean: Array, deviation: Array, levels: Array) -> Array:
    """E[(Y - level)+] for Y normal, shape [n, steps], for ``mean`` and ``deviation`` of shape [n].

    Far below a level it falls as the exact tail does, without the cancellation of the textbook form.
    """
    z = (mean[:, None] - levels) / deviation[:, None]
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    mills = math.sqrt(math.pi / 2) * erfcx(np.maximum(-z, -1.0) / math.sqrt(2))
    gain = np.where(z < -1, density * (1 + z * mills), z * ndtr(z) + density)
    improvement: Array = deviation[:, None] * np.maximum(gain, 0.0)
    return improvement
