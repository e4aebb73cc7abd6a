"""Problems with known fronts, shaped like the search: spaces with exact costs and a noisy, invented quality.

Each stands in for a ``SearchSpace`` (its point API and coordinates) and knows the noiseless quality of every point.
``paper``: the AutoPEFT paper's 15 dimensions, front by enumeration of all 5,446,350 configurations. ``joint``: method,
size and module of each of 12 layers and a learning rate, 37 dimensions of which most depend on others, front by dynamic
programming. ``three``: nine of the paper's dimensions with FLOPs as a third objective, front by enumeration.
The qualities are inventions: they say how proposers compare, not how well any model trains.
"""

# ruff: noqa: D102 - the methods are those of SearchSpace
from __future__ import annotations

from functools import cached_property

import numpy as np
from known_front import COST, FLOPS, HIGHEST, LOWEST, QUALITY, Family

from autopeft.optimizer.demands import Demands
from autopeft.pareto import Axis
from autopeft.study import Direction, Objective, Observation
from search_spaces.dimensions import Continuous, Ordinal

SIZES = (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768)


def _log(sizes):
    return np.log2(1 + np.asarray(sizes)) / np.log2(769)


class Paper(Family):
    """Three global sizes and a bit for each layer."""

    name = "paper"
    layers = 12
    budget = 550_000

    def invent(self) -> None:
        bits = tuple(Ordinal(f"layer {i}", (0, 1)) for i in range(self.layers))
        sizes = tuple(Ordinal(n, SIZES) for n in ("serial", "parallel", "prefix"))
        self.ordinals = (*sizes, *bits)
        self.smallest_plan = (0, 0, 1, 1, *[0] * (self.layers - 1))
        draw = self.generator
        self._weights = draw.dirichlet(np.full(self.layers, 0.7))
        self._pairs_of_layers = 0.25 * draw.normal(size=self.layers - 1) / self.layers
        self._shares = draw.dirichlet(np.full(3, 1.5))
        self._best = draw.uniform(0.45, 0.9, 3)
        self._synergy = draw.uniform(-0.3, 0.5)

    def costs(self, indices):
        serial, parallel, prefix = (np.array(SIZES)[indices[:, i]] for i in range(3))
        by_layer = 2 * 768 * (serial + parallel + prefix) + np.where(serial > 0, 768 + serial, 0)
        by_layer = by_layer + np.where(parallel > 0, 768 + parallel, 0)
        return by_layer * indices[:, 3:].sum(axis=1)

    def canonical(self, indices):
        empty = (indices[:, :3].sum(axis=1) == 0) | (indices[:, 3:].sum(axis=1) == 0)
        return np.where(empty[:, None], 0, indices)

    def quality(self, indices, unit_rates):
        return self._shape(*self._by_layers(indices[:, 3:]), self._by_sizes(indices[:, :3]))

    def _by_layers(self, bits):
        return bits @ self._weights, (bits[:, 1:] * bits[:, :-1]) @ self._pairs_of_layers

    def _by_sizes(self, sizes):
        logs = _log(np.array(SIZES)[sizes])
        # beyond its best size each kind gains nothing more and then overfits
        gains = np.where(logs < self._best, logs / self._best, 1 - 0.6 * (logs - self._best))
        return gains @ self._shares + self._synergy * gains[:, 0] * gains[:, 1] * 0.5

    def _shape(self, single, pairs, sizes):
        strength = np.maximum(0.0, (single + pairs) * sizes)
        return LOWEST + (HIGHEST - LOWEST) * (1 - np.exp(-2.5 * strength))

    @cached_property
    def _reference(self):
        bits = np.array(np.unravel_index(np.arange(1, 2**self.layers), (2,) * self.layers)).T
        sizes = np.array(np.unravel_index(np.arange(1, 11**3), (11,) * 3)).T
        single, pairs = self._by_layers(bits)
        quality = self._shape(single[:, None], pairs[:, None], self._by_sizes(sizes)[None, :])
        return bits, sizes, quality

    def reference(self) -> float:
        return self._true_volume

    @cached_property
    def _true_volume(self):
        bits, sizes, quality = self._reference
        first = np.concatenate([sizes, np.repeat(np.eye(self.layers, dtype=int)[:1], len(sizes), axis=0)], axis=1)
        unit = self.costs(first)
        best: dict[int, float] = {}
        for count in range(1, self.layers + 1):
            top = quality[bits.sum(axis=1) == count].max(axis=0)
            for cost, value in zip((unit * count).tolist(), top.tolist(), strict=True):
                if cost <= self.budget:
                    best[cost] = max(best.get(cost, 0.0), value)
        costs, values = np.array(list(best)), np.array(list(best.values()))
        del self.__dict__["_reference"]
        return self._volume(values, Axis(self.smallest_cost, self.budget, True).minimised(costs))


