"""Points whose costs add up: one value of each ordinal, each with a cost of its own.

Draws within a budget and shares are exact by ``search_spaces.counting``. What the values mean, and what table of a
configuration they make, is the business of the grids built on this (``cells``, ``choices``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.configuration import Training
from search_spaces.counting import BudgetTable
from search_spaces.definition import SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError

Indices = tuple[int, ...]
Array = NDArray[np.float64]

MIDDLE = 0.5
"""Of the range of learning rates, on its log scale."""


class OrdinalPoints:
    """What grids share whose every coordinate is one of ``ordinals``, and which know nothing beforehand."""

    ordinals: tuple[Ordinal, ...]

    def features(self, indices: NDArray[np.int64]) -> Array:
        """Bits, and log ranks and sizes in [0, 1], shape [n, ordinals]."""
        return log_features(self.ordinals, indices)

    def near(self, indices: Indices) -> Iterator[Indices]:
        """The points with one coordinate one step up, one down, or at its lowest."""
        return steps_away(self.ordinals, indices)

    def anchors(self, budget: int) -> list[tuple[Indices, float]]:
        """Nothing is known beforehand."""
        return []

    def training(self, indices: Indices, learning_rate: float) -> Training:
        """Nothing but the rate is chosen."""
        return Training(learning_rate)


class AdditiveGrid:
    """The points of a product of ordinals, as value indices.

    Args:
        name: Of the space, for messages.
        ordinals: Coordinates; the first ``inserting`` of them insert something, the others cost nothing.
        costs: For every ordinal, the trained parameters of each of its values; 0 for nothing inserted.
        inserting: How many insert.

    Raises:
        ConfigurationError: If no point inserts anything.
    """

    def __init__(
        self, name: str, ordinals: tuple[Ordinal, ...], costs: tuple[tuple[int, ...], ...], inserting: int
    ) -> None:
        self._name = name
        self.ordinals = ordinals
        self.costs = costs
        self._inserting = inserting
        self._holds_empty = all(row[0] == 0 for row in costs[:inserting])
        if not any(cost for row in costs for cost in row):
            raise ConfigurationError(f"space {name} holds only the empty plan; allow a rank or size above 0")

    @cached_property
    def _empties(self) -> int:
        """Points where nothing is inserted."""
        return math.prod(len(row) for row in self.costs[self._inserting :]) if self._holds_empty else 0

    @cached_property
    def size(self) -> int:
        """Number of points where anything is inserted."""
        return math.prod(len(row) for row in self.costs) - self._empties

    @cached_property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest point."""
        least = sum(min(row) for row in self.costs)
        return least or min(cost for row in self.costs for cost in row if cost > 0)

    @cached_property
    def largest_cost(self) -> int:
        """Trained parameters of the largest point."""
        return sum(max(row) for row in self.costs)

    @lru_cache(maxsize=4)  # noqa: B019 - a process holds one or two spaces, for as long as it lives
    def _table(self, budget: int) -> BudgetTable:
        return BudgetTable(self.costs, budget)

    def is_empty(self, indices: Indices) -> bool:
        """Whether nothing is inserted at that point."""
        return self._holds_empty and not any(indices[: self._inserting])

    def share_within(self, budget: int) -> float:
        """Share of the points that train at most ``budget`` parameters, in [0, 1]."""
        total = self.size + self._empties
        return max(0.0, self._table(budget).share - self._empties / total) * total / self.size

    def costs_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Trained parameters at points, shape [n], for ``indices`` of shape [n, ordinals]."""
        costs: NDArray[np.int64] = self._cost_table[np.arange(len(self.costs)), indices].sum(axis=1)
        return costs

    @cached_property
    def _cost_table(self) -> NDArray[np.int64]:
        """``costs`` as an array, shape [ordinals, most values of one]."""
        return _padded(self.costs).astype(np.int64)

    def draw(self, units: Array, targets: NDArray[np.int64], picks: Array, budget: int) -> list[Indices]:
        """A point of at most its target cost for each row of ``units``, uniform for uniform units.

        Args:
            units: Shape [n, ordinals], each in [0, 1).
            targets: Shape [n].
            picks: Shape [n], each in [0, 1): where a draw is empty, what it gets instead.
            budget: No target is above it.
        """
        points = []
        for row, target, pick in zip(self._table(budget).draw(units, targets).tolist(), targets, picks, strict=True):
            indices = tuple(row)
            points.append(self._raised(float(pick), int(target), indices) if self.is_empty(indices) else indices)
        return points

    def _raised(self, pick: float, target: int, indices: Indices) -> Indices:
        """``indices`` of an empty draw with one ordinal raised to its cheapest value."""
        fitting = [i for i, row in enumerate(self.costs) if any(0 < cost <= target for cost in row)]
        position = fitting[int(pick * 7919) % len(fitting)]
        row = self.costs[position]
        raised = min((index for index, cost in enumerate(row) if cost > 0), key=lambda index: row[index])
        return (*indices[:position], raised, *indices[position + 1 :])

    def within(self, budget: int) -> Iterator[Indices]:
        """Every point that trains at most ``budget`` parameters, in order."""
        rest = [sum(min(row) for row in self.costs[position:]) for position in range(len(self.costs) + 1)]
        stack: list[tuple[Indices, int]] = [((), 0)]
        while stack:
            prefix, spent = stack.pop()
            if len(prefix) == len(self.costs):
                if not self.is_empty(prefix):
                    yield prefix
                continue
            row = self.costs[len(prefix)]
            fitting = [i for i, cost in enumerate(row) if spent + cost + rest[len(prefix) + 1] <= budget]
            stack += [((*prefix, index), spent + row[index]) for index in reversed(fitting)]


def log_features(ordinals: Sequence[Ordinal], indices: NDArray[np.int64]) -> Array:
    """Every ordinal's value on its log scale in [0, 1], shape [n, ordinals]."""
    features: Array = _feature_table(tuple(ordinals))[np.arange(len(ordinals)), indices]
    return features


