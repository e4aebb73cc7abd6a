"""Where the members of a front stand at the edge of the space: a reason to widen it. Pure.

The lower end of a size, where nothing is inserted, is no edge: less than nothing cannot be tried.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autopeft.errors import ConfigurationError
from search_spaces.configuration import Configuration
from search_spaces.space import SearchSpace

NEAR = 0.02
"""Share of the log range of the learning rate that counts as its end."""

_LAYERS = re.compile(r"^layers? [\d,\s–-]+")


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of one dimension, or of the same dimension of all layers.

    Attributes:
        what: The value at the edge, for people: ``query+value rank 32``.
        members: Members that have it somewhere.
        total: Members that are in the space.
        is_upper: Which end.
    """

    what: str
    members: int
    total: int
    is_upper: bool = True

    @property
    def share(self) -> float:
        """Share of the members."""
        return self.members / self.total if self.total else 0.0

    @property
    def is_reached(self) -> bool:
        """Whether so many members stand there that better ones may lie beyond."""
        return self.members >= 2 and self.share >= 0.5

    @property
    def sentence(self) -> str:
        """What to do about it."""
        end = "edge" if self.is_upper else "lower edge"
        advice = "widen it" if self.is_reached else "the space is wide enough there"
        return f"{self.what} is at the {end} of the space in {self.members} of {self.total} front members: {advice}."


def edges(space: SearchSpace, members: Sequence[Configuration]) -> list[Edge]:
    """Every edge that any member touches, the most touched first; members outside the space are not counted."""
    points = [point for member in members if (point := _point(space, member)) is not None]
    touched: dict[str, set[int]] = {}
    for index, (indices, _) in enumerate(points):
        for position, ordinal in zip(indices, space.ordinals, strict=True):
            if len(ordinal.values) > 2 and position == len(ordinal.values) - 1:
                touched.setdefault(f"{_LAYERS.sub('', ordinal.name)} {ordinal.values[-1]}", set()).add(index)
    found = [Edge(what, len(who), len(points)) for what, who in touched.items()]
    return sorted([*found, *_rates(space, [rate for _, rate in points])], key=lambda edge: -edge.members)


def _rates(space: SearchSpace, rates: Sequence[float]) -> list[Edge]:
    dimension = space.learning_rate
    if dimension.low == dimension.high:
        return []
    places = [dimension.feature(rate) for rate in rates]
    high, low = sum(place >= 1 - NEAR for place in places), sum(place <= NEAR for place in places)
    found = [
        Edge(f"learning rate {dimension.high:g}", high, len(rates)),
        Edge(f"learning rate {dimension.low:g}", low, len(rates), is_upper=False),
    ]
    return [edge for edge in found if edge.members]


def _point(space: SearchSpace, member: Configuration) -> tuple[tuple[int, ...], float] | None:
    try:
        return space.encode(member)
    except ConfigurationError:
        return None
