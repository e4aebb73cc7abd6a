"""Which configurations exist: a definition (plain data, YAML or JSON) bound to the shapes of one backbone.

A space samples, encodes and decodes, lists neighbours, and says what share of it fits a budget. It knows neither
observations nor clocks; proposing is ``autopeft.optimizer``'s work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import trainable_parameters
from search_spaces.counting import BudgetTable
from search_spaces.definition import ModuleGroup, SpaceDefinition
from search_spaces.dimensions import Continuous, Ordinal, significant
from search_spaces.errors import BudgetError, ConfigurationError
from search_spaces.methods import Method
from search_spaces.methods.lora import Lora

__all__ = ["ModuleGroup", "Point", "SearchSpace", "SpaceDefinition"]

Point = tuple[tuple[int, ...], float]
"""Coordinates: the value index of every ordinal, and the learning rate in its canonical precision."""


class SearchSpace:
    """The configurations of one definition on one backbone.

    Coordinates are one ordinal a (layer group, module group) and the learning rate; the plan with nothing in it is
    in no space.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the definition names sites or layers that the backbone lacks.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self.definition = definition
        self.backbone = backbone
        self.learning_rate = Continuous("learning rate", *definition.learning_rate)
        self._cells = _cells(definition, backbone)
        self.ordinals = tuple(
            Ordinal(f"{_span(layers)} {'+'.join(group.sites)} rank", group.ranks) for layers, group in self._cells
        )
        if all(ordinal.values == (0,) for ordinal in self.ordinals):
            raise ConfigurationError(f"space {definition.name} holds only the empty plan; allow a rank above 0")

    @property
    def name(self) -> str:
        """Name of the definition."""
        return self.definition.name

    @property
    def dimension_count(self) -> int:
        """Ordinals plus the learning rate."""
        return len(self.ordinals) + 1

    @cached_property
    def size(self) -> int:
        """Number of configurations, learning rate apart; the empty plan is not one."""
        points = math.prod(len(ordinal.values) for ordinal in self.ordinals)
        return points - 1 if self._holds_empty_point else points

    @property
    def _holds_empty_point(self) -> bool:
        return all(ordinal.values[0] == 0 for ordinal in self.ordinals)

    @cached_property
    def costs(self) -> tuple[tuple[int, ...], ...]:
        """For every ordinal, the trained parameters of each of its values."""
        return tuple(
            tuple(_cell_cost(self.backbone, layers, group, rank) for rank in group.ranks)
            for layers, group in self._cells
        )

    @cached_property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest configuration of the space."""
        least = sum(row[0] for row in self.costs)
        if least > 0:
            return least
        return min(next(cost for cost in row if cost > 0) for row in self.costs if row[-1] > 0)

    @cached_property
    def largest_cost(self) -> int:
        """Trained parameters of the largest configuration of the space."""
        return sum(row[-1] for row in self.costs)

    @lru_cache(maxsize=4)  # noqa: B019 - a process holds one or two spaces, for as long as it lives
    def _table(self, budget: int) -> BudgetTable:
        return BudgetTable(self.costs, budget)

    def share_within(self, budget: int) -> float:
        """Share of the configurations that train at most ``budget`` parameters, in [0, 1]."""
        share = self._table(budget).share
        if self._holds_empty_point:
            share = max(0.0, share - 1 / (self.size + 1)) * (self.size + 1) / self.size
        return share

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
        rows: list[list[Placement]] = [[] for _ in range(self.backbone.layer_count)]
        indices, rate = point
        for (layers, group), index in zip(self._cells, indices, strict=True):
            rank = group.ranks[index]
            for layer in layers if rank else ():
                method = self._method(rank)
                rows[layer].extend(Placement(site, method) for site in group.sites)
        configuration = Configuration(tuple(LayerPlan(tuple(row)) for row in rows), Training(rate))
        if configuration.is_empty:
            raise ConfigurationError("the empty plan is in no search space; it is the head-only reference")
        return configuration

    def encode(self, configuration: Configuration) -> Point:
        """The coordinates of ``configuration``; inverse of ``decode``.

        Raises:
            ConfigurationError: If the configuration is not in this space.
        """
        configuration.validate(self.backbone)
        indices = []
        for layers, group in self._cells:
            methods = {configuration.layers[layer].at(site, Lora.name) for layer in layers for site in group.sites}
            method = methods.pop()
            rank = method.rank if method else 0
            if methods or rank not in group.ranks:
                raise ConfigurationError(f"not in space {self.name}: {_span(layers)} {'+'.join(group.sites)}")
            indices.append(group.ranks.index(rank))
        rate = configuration.training.learning_rate
        point = (tuple(indices), rate)
        if not self.learning_rate.low * 0.999 <= rate <= self.learning_rate.high * 1.001:
            raise ConfigurationError(f"not in space {self.name}: learning rate {rate}")
        if self.decode(point) != configuration:
            raise ConfigurationError(f"not in space {self.name}: it adapts other modules or scales otherwise")
        return point

    def features(self, configuration: Configuration) -> NDArray[np.float64]:
        """Coordinates for a surrogate, shape [d], each in [0, 1]: log ranks, then log learning rate."""
        features: NDArray[np.float64] = self.point_features([self.encode(configuration)])[0]
        return features

    def point_features(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """``features`` of the configurations at ``points``, shape [n, d], without building them."""
        features = np.empty((len(points), self.dimension_count))
        for position, row in enumerate(self._feature_rows):
            features[:, position] = row[[indices[position] for indices, _ in points]]
        features[:, -1] = [self.learning_rate.feature(rate) for _, rate in points]
        return features

    def point_costs(self, points: Sequence[Point]) -> NDArray[np.int64]:
        """Trained parameters of the configurations at ``points``, shape [n], without building them."""
        indices = np.array([indices for indices, _ in points]).reshape(len(points), len(self.ordinals))
        total = np.zeros(len(points), dtype=np.int64)
        for position, row in enumerate(self.costs):
            total += np.array(row)[indices[:, position]]
        return total

    @cached_property
    def _feature_rows(self) -> list[NDArray[np.float64]]:
        return [np.array([ordinal.feature(value) for value in ordinal.values]) for ordinal in self.ordinals]

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
        drawn = self._table(budget).draw(units[:, 1:-1], targets)
        points = []
        for unit, target, row in zip(units, targets, drawn, strict=True):
            indices = tuple(int(index) for index in row)
            if self._is_empty(indices):
                indices = self._smallest_at(float(unit[0]), int(target), indices)
            points.append((indices, self._rate_at(float(unit[-1]))))
        return points

    def sample(self, generator: np.random.Generator, budget: int) -> Configuration:
        """A random feasible configuration (``place`` of a uniform point)."""
        return self.place(generator.random(self.dimension_count + 1), budget)

    def neighbours(self, configuration: Configuration, generator: np.random.Generator) -> list[Configuration]:
        """Configurations one step away: an ordinal one value up, down or to its lowest, or another learning rate."""
        return [self.decode(point) for point in self.neighbour_points(self.encode(configuration), generator)]

    def neighbour_points(self, point: Point, generator: np.random.Generator) -> list[Point]:
        """The coordinates of the ``neighbours`` of the configuration at ``point``."""
        indices, rate = point
        points: list[Point] = []
        for position, ordinal in enumerate(self.ordinals):
            near = {indices[position] - 1, indices[position] + 1, 0} - {indices[position]}
            for index in sorted(index for index in near if 0 <= index < len(ordinal.values)):
                moved = (*indices[:position], index, *indices[position + 1 :])
                if not self._is_empty(moved):
                    points.append((moved, rate))
        if self.learning_rate.low < self.learning_rate.high:
            unit = self.learning_rate.feature(rate)
            steps = unit + np.array([-0.25, -0.1, 0.1, 0.25]) * generator.uniform(0.5, 1.5, 4)
            rates = [self._rate_at(float(step)) for step in steps]
            points += [(indices, near_rate) for near_rate in rates if near_rate != rate]
        return points

    def points_within(self, budget: int) -> Iterator[Point]:
        """Every point that trains at most ``budget`` parameters, in order of its indices, then its learning rate."""
        rest = [sum(row[0] for row in self.costs[position:]) for position in range(len(self.costs) + 1)]
        stack: list[tuple[tuple[int, ...], int]] = [((), 0)]
        while stack:
            prefix, spent = stack.pop()
            if len(prefix) == len(self.costs):
                if not self._is_empty(prefix):
                    yield from ((prefix, rate) for rate in self.learning_rate.grid())
                continue
            row = self.costs[len(prefix)]
            fitting = [i for i, cost in enumerate(row) if spent + cost + rest[len(prefix) + 1] <= budget]
            stack += [((*prefix, index), spent + row[index]) for index in reversed(fitting)]

    def _is_empty(self, indices: tuple[int, ...]) -> bool:
        return self._holds_empty_point and not any(indices)

    def _rate_at(self, unit: float) -> float:
        return significant(self.learning_rate.at(unit))

    def _method(self, rank: int) -> Method:
        return Lora(rank, self.definition.scaling * rank)

    def _smallest_at(self, unit: float, target: int, indices: tuple[int, ...]) -> tuple[int, ...]:
        """``indices`` of an empty draw with one cell raised to its smallest rank, the cell picked by ``unit``."""
        fitting = [i for i, row in enumerate(self.costs) if any(0 < cost <= target for cost in row)]
        position = fitting[int(unit * 7919) % len(fitting)]
        raised = next(i for i, cost in enumerate(self.costs[position]) if cost > 0)
        return (*indices[:position], raised, *indices[position + 1 :])


def _cells(definition: SpaceDefinition, backbone: Backbone) -> tuple[tuple[tuple[int, ...], ModuleGroup], ...]:
    groups = definition.layers or tuple((layer,) for layer in range(backbone.layer_count))
    for layers in groups:
        for layer in layers:
            if not 0 <= layer < backbone.layer_count:
                raise ConfigurationError(
                    f"space layer {layer}: {backbone.name} has layers 0 to {backbone.layer_count - 1}"
                )
            for module_group in definition.modules:
                for site in module_group.sites:
                    backbone.module(layer, site)
    return tuple((layers, module_group) for layers in groups for module_group in definition.modules)


def _cell_cost(backbone: Backbone, layers: Sequence[int], group: ModuleGroup, rank: int) -> int:
    if rank == 0:
        return 0
    return sum(
        Lora(rank, 1.0).parameter_count(backbone.module(layer, site)) for layer in layers for site in group.sites
    )


def _span(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {','.join(map(str, layers))}"
