"""An Optuna search space as the terrain that the search for the best point walks on.

A point holds one number a parameter, in the order of their names: the value of an int or float, the index of a choice.
A parameter that a trial did not ask for stands at its middle; conditions between parameters are not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autopeft.errors import ConfigurationError
from autopeft.pareto import Axis

Array = NDArray[np.float64]
Place = tuple[float, ...]
Params = Mapping[str, Any]
Figure = Callable[[dict[str, Any]], float]

STEPS = (-0.25, -0.1, -0.03, 0.03, 0.1, 0.25)
"""How far the neighbours of a numeric value lie, as shares of its range."""


@dataclass(frozen=True, slots=True)
class OptunaTerrain:
    """The parameters of a study, its exact objectives and its exact constraints; a ``Terrain``.

    Attributes:
        distributions: By name.
        objectives: Exact objectives, each with its axis.
        constraints: Feasible when ≤ 0.
    """

    distributions: Mapping[str, BaseDistribution]
    objectives: Sequence[tuple[Figure, Axis]] = ()
    constraints: Sequence[Figure] = ()
    _figures: dict[tuple[int, Place], float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the parameters, in the order of a point."""
        return sorted(self.distributions)

    def place(self, params: Params) -> Place:
        """The point of ``params``; what they lack stands at its middle."""
        return tuple(
            _internal(self.distributions[name], params[name])
            if name in params and self.distributions[name]._contains(_internal(self.distributions[name], params[name]))
            else _at(self.distributions[name], 0.5)
            for name in self.names
        )

    def params(self, place: Place) -> dict[str, Any]:
        """The parameters at ``place``, as an objective function sees them."""
        return {
            name: self.distributions[name].to_external_repr(value)
            for name, value in zip(self.names, place, strict=True)
        }

    @property
    def decisive(self) -> int:
        """None: nothing is known of a user's parameters."""
        return 0

    @property
    def growing(self) -> bool:
        """Along the first exact objective, if there is one."""
        return bool(self.objectives)

    def features(self, points: Sequence[Place]) -> Array:
        """As ``Terrain.features``: the exact objectives, numbers on their (log) range, choices one-hot."""
        columns: list[Array] = []
        for name, values in zip(self.names, np.array(points, dtype=float).T, strict=True):
            distribution = self.distributions[name]
            if isinstance(distribution, CategoricalDistribution):
                columns += [(values == index).astype(float) for index in range(len(distribution.choices))]
            else:
                columns.append(np.array([_unit(distribution, value) for value in values]))
        return np.column_stack([self.known(points), *columns])

    def known(self, points: Sequence[Place]) -> Array:
        """As ``Terrain.known``."""
        columns = [
            axis.minimised([self._figure(index, figure, point) for point in points])
            for index, (figure, axis) in enumerate(self.objectives)
        ]
        return np.column_stack([np.empty((len(points), 0)), *columns])

    def feasible(self, points: Sequence[Place]) -> NDArray[np.bool_]:
        """As ``Terrain.feasible``."""
        return np.array(
            [
                all(self._figure(-1 - index, figure, point) <= 0 for index, figure in enumerate(self.constraints))
                for point in points
            ],
            dtype=bool,
        )

    def worth(self, points: Sequence[Place]) -> Array:
        """Every point is worth its gain, shape [n]."""
        return np.ones(len(points))

    def near(self, point: Place, generator: np.random.Generator) -> list[Place]:
        """Every other choice, the next whole numbers, and some other values of every number."""
        places: list[Place] = []
        for position, name in enumerate(self.names):
            values = _near(self.distributions[name], point[position], generator)
            places += [(*point[:position], value, *point[position + 1 :]) for value in values]
        return places

    def scattered(self, count: int, generator: np.random.Generator) -> list[Place]:
        """``count`` random points."""
        return self.spread(generator.random((count, len(self.distributions))))

    def spread(self, units: Array) -> list[Place]:
        """The points at ``units`` of the unit cube, shape [n, parameters]."""
        distributions = [self.distributions[name] for name in self.names]
        return [tuple(_at(d, u) for d, u in zip(distributions, row, strict=True)) for row in units.tolist()]

    def _figure(self, index: int, figure: Figure, point: Place) -> float:
        """A figure of the user's, asked for once a point.

        Raises:
            ConfigurationError: If an exact objective is not finite, or a constraint is not a number.
        """
        if (index, point) not in self._figures:
            value = float(figure(self.params(point)))
            if math.isnan(value) or (index >= 0 and math.isinf(value)):
                what, wanted = ("a constraint", "a number") if index < 0 else ("a known objective", "a finite number")
                raise ConfigurationError(f"{what} gave {value} for {self.params(point)}: expected {wanted} everywhere")
            self._figures[index, point] = value
        return self._figures[index, point]


def _internal(distribution: BaseDistribution, value: Any) -> float:
    return float(distribution.to_internal_repr(value))


def _ends(distribution: BaseDistribution) -> tuple[float, float, float]:
    """Low and high end on the scale that is searched, and how much of a step's room lies beyond them."""
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(low), math.log(high), 0.0
    step = distribution.step or 0.0
    return low, high, step / 2


def _unit(distribution: BaseDistribution, value: float) -> float:
    low, high, _ = _ends(distribution)
    value = math.log(value) if distribution.log else value
    return (value - low) / (high - low) if high > low else 0.5


def _at(distribution: BaseDistribution, unit: float) -> float:
    """The value at ``unit`` in [0, 1], rounded to the distribution's steps."""
    if isinstance(distribution, CategoricalDistribution):
        return float(min(len(distribution.choices) - 1, int(unit * len(distribution.choices))))
    low, high, room = _ends(distribution)
    value = low - room + (high - low + 2 * room) * min(1.0, max(0.0, unit))
    value = math.exp(value) if distribution.log else value
    step = distribution.step or (1 if isinstance(distribution, IntDistribution) else None)
    if step:
        value = distribution.low + round((value - distribution.low) / step) * step
    return float(min(distribution.high, max(distribution.low, value)))


def _near(distribution: BaseDistribution, value: float, generator: np.random.Generator) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        return [float(index) for index in range(len(distribution.choices)) if index != value]
    unit = _unit(distribution, value)
    values = {_at(distribution, unit + step * generator.uniform(0.5, 1.5)) for step in STEPS}
    if distribution.step:
        near = (value - distribution.step, value + distribution.step)
        values |= {step for step in near if distribution.low <= step <= distribution.high}
    return sorted(values - {value})
