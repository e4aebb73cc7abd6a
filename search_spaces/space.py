"""Which configurations exist: a definition (plain data, YAML or JSON) bound to the shapes of one backbone.

A space samples, encodes and decodes, lists neighbours, and says what share of it fits a budget. It knows neither
observations nor clocks; proposing is ``autopeft.optimizer``'s work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.cells import CellGrid
from search_spaces.choices import ChoiceGrid
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.cost import trainable_parameters
from search_spaces.cuts import CutGrid
from search_spaces.definition import MethodSizes, ModuleGroup, SpaceDefinition
from search_spaces.dimensions import Continuous, Ordinal, significant
from search_spaces.errors import BudgetError, ConfigurationError
from search_spaces.grid import Array, Indices
from search_spaces.shared import SharedGrid

__all__ = ["MethodSizes", "ModuleGroup", "Point", "SearchSpace", "SpaceDefinition"]

Point = tuple[tuple[int, ...], float]
"""Coordinates: the value index of every ordinal, and the learning rate in its canonical precision."""


class Grid(Protocol):
    """The discrete part of a space: points as value indices of ordinals, with what is counted over them."""

    @property
    def ordinals(self) -> tuple[Ordinal, ...]:
        """Its coordinates."""
        ...

    @property
    def size(self) -> int:
        """Number of points where anything is inserted."""
        ...

    @property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest of them."""
        ...

    @property
    def largest_cost(self) -> int:
        """Trained parameters of the largest."""
        ...

    def is_empty(self, indices: Indices) -> bool:
        """Whether nothing is inserted at that point."""
        ...

    def share_within(self, budget: int) -> float:
        """Share of the points that train at most ``budget`` parameters, in [0, 1]."""
        ...

    def costs_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Trained parameters at points, shape [n], for ``indices`` of shape [n, ordinals]."""
        ...

    def draw(
        self, units: NDArray[np.float64], targets: NDArray[np.int64], picks: NDArray[np.float64], budget: int
    ) -> list[Indices]:
        """A non-empty point of at most its target cost for each row of ``units``."""
        ...

    def features(self, indices: NDArray[np.int64]) -> Array:
        """Coordinates for a surrogate, shape [n, d], each in [0, 1]; ``indices`` as for ``costs_of``."""
        ...

    def near(self, indices: Indices) -> Iterator[Indices]:
        """The points one step away, empty ones among them."""
        ...

    def anchors(self, budget: int) -> list[tuple[Indices, float]]:
        """Points within ``budget`` that are worth being tried first, with the place of the learning rate in [0, 1]."""
        ...

    def training(self, indices: Indices, learning_rate: float) -> Training:
        """The training choices at that point."""
        ...

    def within(self, budget: int) -> Iterator[Indices]:
        """Every point that trains at most ``budget`` parameters, in order."""
        ...

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point."""
        ...

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        ...


