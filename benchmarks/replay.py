"""Replay of real trials: a table of trained configurations with their measured quality, as a family to search in.

    python benchmarks/replay.py collect --database URL --study NAME [--study NAME …] --output table.json

``collect`` writes what complete trials of a study measured (several studies: the same space and task). A search on the
table is answered by its rows: whatever is proposed becomes the nearest row that was not asked for yet, and repeats of a
row are drawn from its measurements. The best reachable front is that of the rows' means.
"""

# ruff: noqa: D102 - the methods are those of SearchSpace
from __future__ import annotations

import argparse
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from known_front import QUALITY, Family, Plan

from autopeft.pareto import Scale
from autopeft.study import PARAMETERS, Observation, Study, TrialState
from search_spaces.configuration import Configuration


class TableFamily(Family):
    """The rows of a table, with the coordinates of the space they came from.

    Args:
        seed: Of the search.
        noise: Standard deviation added to a row's quality; 0 for the measured value as it is.
        path: The table.
    """

    name = "replay"

    def __init__(self, seed: int, noise: float, path: Path) -> None:
        table = json.loads(path.read_text())
        self.study = Study.from_json(table["study"])
        self.space = self.study.search_space
        self.rows: dict = {}
        for row in table["trials"]:
            point = self.space.encode(Configuration.from_json(row["configuration"]))
            if row["values"][PARAMETERS] <= self.study.budget.parameters:
                self.rows.setdefault(point, []).append(row["values"][self.study.metric])
        self.points = sorted(self.rows)
        self.table_features = self.space.point_features(self.points)
        super().__init__(seed, noise)

    def invent(self) -> None:
        """Takes the coordinates of the space."""
        self.ordinals, self.learning_rate = self.space.ordinals, self.space.learning_rate
        self.budget = self.study.budget.parameters

    @cached_property
    def scale(self) -> Scale:
        smallest = int(self.space.point_costs(self.points).min())
        return Scale(self.study.quality_floor, smallest, self.budget)

    def _nearest(self, point):
        if point in self.rows:
            return point
        distances = ((self.table_features - self.space.point_features([point])) ** 2).sum(axis=1)
        return self.points[int(np.argmin(distances))]

    def decode(self, point):
        return Plan(self._nearest(point))

    def point_features(self, points):
        return self.space.point_features(points)

    def point_costs(self, points):
        return self.space.point_costs([self._nearest(point) for point in points])

    def place_points(self, units, budget):
        return [self._nearest(point) for point in self.space.place_points(units, budget)]

    def neighbour_points(self, point, generator):
        here = self.space.point_features([self._nearest(point)])
        order = np.argsort(((self.table_features - here) ** 2).sum(axis=1), kind="stable")
        return [self.points[index] for index in order[1:33]]

    def points_within(self, budget):
        return iter(self.points)

    def true_values(self, plans):
        return np.array([np.mean(self.rows[plan.point]) for plan in plans])

    def observe(self, plans, start):
        noise = np.random.default_rng([self.seed, start, 77]).standard_normal(len(plans)) * self.noise
        costs = self.point_costs([plan.point for plan in plans])
        return [
            Observation(plan, {QUALITY.name: float(v), PARAMETERS: float(c)})
            for plan, v, c in zip(plans, self.true_values(plans) + noise, costs, strict=True)
        ]

    def minimised(self, plans):
        floor = self.study.quality_floor
        _, others = super().minimised(plans)
        return (self.true_values(plans) - floor) / (1 - floor), others

    def reference(self) -> float:
        return self._true_volume

    @cached_property
    def _true_volume(self) -> float:
        from autopeft.optimizer.acquisition import Cells

        return Cells(*self.minimised([Plan(point) for point in self.points])).volume()


def collect(url: str, studies: list[str], output: Path) -> int:
    """Writes the complete trials of ``studies`` to ``output``; returns how many."""
    from autopeft.store import Reader

    trials, first = [], None
    with Reader.open(url) as reader:
        for name in studies:
            study = reader.study(name)
            first = first or study
            for trial in reader.trials(name):
                inside = trial.state is TrialState.COMPLETE and not trial.configuration.is_empty
                if inside and _holds(study, trial.configuration):
                    row = {"configuration": trial.configuration.to_json(), "values": dict(trial.values)}
                    trials.append(row | {"replicate": trial.replicate})
    assert first is not None
    output.write_text(json.dumps({"study": first.to_json(), "trials": trials}, indent=1))
    return len(trials)


def _holds(study: Study, configuration: Configuration) -> bool:
    from autopeft.errors import ConfigurationError

    try:
        study.search_space.encode(configuration)
    except ConfigurationError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("collect",))
    parser.add_argument("--database", required=True)
    parser.add_argument("--study", action="append", required=True)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    print(collect(arguments.database, arguments.study, arguments.output), "trials")


if __name__ == "__main__":
    main()