class Three(Paper):
    """Six layers of the paper's space, with FLOPs as a third objective: prefixes train little and compute much."""

    name = "three"
    layers = 6
    budget = 300_000
    objectives = (QUALITY, COST, Objective(FLOPS, Direction.MINIMISE))

    def flops(self, indices):
        """Extra multiplications a token."""
        serial, parallel, prefix = (np.array(SIZES)[indices[:, i]] for i in range(3))
        return (1536 * serial + 1024 * parallel + 6144 * prefix + 500) * indices[:, 3:].sum(axis=1)

    @cached_property
    def _axis(self):
        return Axis(2_000.0, 6_000_000.0, True)

    @cached_property
    def demands(self) -> Demands:
        def flops(plan):
            return float(self.flops(np.array([plan.point[0]]))[0])

        return Demands(known={FLOPS: flops}, axes={FLOPS: self._axis})

    def observe(self, plans, start):
        flops = self.flops(self._indices([plan.point for plan in plans]))
        seen = super().observe(plans, start)
        return [Observation(o.configuration, {**o.values, FLOPS: float(f)}) for o, f in zip(seen, flops, strict=True)]

    def minimised(self, plans):
        heights, others = super().minimised(plans)
        flops = self._axis.minimised(self.flops(self._indices([plan.point for plan in plans])))
        return heights, np.column_stack([others, flops])

    @cached_property
    def _true_volume(self):
        bits, sizes, quality = self._reference
        rows = np.concatenate([np.tile(sizes, (len(bits), 1)), np.repeat(bits, len(sizes), axis=0)], axis=1)
        costs, values = self.costs(rows), quality.ravel()
        fits = costs <= self.budget
        cost = Axis(self.smallest_cost, self.budget, True).minimised(costs[fits])
        return self._volume(values[fits], cost, self._axis.minimised(self.flops(rows[fits])))


