"""Pareto fronts and the one hypervolume of the service, in [0, 1]. Pure functions on numbers.

Points are (quality, cost): quality is maximised, cost minimised; ``minimised`` is the one place that flips a sign.
Quality is scaled from the majority-class (or chance) score to 1, cost on a log scale from the smallest
configuration that the space holds to the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.errors import ConfigurationError

Point = tuple[float, float]
"""(quality, cost), as measured."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The box that the hypervolume is measured in.

    Attributes:
        quality_floor: Score of the majority class or of chance: quality 0.
        cost_floor: Trained parameters of the smallest configuration of the space: cost 0.
        cost_ceiling: The budget: cost 1, and the reference point.
    """

    quality_floor: float
    cost_floor: int
    cost_ceiling: int

    def __post_init__(self) -> None:
        """Refuses a box without height or without a logarithm."""
        if not self.quality_floor < 1:
            raise ConfigurationError(
                f"quality floor {self.quality_floor}: expected below 1; a task on which the majority class alone "
                "scores 1 leaves nothing to search"
            )
        if self.cost_floor < 1:
            raise ConfigurationError(f"smallest cost {self.cost_floor}: expected at least one trained parameter")

    def minimised(self, point: Point) -> Point:
        """The point in [0, 1]², both coordinates better when smaller; outside values are clipped."""
        quality, cost = point
        if self.cost_ceiling > self.cost_floor:
            span = math.log(self.cost_ceiling / self.cost_floor)
            scaled = math.log(max(cost, 1) / self.cost_floor) / span
        else:
            scaled = 0.0 if cost <= self.cost_ceiling else 1.0
        return 1 - _clip((quality - self.quality_floor) / (1 - self.quality_floor)), _clip(scaled)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, cheapest first; of equal points the first.

    A point dominates another if it is at least as good in both and better in one.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][1], -points[index][0], index))
    members: list[int] = []
    best = -math.inf
    for index in order:
        if points[index][0] > best:
            best = points[index][0]
            members.append(index)
    return members


def hypervolume(points: Sequence[Point], scale: Scale) -> float:
    """Share of the box that ``points`` dominate, in [0, 1]; points over the budget add nothing.

    With a space whose smallest configuration costs the whole budget, the share is that of the quality axis.
    """
    inside = [point for point in points if point[1] <= scale.cost_ceiling]
    volume, ceiling = 0.0, 1.0
    for index in reversed(front(inside)):
        loss, cost = scale.minimised(inside[index])
        volume += 0.0 if loss >= 1 else (ceiling - cost) * (1 - loss)
        ceiling = cost
    if scale.cost_ceiling <= scale.cost_floor and inside:
        return 1 - min(scale.minimised(point)[0] for point in inside)
    return volume
