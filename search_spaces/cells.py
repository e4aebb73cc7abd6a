"""Spaces whose choices add up: a LoRA rank for each (layer group, module group), each on its own.

Costs are a sum over cells, so that draws within a budget and shares are exact by ``search_spaces.counting``. Knows
neither learning rates nor names; ``search_spaces.space`` adds those.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement
from search_spaces.counting import BudgetTable
from search_spaces.definition import ModuleGroup, SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora

Indices = tuple[int, ...]


class CellGrid:
    """The points of a definition with ``modules`` on one backbone, as value indices of its ordinals.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the definition names sites or layers that the backbone lacks.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self._name = definition.name
        self._backbone = backbone
        self._scaling = definition.scaling
        self._cells = _cells(definition, backbone)
        self.ordinals = tuple(
            Ordinal(f"{span(layers)} {'+'.join(group.sites)} rank", group.ranks) for layers, group in self._cells
        )
        self._holds_empty_point = all(ordinal.values[0] == 0 for ordinal in self.ordinals)
        if all(ordinal.values == (0,) for ordinal in self.ordinals):
            raise ConfigurationError(f"space {definition.name} holds only the empty plan; allow a rank above 0")

    @cached_property
    def size(self) -> int:
        """Number of points but the empty one."""
        points = math.prod(len(ordinal.values) for ordinal in self.ordinals)
        return points - 1 if self._holds_empty_point else points

    @cached_property
    def costs(self) -> tuple[tuple[int, ...], ...]:
        """For every ordinal, the trained parameters of each of its values."""
        return tuple(
            tuple(_cell_cost(self._backbone, layers, group, rank) for rank in group.ranks)
            for layers, group in self._cells
        )

    @cached_property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest point."""
        least = sum(row[0] for row in self.costs)
        if least > 0:
            return least
        return min(next(cost for cost in row if cost > 0) for row in self.costs if row[-1] > 0)

    @cached_property
    def largest_cost(self) -> int:
        """Trained parameters of the largest point."""
        return sum(row[-1] for row in self.costs)

    @lru_cache(maxsize=4)  # noqa: B019 - a process holds one or two spaces, for as long as it lives
    def _table(self, budget: int) -> BudgetTable:
        return BudgetTable(self.costs, budget)

    def is_empty(self, indices: Indices) -> bool:
        """Whether nothing is inserted at that point."""
        return self._holds_empty_point and not any(indices)

    def share_within(self, budget: int) -> float:
        """Share of the points that train at most ``budget`` parameters, in [0, 1]."""
        share = self._table(budget).share
        if self._holds_empty_point:
            share = max(0.0, share - 1 / (self.size + 1)) * (self.size + 1) / self.size
        return share

    def costs_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Trained parameters at points, shape [n], for ``indices`` of shape [n, ordinals]."""
        total = np.zeros(len(indices), dtype=np.int64)
        for position, row in enumerate(self.costs):
            total += np.array(row)[indices[:, position]]
        return total

    def draw(
        self, units: NDArray[np.float64], targets: NDArray[np.int64], picks: NDArray[np.float64], budget: int
    ) -> list[Indices]:
        """A point of at most its target cost for each row of ``units``, uniform for uniform units.

        Args:
            units: Shape [n, ordinals], each in [0, 1).
            targets: Shape [n].
            picks: Shape [n], each in [0, 1): where a draw is empty, what it gets instead.
            budget: No target is above it.
        """
        points = []
        for row, target, pick in zip(self._table(budget).draw(units, targets), targets, picks, strict=True):
            indices = tuple(int(index) for index in row)
            points.append(self._raised(float(pick), int(target), indices) if self.is_empty(indices) else indices)
        return points

    def _raised(self, pick: float, target: int, indices: Indices) -> Indices:
        """``indices`` of an empty draw with one cell raised to its smallest rank."""
        fitting = [i for i, row in enumerate(self.costs) if any(0 < cost <= target for cost in row)]
        position = fitting[int(pick * 7919) % len(fitting)]
        raised = next(i for i, cost in enumerate(self.costs[position]) if cost > 0)
        return (*indices[:position], raised, *indices[position + 1 :])

    def within(self, budget: int) -> Iterator[Indices]:
        """Every point that trains at most ``budget`` parameters, in order."""
        rest = [sum(row[0] for row in self.costs[position:]) for position in range(len(self.costs) + 1)]
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

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point."""
        rows: list[list[Placement]] = [[] for _ in range(self._backbone.layer_count)]
        for (layers, group), index in zip(self._cells, indices, strict=True):
            rank = group.ranks[index]
            for layer in layers if rank else ():
                method = Lora(rank, self._scaling * rank)
                rows[layer].extend(Placement(site, method) for site in _present(self._backbone, layer, group))
        return tuple(LayerPlan(tuple(row)) for row in rows)

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        indices = []
        for layers, group in self._cells:
            methods = {
                configuration.layers[layer].at(site, "lora")
                for layer in layers
                for site in _present(self._backbone, layer, group)
            }
            method = methods.pop()
            rank = method.rank if method else 0
            if methods or rank not in group.ranks:
                raise ConfigurationError(f"not in space {self._name}: {span(layers)} {'+'.join(group.sites)}")
            indices.append(group.ranks.index(rank))
        return tuple(indices)


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


def _cells(definition: SpaceDefinition, backbone: Backbone) -> tuple[tuple[tuple[int, ...], ModuleGroup], ...]:
    """Every (layer group, module group) of which the backbone has at least one module."""
    groups = layer_groups(definition, backbone)
    for site in (site for group in definition.modules for site in group.sites if site not in backbone.roles):
        backbone.module(groups[0][0], site)
    return tuple(
        (layers, group)
        for layers in groups
        for group in definition.modules
        if any(_present(backbone, layer, group) for layer in layers)
    )


def _present(backbone: Backbone, layer: int, group: ModuleGroup) -> list[str]:
    """The sites of ``group`` in ``layer``: an encoder's layers lack the cross-attention of its decoder."""
    roles = {module.role for module in backbone.layers[layer]}
    return [site for site in group.sites if site in roles]


def _cell_cost(backbone: Backbone, layers: Sequence[int], group: ModuleGroup, rank: int) -> int:
    if rank == 0:
        return 0
    return sum(
        Lora(rank, 1.0).parameter_count(backbone.module(layer, site))
        for layer in layers
        for site in _present(backbone, layer, group)
    )
