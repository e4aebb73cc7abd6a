"""Replay of real trials: a table of trained configurations with their measured quality, as a family to search in.

    python benchmarks/replay.py train --task aspects --space layerwise --trials 80 --output table.json
    python benchmarks/replay.py collect --database URL --study NAME [--study NAME …] --output table.json
    python benchmarks/optimizer.py run --families table.json --noise 0 --initial 10 --trials 50

``train`` makes a table: one resident backbone, one data order; sobol, closed-form, nsga2, tpe and evolution propose in
turn, each from all that was measured, so that the table is nobody's; at the end some rows are trained again with other
data orders. It goes on where it stopped. ``collect`` writes what complete trials of a study measured (several studies:
the same space and task). ``replay-*.json`` beside this file were made by ``train``.

A search on the table is answered by its rows: whatever is proposed becomes the nearest row, which counts as proposed
again if it was asked for, and repeats of a row count by their mean. The best reachable front is that of these means.
"""

# ruff: noqa: D102 - the methods are those of SearchSpace
from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from known_front import QUALITY, Family, Plan

from autopeft.optimizer import make_proposer
from autopeft.optimizer.proposer import point_in
from autopeft.pareto import Scale
from autopeft.scales import scale
from autopeft.study import PARAMETERS, Observation, Study, TrialState
from search_spaces.configuration import Configuration

TURNS = ("sobol", "closed-form", "nsga2", "tpe", "evolution")
START = 20
"""Sobol rows before the learning proposers take their turns."""


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
            if row["values"][PARAMETERS] <= self.study.budget.parameters:
                self.rows.setdefault(point_of(row), []).append(row["values"][self.study.metric])
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


def point_of(row: dict):
    """The point of a row of a table."""
    indices, rate = row["point"]
    return tuple(indices), rate


def train(arguments: argparse.Namespace) -> None:
    """Trains what is not in the table yet; it is whole after every trial."""
    import torch

    from workers.backbones import load_resident

    torch.set_num_threads(1)
    study = _study_of(arguments)
    space, path = study.search_space, arguments.output
    rows = json.loads(path.read_text())["trials"] if path.exists() else []
    resident = load_resident(study, torch.device("cpu"))
    while len(rows) < arguments.trials:
        plan = _next_plan(study, rows)
        rows.append(_trained(study, resident, plan, 0))
        _write(path, study, rows)
    # of rows of every quality, the best one among them
    by_quality = sorted(rows[: arguments.trials], key=lambda row: -row["values"][study.metric])
    again = [(row, k) for row in by_quality[:: max(1, arguments.trials // arguments.repeated)] for k in (1, 2)]
    for row, replicate in again[len(rows) - arguments.trials :]:
        rows.append(_trained(study, resident, space.decode(point_of(row)), replicate))
        _write(path, study, rows)


def _study_of(arguments: argparse.Namespace) -> Study:
    from autopeft.api import prepare
    from autopeft.settings import SearchSettings

    sizes = {"steps": arguments.steps, "batch_size": 16, "validation_rows": arguments.validation_rows}
    sizes["max_length"] = arguments.max_length
    settings = SearchSettings(task=arguments.task, space=arguments.space, trials=arguments.trials, cache="off", **sizes)
    return prepare(settings, []).study


def _next_plan(study: Study, rows: list[dict]) -> Configuration:
    """What the proposer whose turn it is makes of all rows so far."""
    space = study.search_space
    seen = [Observation(space.decode(point_of(row)), row["values"]) for row in rows]
    proposer = make_proposer(TURNS[len(rows) % len(TURNS)], START, study.seed)
    generator = np.random.default_rng([study.seed, len(rows)])
    return proposer.propose(space, scale(study), study.objectives, seen, [], 1, generator)[0]


def _trained(study: Study, resident, plan: Configuration, replicate: int) -> dict:
    from autopeft.errors import DivergedError
    from autopeft.study import Order
    from workers.evaluate import evaluate

    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            quality = evaluate(Order(0, 1, 0, study, plan, replicate, 0), resident, Path(folder)).values[study.metric]
        except DivergedError:
            quality = study.quality_floor
    values = {study.metric: round(quality, 6), PARAMETERS: study.search_space.cost(plan)}
    row = {"point": study.search_space.encode(plan), "values": values, "replicate": replicate}
    print(row["values"], f"{time.process_time() - started:.1f} CPU seconds", flush=True)
    return row


def _write(path: Path, study: Study, rows: list[dict]) -> None:
    """The table, a line a trial; of a task's path only the name."""
    study = replace(study, task={**study.task, "source": Path(study.task["source"]).name})
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = f'{{"study": {json.dumps(study.to_json())},\n"trials": [\n{lines}\n]}}\n'
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def collect(arguments: argparse.Namespace) -> None:
    """Writes the complete trials of studies in a database."""
    from autopeft.store import Reader

    rows, first = [], None
    with Reader.open(arguments.database) as reader:
        for name in arguments.study:
            study = reader.study(name)
            first = first or study
            for trial in reader.trials(name):
                inside = trial.state is TrialState.COMPLETE and not trial.configuration.is_empty
                if inside and (point := point_in(study.search_space, trial.configuration)) is not None:
                    rows.append({"point": point, "values": dict(trial.values), "replicate": trial.replicate})
    assert first is not None
    _write(arguments.output, first, rows)
    print(len(rows), "trials")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.set_defaults(run=train)
    training.add_argument("--task", required=True)
    training.add_argument("--space", required=True)
    training.add_argument("--trials", type=int, default=80)
    training.add_argument("--steps", type=int, default=60)
    training.add_argument("--validation-rows", type=int, default=400)
    training.add_argument("--max-length", type=int)
    training.add_argument("--repeated", type=int, default=8, help="rows trained twice more")
    training.add_argument("--output", required=True, type=Path)
    collecting = commands.add_parser("collect")
    collecting.set_defaults(run=collect)
    collecting.add_argument("--database", required=True)
    collecting.add_argument("--study", action="append", required=True)
    collecting.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
