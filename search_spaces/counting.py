"""How many points of a product of ordinals cost at most so much, and a draw from just those.

The cost is a sum of one whole number per ordinal, so both follow from one dynamic programme over the remaining
budget in units of the costs' common divisor. Nothing here knows what the sizes mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNITS_LIMIT = 200_000
"""Most budget units a table may have; a finer cost is rounded up to coarser units (then draws stay within the
budget, and the share becomes a lower bound)."""


class BudgetTable:
    """Shares of a product space by remaining budget.

    ``shares[i, b]`` is the share of the points of ordinals i, i+1, … whose summed cost is at most b units.

    Args:
        costs: For each ordinal the cost of each of its values, whole numbers ≥ 0, rising.
        budget: Largest summed cost.
    """

    def __init__(self, costs: Sequence[Sequence[int]], budget: int) -> None:
        self._divisor = max(1, math.gcd(*(cost for row in costs for cost in row)))
        highest = sum(max(row) for row in costs)
        budget = max(0, min(budget, highest))
        self._divisor *= max(1, math.ceil(budget / self._divisor / UNITS_LIMIT))
        self._units = [[-(-cost // self._divisor) for cost in row] for row in costs]
        self._budget = budget // self._divisor
        self._shares = np.ones((len(costs) + 1, self._budget + 1))
        for index in range(len(costs) - 1, -1, -1):
            below = self._shares[index + 1]
            total = np.zeros(self._budget + 1)
            for cost in self._units[index]:
                if cost <= self._budget:
                    total[cost:] += below[: self._budget + 1 - cost]
            self._shares[index] = total / len(self._units[index])

    @property
    def share(self) -> float:
        """Share of all points that the budget allows, in [0, 1]."""
        return float(self._shares[0, self._budget])

    def draw(self, units: NDArray[np.float64], budgets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The value index of each ordinal for points of the unit cube: uniform points give uniform feasible draws.

        Each coordinate is the quantile of its ordinal given those before it (Rosenblatt's transform), so a
        low-discrepancy sequence stays one. Where not even the lowest values fit (or seem not to, by the rounding
        that ``UNITS_LIMIT`` brings) they are what is drawn.

        Args:
            units: Shape [n, ordinals], each in [0, 1).
            budgets: Shape [n], the largest summed cost of each draw; more than the table's counts as that.

        Returns:
            Shape [n, ordinals].
        """
        left = np.clip(np.asarray(budgets) // self._divisor, 0, self._budget)
        chosen = np.zeros(units.shape, dtype=np.int64)
        for index, row in enumerate(self._units):
            costs = np.array(row)
            after = left[:, None] - costs
            weights = np.where(after >= 0, self._shares[index + 1][np.maximum(after, 0)], 0.0)
            cumulative = np.cumsum(weights, axis=1)
            picks = (cumulative <= units[:, index, None] * cumulative[:, -1:]).sum(axis=1)
            possible = weights > 0
            last = np.where(possible.any(axis=1), costs.size - 1 - np.argmax(possible[:, ::-1], axis=1), 0)
            chosen[:, index] = np.minimum(picks, last)
            left = left - costs[chosen[:, index]]
        return chosen
