"""Pareto fronts and the one hypervolume of the service, in [0, 1], for any number of objectives. Pure functions.

A point holds the quality, which is maximised, then costs, which are minimised; the axes turn each into a number that
is 0 at its best and 1 at the reference point, and ``Axis.place`` is the one place that flips a sign. With two
objectives quality is scaled from the majority-class (or chance) score to 1, cost on a log scale from the smallest
configuration that the space holds to the budget; the boxes of further objectives are made in ``autopeft.scales``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.errors import ConfigurationError

Array = NDArray[np.float64]

Point = tuple[float, ...]
"""(quality, cost, …), as measured."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How an objective as measured becomes a number that is 0 at its best and 1 at the reference point.

    Attributes:
        best: Value at 0.
        worst: Value at 1; above or below ``best``, which says the direction.
        logarithmic: Whether the axis is a log scale (both ends > 0).
    """

    best: float
    worst: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """``value`` on the axis, clipped to [0, 1]; an axis without length has everything up to ``worst`` at 0."""
        if self.best == self.worst:
            return 0.0 if value <= self.worst else 1.0
        if self.logarithmic:
            return _clip(math.log(max(value, 1e-300) / self.best) / math.log(self.worst / self.best))
        return 1 - _clip((value - self.worst) / (self.best - self.worst))

    def minimised(self, values: Sequence[float] | Array) -> Array:
        """``values`` on the axis, unclipped; an axis without length has everything up to ``worst`` at 0."""
        array = np.asarray(values, dtype=np.float64)
        best, worst = self.best, self.worst
        if best == worst:
            return np.where(array <= worst, 0.0, 1.0)
        if self.logarithmic:
            array = np.log(np.maximum(array, 1e-300))
            best, worst = float(np.log(best)), float(np.log(worst))
        scaled: Array = (array - best) / (worst - best)
        return scaled


@dataclass(frozen=True, slots=True)
class Box:
    """The box that a hypervolume is measured in: an axis for each objective, that of the quality first."""

    axes: tuple[Axis, ...]

    def minimised(self, point: Point) -> Point:
        """The point in the unit box, every coordinate better when smaller; outside values are clipped."""
        return tuple(axis.place(value) for axis, value in zip(self.axes, point, strict=True))


@dataclass(frozen=True, slots=True)
class Scale:
    """The box of quality against trained parameters.

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

    @property
    def quality(self) -> Axis:
        """The axis of the quality."""
        return Axis(1.0, self.quality_floor)

    @property
    def cost(self) -> Axis:
        """The axis of the trained parameters; without length where the space holds nothing below the budget."""
        return Axis(min(self.cost_floor, self.cost_ceiling), self.cost_ceiling, logarithmic=True)

    @property
    def box(self) -> Box:
        """The box of these two objectives."""
        return Box((self.quality, self.cost))

    def minimised(self, point: Point) -> Point:
        """As ``Box.minimised``."""
        return self.box.minimised(point)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, lowest quality first; of equal points the first.

    With two objectives that is cheapest first. A point dominates another if it is at least as good in every objective
    and better in one.
    """
    if not points:
        return []
    # quality last and negated: what dominates a point stands before it, so that members alone need to be asked
    values = np.array(points, dtype=np.float64)
    values = np.column_stack([values[:, 1:], -values[:, 0]])
    order = np.lexsort(values.T[::-1])
    if values.shape[1] == 2:  # cheapest first: a member is better than all before it
        losses = values[order, 1]
        best_before = np.minimum.accumulate(np.concatenate([[np.inf], losses[:-1]]))
        order = order[losses < best_before]
    members: list[int] = []
    kept = np.empty_like(values)
    for index in order.tolist():
        if not (kept[: len(members)] <= values[index]).all(axis=1).any():
            kept[len(members)] = values[index]
            members.append(index)
    return sorted(members, key=lambda index: (points[index][0], points[index][1:]))


def hypervolume(points: Sequence[Point], scale: Scale | Box) -> float:
    """Share of the box that ``points`` dominate, in [0, 1]; what lies at a reference point or beyond adds nothing.

    An axis without length does not count: with a space whose smallest configuration costs the whole budget, the share
    is that of the quality axis.
    """
    box = scale.box if isinstance(scale, Scale) else scale
    members = [box.minimised(points[index]) for index in front(points)]
    inside = [place for place in members if max(place) < 1]
    return _staircase(inside) if len(box.axes) == 2 else _volume(inside)


def _staircase(members: Sequence[Point]) -> float:
    """The area that ``members``, cheapest first, dominate."""
    area, ceiling = 0.0, 1.0
    for loss, cost in reversed(members):
        area += (ceiling - cost) * (1 - loss)
        ceiling = cost
    return area


def _volume(members: Sequence[Point]) -> float:
    """The volume that ``members`` dominate: a sweep along the last cost over a grid of the costs between.

    The grid holds the greatest height so far over each of its cells; k members make k ** (m - 2) cells.
    """
    if not members:
        return 0.0
    *between, last = np.array(members).T[1:] if len(members[0]) > 1 else [np.zeros(len(members))]
    edges = [np.unique([*column, 1.0]) for column in between]
    heights = np.zeros([len(edge) - 1 for edge in edges])
    places = np.array([np.searchsorted(edge, column) for edge, column in zip(edges, between, strict=True)])
    order = np.argsort(last, kind="stable")
    volume = 0.0
    for index, until in zip(order, [*last[order][1:], 1.0], strict=True):
        above = heights[tuple(slice(place, None) for place in places[:, index])] if len(places) else heights
        np.maximum(above, 1 - members[index][0], out=above)
        area = heights
        for edge in reversed(edges):
            area = area @ np.diff(edge)
        volume += float(area) * (until - last[index])
    return volume