@lru_cache(maxsize=64)
def _feature_table(ordinals: tuple[Ordinal, ...]) -> Array:
    return _padded([[ordinal.feature(value) for value in ordinal.values] for ordinal in ordinals])


def _padded(rows: Sequence[Sequence[float]]) -> Array:
    """``rows`` as an array, shape [rows, longest], the shorter ones filled up with 0."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)))
    for position, row in enumerate(rows):
        table[position, : len(row)] = row
    return table


def steps_away(ordinals: Sequence[Ordinal], indices: Indices) -> Iterator[Indices]:
    """The points with one ordinal one value up, one down, or at its lowest."""
    for position, ordinal in enumerate(ordinals):
        before, after = indices[:position], indices[position + 1 :]
        for index in _near(indices[position], len(ordinal.values)):
            yield (*before, index, *after)


@lru_cache(maxsize=1024)
def _near(index: int, count: int) -> tuple[int, ...]:
    """One down, one up and the lowest of ``count`` values, rising, ``index`` itself left out."""
    return tuple(sorted(near for near in {index - 1, index + 1, 0} - {index} if 0 <= near < count))


def layer_groups(definition: SpaceDefinition, backbone: Backbone) -> tuple[tuple[int, ...], ...]:
    """The groups of layers that share their choices.

    Raises:
        ConfigurationError: If the backbone has not so many layers.
    """
    groups = definition.layers or tuple((layer,) for layer in range(backbone.layer_count))
    for layer in (layer for group in groups for layer in group):
        if not 0 <= layer < backbone.layer_count:
            raise ConfigurationError(f"space layer {layer}: {backbone.name} has layers 0 to {backbone.layer_count - 1}")
    return groups


def span(layers: Sequence[int]) -> str:
    """A layer group in words."""
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {','.join(map(str, layers))}"
