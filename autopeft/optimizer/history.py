"""Observations as numbers: every objective on its axis, for each distinct point of a space.

The one place of the optimizer that reads names and directions; everything behind it sees minimised axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.errors import ConfigurationError
from autopeft.optimizer.demands import Demands
from autopeft.optimizer.proposer import point_in
from autopeft.pareto import Axis, Scale
from autopeft.study import PARAMETERS, Direction, Objective, Observation
from search_spaces.configuration import Configuration
from search_spaces.space import Point, SearchSpace

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aims:
    """The objectives in the order that the acquisition wants: quality, the exact ones, the learned ones.

    Attributes:
        quality: Name of the first objective.
        known: Names of the exact ones.
        learned: Names of the other learned ones.
        axes: Axis of every one by name.
        limits: Measured limits by name.
    """

    quality: str
    known: tuple[str, ...]
    learned: tuple[str, ...]
    axes: dict[str, Axis]
    limits: dict[str, float]

    @classmethod
    def of(cls, objectives: Sequence[Objective], scale: Scale, demands: Demands) -> Aims:
        """The aims behind ``objectives``.

        Raises:
            ConfigurationError: If the first is not to be maximised, or a further one has no axis or one that runs
                against its direction.
        """
        if not objectives or objectives[0].direction is not Direction.MAXIMISE:
            got = ", ".join(f"{objective.name} ({objective.direction})" for objective in objectives) or "none"
            raise ConfigurationError(
                f"got the objectives {got}; expected a quality to maximise, then costs to minimise"
            )
        quality, *rest = objectives
        axes = {quality.name: scale.quality}
        for objective in rest:
            axes[objective.name] = _axis(objective, scale, demands)
        exact = (PARAMETERS, *demands.known)
        return cls(
            quality.name,
            tuple(objective.name for objective in rest if objective.name in exact),
            tuple(objective.name for objective in rest if objective.name not in exact),
            axes,
            {name: limit for name, limit in demands.limits.items() if name not in exact},
        )


def _axis(objective: Objective, scale: Scale, demands: Demands) -> Axis:
    if objective.name in demands.axes:
        axis = demands.axes[objective.name]
        if (axis.best > axis.worst) != (objective.direction is Direction.MAXIMISE):
            raise ConfigurationError(
                f"objective {objective.name} is to {objective.direction}: its axis runs from best {axis.best} to "
                f"worst {axis.worst}; exchange them"
            )
        return axis
    if objective.name == PARAMETERS and objective.direction is Direction.MINIMISE:
        return scale.cost
    raise ConfigurationError(
        f"objective {objective.name} ({objective.direction}): no axis is known for it; give its best and its worst "
        "value in the demands, or trade off a quality to maximise and trained parameters to minimise"
    )


@dataclass(frozen=True, slots=True)
class History:
    """What has been seen and what is waited for, all of it in the space.

    Attributes:
        space: Where the points are.
        scale: Box of the hypervolume.
        aims: The objectives.
        demands: Limits and hints.
        observations: Finished points that the space holds.
        points: The point of each observation.
        pending: Points that are waited for or failed.
    """

    space: SearchSpace
    scale: Scale
    aims: Aims
    demands: Demands
    observations: tuple[Observation, ...]
    points: tuple[Point, ...]
    pending: tuple[Point, ...]

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        scale: Scale,
        objectives: Sequence[Objective],
        observations: Sequence[Observation],
        pending: Sequence[Configuration],
        demands: Demands,
    ) -> History:
        """The history of these arguments of ``Proposer.propose``; what is outside the space is left out."""
        aims = Aims.of(objectives, scale, demands)
        placed = [(seen, point_in(space, seen.configuration)) for seen in observations]
        usable = [(seen, point) for seen, point in placed if point is not None and aims.quality in seen.values]
        waiting = [point_in(space, configuration) for configuration in pending]
        return cls(
            space,
            scale,
            aims,
            demands,
            tuple(seen for seen, _ in usable),
            tuple(point for _, point in usable),
            tuple(point for point in waiting if point is not None),
        )

    def exact(self, points: Sequence[Point], names: Sequence[str]) -> Array:
        """Exact figures as they are, shape [n, len(names)]."""
        columns = np.empty((len(points), len(names)))
        others = [name for name in names if name != PARAMETERS]
        plans = [self.space.decode(point) for point in points] if others else []
        for column, name in enumerate(names):
            if name == PARAMETERS:
                columns[:, column] = self.space.point_costs(points)
            else:
                columns[:, column] = [self.demands.known[name](plan) for plan in plans]
        return columns

    def cost(self, points: Sequence[Point]) -> Array:
        """The trained parameters of ``points`` on their axis, shape [n], whether they are an objective or not."""
        return self.scale.cost.minimised(self.space.point_costs(points).astype(np.float64))

    def known(self, points: Sequence[Point]) -> Array:
        """The exact objectives of ``points`` on their axes, shape [n, e]."""
        values = self.exact(points, self.aims.known)
        for column, name in enumerate(self.aims.known):
            values[:, column] = self.aims.axes[name].minimised(values[:, column])
        return values

    def measured(self, name: str) -> list[float]:
        """The values of ``name`` in the observations; nan where one lacks it."""
        return [float(seen.values.get(name, np.nan)) for seen in self.observations]

    def minimised(self) -> tuple[NDArray[np.int64], Array]:
        """Rows that have every objective, and their objectives on their axes: quality, exact, learned; shape [k, m]."""
        names = (self.aims.quality, *self.aims.learned)
        columns = [self.aims.axes[name].minimised(self.measured(name)) for name in names]
        values = np.column_stack([columns[0], self.known(self.points), *columns[1:]])
        rows = np.flatnonzero(np.isfinite(values).all(axis=1))
        return rows, values[rows]

    def keeps_measured_limits(self) -> NDArray[np.bool_]:
        """For every observation whether it keeps the measured limits; one that lacks a figure does."""
        keeps = np.ones(len(self.observations), dtype=bool)
        for name, limit in self.aims.limits.items():
            keeps &= ~(np.array(self.measured(name)) > limit)
        return keeps