class SearchSpace:
    """The configurations of one definition on one backbone.

    Coordinates are ordinals and the learning rate: a rank for each (layer group, module group); where sizes are shared,
    a bit for each layer group and a size for each method; the number of what each layer group holds; or a rank and a
    cut of a matrix. The plan with nothing in it is in no space.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the definition names sites or layers that the backbone lacks, or methods that it cannot
            take.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self.definition = definition
        self.backbone = backbone
        self.learning_rate = Continuous("learning rate", *definition.learning_rate)
        self._grid: Grid = _kind(definition)(definition, backbone)
        self.ordinals = self._grid.ordinals

    @property
    def name(self) -> str:
        """Name of the definition."""
        return self.definition.name

    @property
    def dimension_count(self) -> int:
        """Ordinals plus the learning rate."""
        return len(self.ordinals) + 1

    @property
    def size(self) -> int:
        """Number of configurations, learning rate apart; the empty plan is not one."""
        return self._grid.size

    @property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest configuration of the space."""
        return self._grid.smallest_cost

    @property
    def largest_cost(self) -> int:
        """Trained parameters of the largest configuration of the space."""
        return self._grid.largest_cost

    def share_within(self, budget: int) -> float:
        """Share of the configurations that train at most ``budget`` parameters, in [0, 1]."""
        return self._grid.share_within(budget)

    def require_feasible(self, budget: int) -> None:
        """Nothing, if some configuration fits ``budget``.

        Raises:
            BudgetError: If none does; the message names the smallest.
        """
        if self.smallest_cost > budget:
            raise BudgetError(
                f"budget of {budget:,} parameters: the smallest configuration of space {self.name} trains "
                f"{self.smallest_cost:,}; raise --budget to at least that"
            )

    def cost(self, configuration: Configuration) -> int:
        """Trained parameters of a configuration, to the unit."""
        return trainable_parameters(configuration, self.backbone)

    def decode(self, point: Point) -> Configuration:
        """The configuration at ``point``.

        Raises:
            ConfigurationError: If the point is the empty plan.
        """
        indices, rate = point
        configuration = Configuration(self._grid.rows(indices), self._grid.training(indices, rate))
        if configuration.is_empty:
            raise ConfigurationError("the empty plan is in no search space; it is the head-only reference")
        return configuration

    @lru_cache(maxsize=16_384)  # noqa: B019 - a process holds one or two spaces, for as long as it lives
    def encode(self, configuration: Configuration) -> Point:
        """The coordinates of ``configuration``; inverse of ``decode``.

        Raises:
            ConfigurationError: If the configuration is not in this space.
        """
        configuration.validate(self.backbone)
        indices = self._grid.indices_of(configuration)
        rate = configuration.training.learning_rate
        point = (indices, rate)
        if not self.learning_rate.low * 0.999 <= rate <= self.learning_rate.high * 1.001:
            raise ConfigurationError(f"not in space {self.name}: learning rate {rate}")
        if self.decode(point) != configuration:
            raise ConfigurationError(f"not in space {self.name}: it adapts other modules or scales otherwise")
        return point

    def features(self, configuration: Configuration) -> NDArray[np.float64]:
        """Coordinates for a surrogate, shape [d], each in [0, 1]: those of the grid, then the log learning rate."""
        features: NDArray[np.float64] = self.point_features([self.encode(configuration)])[0]
        return features

    def point_features(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """``features`` of the configurations at ``points``, shape [n, d], without building them."""
        rates = [self.learning_rate.feature(rate) for _, rate in points]
        return np.column_stack([self._grid.features(self._indices(points)), rates])

    def point_costs(self, points: Sequence[Point]) -> NDArray[np.int64]:
        """Trained parameters of the configurations at ``points``, shape [n], without building them."""
        return self._grid.costs_of(self._indices(points))

    def anchors(self, budget: int) -> list[Point]:
        """Points within ``budget`` that are worth being tried first; often none."""
        return [(indices, self._rate_at(place)) for indices, place in self._grid.anchors(budget)]

    def _indices(self, points: Sequence[Point]) -> NDArray[np.int64]:
        indices = np.array([indices for indices, _ in points], dtype=np.int64)
        return indices.reshape(len(points), len(self.ordinals))

    def place(self, unit: NDArray[np.float64], budget: int) -> Configuration:
        """The feasible configuration at a point of the unit cube.

        The first coordinate sets a target cost, log-uniform between the smallest configuration and the budget
        (a uniform draw would lie almost wholly at the budget); the next ones pick uniformly among what costs at
        most that; the last is the learning rate.

        Args:
            unit: Shape [dimension_count + 1], each in [0, 1).
            budget: Most trained parameters.

        Raises:
            BudgetError: If nothing fits.
        """
        return self.decode(self.place_points(unit[None, :], budget)[0])

    def place_points(self, units: NDArray[np.float64], budget: int) -> list[Point]:
        """The coordinates of what ``place`` makes of each row of ``units``, shape [n, dimension_count + 1].

        Raises:
            BudgetError: If nothing fits.
        """
        self.require_feasible(budget)
        ceiling = min(budget, self.largest_cost)
        targets = np.ceil(self.smallest_cost * (ceiling / self.smallest_cost) ** units[:, 0])
        targets = np.minimum(ceiling, targets.astype(np.int64))
        drawn = self._grid.draw(units[:, 1:-1], targets, units[:, 0], budget)
        return [(indices, self._rate_at(float(unit[-1]))) for indices, unit in zip(drawn, units, strict=True)]

    def sample(self, generator: np.random.Generator, budget: int) -> Configuration:
        """A random feasible configuration (``place`` of a uniform point)."""
        return self.place(generator.random(self.dimension_count + 1), budget)

    def neighbours(self, configuration: Configuration, generator: np.random.Generator) -> list[Configuration]:
        """Configurations one step away: one coordinate changed a little, switched off, or another learning rate."""
        return [self.decode(point) for point in self.neighbour_points(self.encode(configuration), generator)]

    def neighbour_points(self, point: Point, generator: np.random.Generator) -> list[Point]:
        """The coordinates of the ``neighbours`` of the configuration at ``point``."""
        indices, rate = point
        points: list[Point] = [(near, rate) for near in self._grid.near(indices) if not self._is_empty(near)]
        if self.learning_rate.low < self.learning_rate.high:
            unit = self.learning_rate.feature(rate)
            steps = unit + np.array([-0.25, -0.1, 0.1, 0.25]) * generator.uniform(0.5, 1.5, 4)
            rates = [self._rate_at(float(step)) for step in steps]
            points += [(indices, near_rate) for near_rate in rates if near_rate != rate]
        return points

    def points_within(self, budget: int) -> Iterator[Point]:
        """Every point that trains at most ``budget`` parameters, in order of its indices, then its learning rate."""
        for indices in self._grid.within(budget):
            yield from ((indices, rate) for rate in self.learning_rate.grid())

    def _is_empty(self, indices: tuple[int, ...]) -> bool:
        return self._grid.is_empty(indices)

    def _rate_at(self, unit: float) -> float:
        return significant(self.learning_rate.at(unit))


def _kind(definition: SpaceDefinition) -> Callable[[SpaceDefinition, Backbone], Grid]:
    if definition.cuts is not None:
        return CutGrid
    return ChoiceGrid if definition.choices else SharedGrid if definition.methods else CellGrid
