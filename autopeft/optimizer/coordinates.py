"""A space as named coordinates, for peers that know ordered sizes, choices and one continuous range only.

A coordinate is the index of a value; the last number is the learning rate's place in its range. Conditions between
coordinates, and features derived from the configuration, do not reach these peers.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.dimensions import significant
from search_spaces.space import Point, SearchSpace


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The coordinates of one space.

    Attributes:
        space: Where the points are.
        names: Of every index, in order.
        sizes: Values of every index.
    """

    space: SearchSpace
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, space: SearchSpace) -> Coordinates:
        """Those of ``space``."""
        names = tuple(f"{position}: {ordinal.name}" for position, ordinal in enumerate(space.ordinals))
        return cls(space, names, tuple(len(ordinal.values) for ordinal in space.ordinals))

    @property
    def has_rate(self) -> bool:
        """Whether the learning rate is searched."""
        return self.space.learning_rate.low < self.space.learning_rate.high

    def unit_rate(self, point: Point) -> float:
        """The learning rate of ``point``, in [0, 1]."""
        return self.space.learning_rate.feature(point[1])

    def point(self, indices: tuple[int, ...], unit_rate: float) -> Point:
        """The point with these coordinates."""
        return indices, significant(self.space.learning_rate.at(unit_rate))
