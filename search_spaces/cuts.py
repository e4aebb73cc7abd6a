"""Spaces of cuts: LoRA of one rank at the modules that DiffoRA's matrix keeps (arXiv 2502.08905), cut at a ratio.

The matrix is a stored one, or every trial learns its own. Coordinates are the rank and the cut; a trial that learns
also has the share of its steps that the search takes and what becomes of the supernet's weights. Cuts that keep the
same are one. Such a space has tens of points, so all are made beforehand and counting is looking.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.cut import Cuts
from search_spaces.definition import SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.grid import Array, Indices, steps_away
from search_spaces.methods.lora import Lora
from search_spaces.selection import Entry, Selection, cut, kept_count


@dataclass(frozen=True, slots=True)
class _Cut:
    """One way to cut: how, and of a stored matrix what is left."""

    ratio: float
    scope: str
    kept: frozenset[Entry] | None


class CutGrid:
    """The points of a definition with ``cuts`` on one backbone, as value indices of its ordinals.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If a stored matrix is for other layers or modules than the backbone's.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        if definition.cuts is None:
            raise ConfigurationError(f"space {definition.name}: no cuts")
        self._cuts, self._name, self._scaling = definition.cuts, definition.name, definition.scaling
        self._backbone = backbone
        self._matrix = None if self._cuts.scores is None else _entries(self._cuts, backbone, definition.name)
        self._ways = self._different_ways()
        ranks = Ordinal("rank", self._cuts.ranks)
        self.ordinals: tuple[Ordinal, ...] = (ranks, Ordinal("cut", tuple(range(len(self._ways)))))
        if self._matrix is None:
            self.ordinals += (
                Ordinal("share of the steps searched", tuple(range(len(self._cuts.search_fractions)))),
                Ordinal("weights", tuple(range(len(self._cuts.weights)))),
            )
        self._costs = np.array([[self._cost(rank, way) for way in self._ways] for rank in self._cuts.ranks])

    @cached_property
    def size(self) -> int:
        """Number of points."""
        return int(np.prod([len(ordinal.values) for ordinal in self.ordinals]))

    @property
    def smallest_cost(self) -> int:
        """Trained parameters of the smallest point."""
        return int(self._costs.min())

    @property
    def largest_cost(self) -> int:
        """Trained parameters of the largest point."""
        return int(self._costs.max())

    def is_empty(self, indices: Indices) -> bool:
        """Never: every cut keeps something."""
        return False

    def share_within(self, budget: int) -> float:
        """Share of the points that train at most ``budget`` parameters, in [0, 1]."""
        return float((self._costs <= budget).mean())

    def costs_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Trained parameters at points, shape [n], for ``indices`` of shape [n, ordinals]; of a learned cut at most."""
        costs: NDArray[np.int64] = self._costs[indices[:, 0], indices[:, 1]]
        return costs

    def draw(self, units: Array, targets: NDArray[np.int64], picks: Array, budget: int) -> list[Indices]:
        """A point of at most its target cost for each row of ``units``, uniform over rank and cut for uniform units."""
        points: list[Indices] = []
        for unit, target in zip(units, targets, strict=True):
            fits = self._costs <= target
            rank = _pick(np.flatnonzero(fits.any(axis=1)), unit[0])
            way = _pick(np.flatnonzero(fits[rank]), unit[1])
            rest = (int(u * len(ordinal.values)) for u, ordinal in zip(unit[2:], self.ordinals[2:], strict=True))
            points.append((rank, way, *rest))
        return points

    def features(self, indices: NDArray[np.int64]) -> Array:
        """Log rank, ratio, scope, and where trials learn the share searched and the weights; each in [0, 1]."""
        ranks = np.log(self._cuts.ranks)
        columns = [
            (ranks / max(1e-9, ranks.max()))[indices[:, 0]],
            np.array([way.ratio for way in self._ways])[indices[:, 1]],
            np.array([float(way.scope == "global") for way in self._ways])[indices[:, 1]],
        ]
        if self._matrix is None:
            columns.append(np.array(self._cuts.search_fractions)[indices[:, 2]])
            columns.append(indices[:, 3].astype(float))
        return np.column_stack(columns)

    def near(self, indices: Indices) -> Iterator[Indices]:
        """The points with one coordinate one value up, one down, or at its lowest."""
        return steps_away(self.ordinals, indices)

    def anchors(self, budget: int) -> list[tuple[Indices, float]]:
        """Nothing is known beforehand."""
        return []

    def within(self, budget: int) -> Iterator[Indices]:
        """Every point that trains at most ``budget`` parameters, in order."""
        for indices in itertools.product(*(range(len(ordinal.values)) for ordinal in self.ordinals)):
            if self._costs[indices[0], indices[1]] <= budget:
                yield indices

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point: what a stored matrix keeps, or the supernet."""
        return self._table(self._cuts.ranks[indices[0]], self._ways[indices[1]]).layers

    def training(self, indices: Indices, learning_rate: float) -> Training:
        """The rate, and how a trial chooses; nothing to choose where the matrix is stored."""
        if self._matrix is not None:
            return Training(learning_rate)
        way = self._ways[indices[1]]
        fraction, weights = self._cuts.search_fractions[indices[2]], self._cuts.weights[indices[3]]
        return Training(
            learning_rate, selection=Selection(way.ratio, way.scope, search_fraction=fraction, weights=weights)
        )

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        for indices in self.within(self.largest_cost):
            training = self.training(indices, configuration.training.learning_rate)
            if training == configuration.training and self.rows(indices) == configuration.layers:
                return indices
        raise ConfigurationError(f"not in space {self._name}: no cut of the matrix")

    def _different_ways(self) -> tuple[_Cut, ...]:
        """One for each different outcome: what a stored matrix keeps, or how many modules a learned one would."""
        found: dict[object, _Cut] = {}
        for scope, ratio in itertools.product(self._cuts.scopes, self._cuts.ratios):
            kept = None if self._matrix is None else cut(self._matrix, ratio, scope)
            layers = [len(self._backbone.layers[layer]) for layer in range(self._backbone.layer_count)]
            groups = layers if scope == "row" else [sum(layers)]
            key = kept if kept is not None else (scope, tuple(kept_count(ratio, group) for group in groups))
            found.setdefault(key, _Cut(ratio, scope, kept))
        return tuple(found.values())

    def _table(self, rank: int, way: _Cut) -> Configuration:
        supernet = uniform(self._backbone, self._backbone.roles, Lora(rank, self._scaling * rank), 1e-3)
        return supernet if way.kept is None else supernet.keeping(way.kept)

    def _cost(self, rank: int, way: _Cut) -> int:
        table = self._table(rank, way)
        if way.kept is None:
            table = Configuration(table.layers, Training(1e-3, selection=Selection(way.ratio, way.scope)))
        return trainable_parameters(table, self._backbone)


def _pick(values: NDArray[np.int64], unit: float) -> int:
    """One of ``values``, uniform for a uniform ``unit`` in [0, 1)."""
    return int(values[min(int(unit * len(values)), len(values) - 1)])


def _entries(cuts: Cuts, backbone: Backbone, name: str) -> dict[Entry, float]:
    """The stored matrix by (layer, site), in order of layers and then of the backbone's modules.

    Raises:
        ConfigurationError: If it has other layers or modules than ``backbone``, or no value at all for one of them.
    """
    scores = dict(cuts.scores or ())
    if wrong := {site: len(row) for site, row in scores.items() if len(row) != backbone.layer_count}:
        site, count = next(iter(wrong.items()))
        raise ConfigurationError(
            f"space {name}: its matrix has {count} layers at {site}, {backbone.name} has {backbone.layer_count}"
        )
    found = {}
    for layer in range(backbone.layer_count):
        for site, row in scores.items():
            if row[layer] is None:
                continue
            backbone.module(layer, site)
            found[layer, site] = float(row[layer] or 0.0)
    return found
