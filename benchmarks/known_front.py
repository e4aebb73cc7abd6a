"""What a problem with a known front is: stands in for a ``SearchSpace`` and knows the noiseless quality of every point.

The point API and the coordinates are those of ``search_spaces.space.SearchSpace``; the families themselves stand in
``problem_families``.
"""

# ruff: noqa: D102 - the methods are those of SearchSpace
from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from autopeft.optimizer.acquisition import Cells
from autopeft.optimizer.demands import Demands
from autopeft.pareto import Axis, Scale
from autopeft.study import PARAMETERS, Direction, Objective, Observation
from search_spaces.dimensions import Continuous, Ordinal, significant
from search_spaces.errors import ConfigurationError

FLOOR, LOWEST, HIGHEST = 0.5, 0.55, 0.92
FLOPS = "forward_flops"
QUALITY, COST = Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)


@dataclass(frozen=True, slots=True)
class Plan:
    """A point of a family, in the place of a configuration."""

    point: tuple[tuple[int, ...], float]

    @property
    def digest(self) -> str:
        """Equal for equal plans."""
        return hashlib.sha256(repr(self.point).encode()).hexdigest()


@dataclass
class Family:
    """A space with a known quality.

    Attributes:
        seed: Draws the problem.
        noise: Standard deviation of a measured quality.
    """

    seed: int
    noise: float
    generator: np.random.Generator = field(init=False)
    name = ""
    learning_rate = Continuous("learning rate", 1e-3, 1e-3)
    categorical: frozenset[int] = frozenset()
    objectives: tuple[Objective, ...] = (QUALITY, COST)
    budget = 0

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng([self.seed, len(self.name)])
        self.invent()

    # what a family says

    ordinals: tuple[Ordinal, ...] = ()

    def invent(self) -> None:
        """Draws the numbers of the problem."""

    def costs(self, indices):
        """Trained parameters, shape [n], for indices [n, k]."""
        raise NotImplementedError

    def quality(self, indices, unit_rates):
        """Noiseless quality, shape [n]."""
        raise NotImplementedError

    def reference(self) -> float:
        """Hypervolume of the true front."""
        raise NotImplementedError

    def canonical(self, indices):
        """Indices with what has no effect set to 0."""
        return indices

    def encode_features(self, indices):
        """Log sizes, shape [n, k]."""
        columns = [
            np.array([o.feature(v) for v in o.values])[column]
            for o, column in zip(self.ordinals, indices.T, strict=True)
        ]
        return np.column_stack(columns)

    # the point API of a search space

    @property
    def dimension_count(self) -> int:
        return len(self.ordinals) + 1

    @cached_property
    def _tops(self):
        return np.array([len(o.values) - 1 for o in self.ordinals])

    smallest_plan: tuple[int, ...] = ()

    @cached_property
    def smallest_cost(self) -> int:
        return int(self.costs(np.array([self.smallest_plan]))[0])

    @cached_property
    def scale(self) -> Scale:
        return Scale(FLOOR, self.smallest_cost, self.budget)

    def _indices(self, points):
        return np.array([point[0] for point in points]).reshape(len(points), len(self.ordinals))

    def _unit_rates(self, points):
        return np.array([self.learning_rate.feature(point[1]) for point in points])

    def encode(self, plan):
        return plan.point

    def decode(self, point):
        indices = self.canonical(self._indices([point]))
        if not self.costs(indices)[0]:
            raise ConfigurationError("the empty plan is in no space")
        return Plan((tuple(indices[0].tolist()), point[1]))

    def point_features(self, points):
        return np.column_stack([self.encode_features(self._indices(points)), self._unit_rates(points)])

    def point_costs(self, points):
        return self.costs(self.canonical(self._indices(points)))

    def place_points(self, units, budget):
        """Uniform coordinates, bent towards 0 until they cost at most a log-uniform target."""
        targets = self.smallest_cost * (budget / self.smallest_cost) ** units[:, :1]
        low, high = np.full((len(units), 1), 0.2), np.full((len(units), 1), 40.0)
        for _ in range(9):
            middle = np.sqrt(low * high)
            fits = self.costs(self._bent(units, middle))[:, None] <= targets
            low, high = np.where(fits, low, middle), np.where(fits, middle, high)
        rows = self._bent(units, high)
        empty = self.costs(rows) == 0
        rows[empty] = self.smallest_plan
        rates = [significant(self.learning_rate.at(unit)) for unit in units[:, -1]]
        return [(tuple(row), rate) for row, rate in zip(rows.tolist(), rates, strict=True)]

    def anchors(self, budget):
        return []

    def _bent(self, units, power):
        return self.canonical(np.minimum(self._tops, ((self._tops + 1) * units[:, 1:-1] ** power).astype(int)))

    def neighbour_points(self, point, generator):
        indices, rate = point
        rows = []
        for position, top in enumerate(self._tops):
            here = indices[position]
            near = range(top + 1) if position in self.categorical else (0, here - 1, here + 1)
            rows += [(*indices[:position], i, *indices[position + 1 :]) for i in near if 0 <= i <= top and i != here]
        table = self.canonical(np.array(rows))
        near = {(tuple(row), rate) for row in table[self.costs(table) > 0].tolist()}
        if self.learning_rate.low < self.learning_rate.high:
            steps = self.learning_rate.feature(rate) + np.array([-0.25, -0.1, 0.1, 0.25]) * generator.uniform(
                0.5, 1.5, 4
            )
            near |= {(indices, significant(self.learning_rate.at(float(step)))) for step in steps}
        return sorted(near - {point})

    def points_within(self, budget):
        return iter(())

    # judging

    @property
    def demands(self) -> Demands:
        return Demands()

    def true_values(self, plans):
        """Noiseless quality of ``plans``, shape [n]."""
        points = [plan.point for plan in plans]
        return self.quality(self._indices(points), self._unit_rates(points))

    def observe(self, plans, start):
        """Measured values; the noise depends on the place in the search only."""
        noise = np.random.default_rng([self.seed, start, 77]).standard_normal(len(plans)) * self.noise
        values = np.minimum(1.0, self.true_values(plans) + noise)
        return [
            Observation(plan, {QUALITY.name: float(v), PARAMETERS: float(self.point_costs([plan.point])[0])})
            for plan, v in zip(plans, values, strict=True)
        ]

    def minimised(self, plans):
        """Heights and other objectives on their axes."""
        scale = self.scale
        costs = self.point_costs([plan.point for plan in plans])
        heights = (self.true_values(plans) - FLOOR) / (1 - FLOOR)
        return heights, Axis(scale.cost_floor, scale.cost_ceiling, True).minimised(costs)[:, None]

    def volumes(self, plans) -> list[float]:
        """Share of the true front's hypervolume that the first n plans reach, for every n."""
        heights, others = self.minimised(plans)
        best = self.reference()
        return [round(Cells(heights[:n], others[:n]).volume() / best, 5) for n in range(1, len(plans) + 1)]

    def _volume(self, quality, *columns):
        keep = undominated((quality - FLOOR) / (1 - FLOOR), np.column_stack(columns))
        return Cells((quality[keep] - FLOOR) / (1 - FLOOR), np.column_stack(columns)[keep]).volume()


def undominated(heights, others):
    """Indices of the front, by sorting on the first cost and a running check."""
    order = np.lexsort((-heights, *others.T[::-1]))
    members: list[int] = []
    for index in order:
        kept = np.array(members, dtype=int)
        if not np.any((heights[kept] >= heights[index]) & (others[kept] <= others[index]).all(axis=1)):
            members.append(int(index))
    return members