class Joint(Family):
    """Method, size and module of every layer, and a learning rate whose best value follows the cost."""

    name = "joint"
    layers = 12
    budget = 550_000
    sizes = (1, 2, 4, 8, 16, 32, 64, 128)
    learning_rate = Continuous("learning rate", 1e-4, 1e-2)
    categorical = frozenset(range(0, 36, 3))

    def invent(self) -> None:
        self.ordinals = tuple(
            Ordinal(f"layer {i} {what}", values)
            for i in range(self.layers)
            for what, values in (("method", (0, 1, 2)), ("size", self.sizes), ("module", (0, 1)))
        )
        self.smallest_plan = (2, *[0] * (3 * self.layers - 1))
        draw = self.generator
        importance = draw.dirichlet(np.full(self.layers, 0.7)) * self.layers
        kind = draw.uniform(0.5, 1.5, (1, 2, 2)) * draw.uniform(0.7, 1.3, (self.layers, 2, 2))
        saturation = draw.uniform(0.3, 0.9, (2, 2))
        grown = np.log2(1 + np.array(self.sizes)) / np.log2(129)
        self._gain = np.zeros((self.layers, 3, 8, 2))
        for method in range(2):
            for module in range(2):
                curve = 1 - np.exp(-3 * grown / saturation[method, module])
                self._gain[:, 1 + method, :, module] = (importance * kind[:, method, module])[:, None] * curve
        width = np.array([[2 * 2 * 768, 2 * (768 + 3072)], [2 * 768 + 1, 2 * 768 + 1 + 3072]])
        self._cost = np.zeros((3, 8, 2), dtype=np.int64)
        self._cost[1:] = width[:, None, :] * np.array(self.sizes)[None, :, None]
        self._bonus = np.zeros((self.layers, 3, 3))
        self._bonus[1:, 1:, 1:] = 0.3 * draw.normal(size=(self.layers - 1, 2, 2))

    def _table(self, indices):
        return np.moveaxis(indices.reshape(len(indices), self.layers, 3), 2, 0)

    def canonical(self, indices):
        table = indices.reshape(len(indices), self.layers, 3).copy()
        table[table[:, :, 0] == 0] = 0
        return table.reshape(len(indices), -1)

    def costs(self, indices):
        method, size, module = self._table(indices)
        return self._cost[method, size, module].sum(axis=1)

    def encode_features(self, indices):
        """For every layer the log size at each (method, module), the method one-hot, and log parameters."""
        method, size, module = self._table(self.canonical(indices))
        cells = [((method == a) & (module == b)) * (size + 1) / 8 for a in (1, 2) for b in (0, 1)]
        cost = np.log2(1 + self._cost[method, size, module]) / 20
        return np.concatenate([*cells, method == 1, method == 2, cost], axis=1, dtype=float)

    def quality(self, indices, unit_rates):
        method, size, module = self._table(indices)
        rows = np.arange(self.layers)
        strength = self._gain[rows, method, size, module].sum(axis=1)
        strength = strength + self._bonus[rows[1:], method[:, :-1], method[:, 1:]].sum(axis=1)
        cost = np.log(np.maximum(1, self.costs(indices))) / np.log(self.budget)
        return self._shape(strength) - 0.25 * (unit_rates - (1.1 - 0.7 * cost)) ** 2

    def _shape(self, strength):
        return LOWEST + (HIGHEST - LOWEST) * (1 - np.exp(-2.5 * np.maximum(0.0, strength) / self.layers))

    def reference(self) -> float:
        return self._true_volume

    @cached_property
    def _true_volume(self):
        """By dynamic programming over the layers: for every last method the best strengths by cost."""
        options = [
            (method, self._cost[method, size, module], size, module)
            for method in range(3)
            for size in range(8 if method else 1)
            for module in range(2 if method else 1)
        ]
        fronts = {0: (np.zeros(1, dtype=np.int64), np.zeros(1))}
        for layer in range(self.layers):
            grown: dict[int, list] = {0: [], 1: [], 2: []}
            for before, (costs, strengths) in fronts.items():
                for method, cost, size, module in options:
                    gain = self._gain[layer, method, size, module] + self._bonus[layer, before, method]
                    grown[method].append((costs + cost, strengths + gain))
            fronts = {method: _prune(parts, self.budget) for method, parts in grown.items()}
        costs, strengths = _prune(list(fronts.values()), self.budget)
        cost = Axis(self.smallest_cost, self.budget, True).minimised(costs[costs > 0])
        return self._volume(self._shape(strengths[costs > 0]), cost)


def _prune(parts, budget):
    """Costs and strengths of the front of ``parts``, within ``budget``."""
    costs = np.concatenate([costs for costs, _ in parts])
    strengths = np.concatenate([strengths for _, strengths in parts])
    keep = costs <= budget
    costs, strengths = costs[keep], strengths[keep]
    order = np.lexsort((-strengths, costs))
    costs, strengths = costs[order], strengths[order]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], strengths[:-1]]))
    return costs[strengths > best], strengths[strengths > best]


FAMILIES = {family.name: family for family in (Paper, Joint, Three)}
