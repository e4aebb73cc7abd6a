"""Spaces as in the AutoPEFT paper (arXiv 2301.12132): sizes shared by all layers, and each layer on or off.

The cost is (number of layers that are on) × (cost of the sizes in one layer), so draws within a budget and shares are
exact by counting masks for each combination of sizes. Knows neither learning rates nor names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import parameters_by_layer
from search_spaces.definition import MethodSizes, SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.grid import Indices, OrdinalPoints, layer_groups, span
from search_spaces.methods import Method
from search_spaces.methods.lora import Lora
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial

COMBINATIONS_LIMIT = 200_000
"""Most combinations of sizes: all are held in memory."""

_SITES = {"serial": ("feed_forward",), "parallel": ("feed_forward",), "prefix": ("attention",)}


class SharedGrid(OrdinalPoints):
    """The points of a definition with ``methods`` on one backbone: a bit for each layer group, then the sizes.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the backbone cannot take a method, or its layers differ in what that costs.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self._name = definition.name
        self._backbone = backbone
        self._choices = definition.methods
        self._scaling = definition.scaling
        self._groups = layer_groups(definition, backbone)
        self._weights = [len(group) for group in self._groups]
        bits = tuple(Ordinal(f"{span(group)} on", (0, 1)) for group in self._groups)
        self.ordinals = bits + tuple(Ordinal(f"{choice.method} size", choice.sizes) for choice in self._choices)
        if math.prod(len(choice.sizes) for choice in self._choices) > COMBINATIONS_LIMIT:
            raise ConfigurationError(f"space {definition.name}: more than {COMBINATIONS_LIMIT:,} combinations of sizes")
        if not self._layer_costs.any():
            raise ConfigurationError(f"space {definition.name} holds only the empty plan; allow a size above 0")

    @cached_property
    def _layer_costs(self) -> NDArray[np.int64]:
        """What each combination of sizes costs in one layer, shape [sizes of the first method, …]."""
        rows = [[self._layer_cost(choice, size) for size in choice.sizes] for choice in self._choices]
        total = np.zeros((), dtype=np.int64)
        for row in rows:
            total = total[..., None] + np.array(row, dtype=np.int64)
        return total

    def _layer_cost(self, choice: MethodSizes, size: int) -> int:
        if size == 0:
            return 0
        row = LayerPlan(tuple(self._placements(choice, size)))
        plan = Configuration((row,) * self._backbone.layer_count, Training(1e-3))
        costs = set(parameters_by_layer(plan, self._backbone))
        if len(costs) > 1:
            raise ConfigurationError(
                f"{choice.method} costs {min(costs):,} to {max(costs):,} in the layers of {self._backbone.name}; "
                "a space of shared sizes needs equal layers"
            )
        cost: int = costs.pop()
        return cost

    @cached_property
    def _masks(self) -> list[list[int]]:
        """``_masks[g][k]``: how many choices of groups g, g+1, … have at most k layers on (none included)."""
        most = sum(self._weights)
        counts = [[1] * (most + 1)]
        for weight in reversed(self._weights):
            below = counts[0]
            counts.insert(0, [below[k] + (below[k - weight] if k >= weight else 0) for k in range(most + 1)])
        return counts

    @cached_property
    def size(self) -> int:
        """Number of points but those where nothing is inserted."""
        combinations = int(np.count_nonzero(self._layer_costs))
        masks: int = 2 ** len(self._groups) - 1
        return combinations * masks

    @cached_property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest point."""
        return int(self._layer_costs[self._layer_costs > 0].min()) * min(self._weights)

    @cached_property
    def largest_cost(self) -> int:
        """Trained parameters of the largest point."""
        return int(self._layer_costs.max()) * sum(self._weights)

    def is_empty(self, indices: Indices) -> bool:
        """Whether nothing is inserted at that point: no layer on, or no size above 0."""
        count = len(self._groups)
        return not any(indices[:count]) or bool(self._layer_costs[indices[count:]] == 0)

    def _fitting(self, budget: int) -> NDArray[np.float64]:
        """For each combination of sizes, how many non-empty choices of layers keep within ``budget``."""
        costs = self._layer_costs
        layers = np.where(costs > 0, budget // np.maximum(costs, 1), 0)
        return (np.array(self._masks[0], dtype=float) - 1)[np.minimum(layers, sum(self._weights))]

    def share_within(self, budget: int) -> float:
        """Share of the points that train at most ``budget`` parameters, in [0, 1]."""
        return float(self._fitting(budget).sum() / self.size)

    def costs_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Trained parameters at points, shape [n], for ``indices`` of shape [n, ordinals]."""
        count = len(self._groups)
        layers = indices[:, :count] @ np.array(self._weights)
        costs: NDArray[np.int64] = layers * self._layer_costs[tuple(indices[:, count:].T)]
        return costs

    def draw(
        self, units: NDArray[np.float64], targets: NDArray[np.int64], picks: NDArray[np.float64], budget: int
    ) -> list[Indices]:
        """A point of at most its target cost for each row of ``units``, uniform for uniform units; none is empty.

        Args:
            units: Shape [n, ordinals], each in [0, 1).
            targets: Shape [n].
            picks: Not needed here.
            budget: Not needed here.
        """
        return [self._drawn(row, int(target)) for row, target in zip(units, targets, strict=True)]

    def _drawn(self, unit: NDArray[np.float64], target: int) -> Indices:
        count = len(self._groups)
        left = self._fitting(target)
        sizes: list[int] = []
        for value in unit[count:]:
            weights = left.reshape(len(left), -1).sum(axis=1)
            index = min(int((np.cumsum(weights) <= value * weights.sum()).sum()), int(np.flatnonzero(weights)[-1]))
            sizes.append(index)
            left = left[index]
        layers = min(target // int(self._layer_costs[tuple(sizes)]), sum(self._weights))
        bits: list[int] = []
        for group, (value, weight) in enumerate(zip(unit[:count], self._weights, strict=True)):
            off = self._masks[group + 1][layers] - (0 if any(bits) else 1)
            on = self._masks[group + 1][layers - weight] if layers >= weight else 0
            bits.append(int(value * (off + on) >= off))
            layers -= weight * bits[-1]
        return (*bits, *sizes)

    def within(self, budget: int) -> Iterator[Indices]:
        """Every point that trains at most ``budget`` parameters, in order."""
        costs = self._layer_costs
        for bits in itertools.product((0, 1), repeat=len(self._groups)):
            layers = sum(bit * weight for bit, weight in zip(bits, self._weights, strict=True))
            if layers:
                for sizes in np.argwhere((costs > 0) & (costs * layers <= budget)):
                    yield (*bits, *(int(index) for index in sizes))

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point."""
        count = len(self._groups)
        chosen = [
            placement
            for choice, index in zip(self._choices, indices[count:], strict=True)
            for placement in (self._placements(choice, choice.sizes[index]) if choice.sizes[index] else ())
        ]
        on = {layer for group, bit in zip(self._groups, indices, strict=False) for layer in group if bit}
        row = LayerPlan(tuple(chosen))
        return tuple(row if layer in on else LayerPlan() for layer in range(self._backbone.layer_count))

    def _placements(self, choice: MethodSizes, size: int) -> list[Placement]:
        build: dict[str, Callable[[int], Method]] = {
            "serial": Serial,
            "parallel": Parallel,
            "prefix": Prefix,
            "lora": lambda rank: Lora(rank, self._scaling * rank),
        }
        return [Placement(site, build[choice.method](size)) for site in choice.sites or _SITES[choice.method]]

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        bits = [int(any(configuration.layers[layer].placements for layer in group)) for group in self._groups]
        if not any(bits):
            raise ConfigurationError(f"not in space {self._name}: no layer group of it has anything")
        row = configuration.layers[self._groups[bits.index(1)][0]]
        sizes = []
        for choice in self._choices:
            method = row.at((choice.sites or _SITES[choice.method])[0], choice.method)
            size = method.extent if method else 0
            if size not in choice.sizes:
                raise ConfigurationError(f"not in space {self._name}: {choice.method} size {size}")
            sizes.append(choice.sizes.index(size))
        if self.is_empty((*bits, *sizes)):
            raise ConfigurationError(f"not in space {self._name}: it holds none of its methods")
        return (*bits, *sizes)
