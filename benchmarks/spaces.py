"""Which space finds better fronts in few trials? Small real searches, the same number of trials and steps in each.

    python benchmarks/spaces.py run --results spaces.jsonl --spaces layerwise joint mola --seeds 0 1 2
    python benchmarks/spaces.py table --results spaces.jsonl          prints what is there, as Markdown

One line of JSON a trial. Searches run in this process, without control, on one resident backbone; one that was stopped
goes on where it stood. Hypervolume: on one box for all spaces, from the majority class to 1 and, on a log scale, from
the smallest plan of any of them to the budget. Differences are paired by seed: one seed has the same data order and the
same Sobol scrambling in every space.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from autopeft.api import as_guided, prepare
from autopeft.asking import demands
from autopeft.errors import DivergedError
from autopeft.optimizer import make_proposer
from autopeft.pareto import Scale, hypervolume
from autopeft.settings import SearchSettings
from autopeft.study import PARAMETERS, Observation, Order
from search_spaces.configuration import Configuration
from workers.backbones import load_resident
from workers.evaluate import evaluate

SHARES = (0.0001, 0.0003, 0.001, 0.005)
"""Budgets at which the best trial is looked up, as fractions of the backbone."""


def study_of(arguments, space, seed):
    given = {"task": arguments.task, "space": space, "seed": seed, "trials": arguments.trials, "cache": "off"}
    sizes = {"steps": arguments.steps, "batch_size": arguments.batch_size, "train_rows": arguments.train_rows}
    settings = SearchSettings(**given, **sizes, validation_rows=arguments.validation_rows, prior=arguments.prior)
    return as_guided(prepare(settings, []).study, settings, "")


def search(study, resident, seen, record):
    """Goes on from the trials in ``seen`` to the study's target; ``record`` gets every new one."""
    space = study.search_space
    scale = Scale(study.quality_floor, space.smallest_cost, study.budget.parameters)
    proposer = make_proposer(study.proposer, study.initial_count, study.seed)
    observations = [
        Observation(
            Configuration.from_json(row["configuration"]), {study.metric: row["quality"], PARAMETERS: row["cost"]}
        )
        for row in seen
    ]
    while len(observations) < study.trials:
        generator = np.random.default_rng([study.seed, len(observations)])
        plans = proposer.propose(space, scale, study.objectives, observations, [], 1, generator, demands(study, []))
        if not plans:
            return
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            order = Order(len(observations), 1, len(observations), study, plans[0], 0, 0)
            try:
                quality = evaluate(order, resident, Path(folder)).values[study.metric]
            except DivergedError:
                quality = study.quality_floor
        cost = space.cost(plans[0])
        record(plans[0], quality, cost, time.process_time() - started)
        observations.append(Observation(plans[0], {study.metric: quality, PARAMETERS: float(cost)}))


def run(arguments):
    rows = read(arguments.results)
    resident = None
    for seed in arguments.seeds:
        for space in arguments.spaces:
            study = study_of(arguments, space, seed)
            name = space if arguments.prior is None else f"{space}, prior {Path(arguments.prior).stem}"
            key = {"task": study.task_name, "space": name, "seed": seed, "steps": study.fidelity.steps}
            seen = [row for row in rows if {name: row[name] for name in key} == key]
            if len(seen) >= study.trials:
                continue
            resident = resident or load_resident(study, torch.device("cpu"))

            def record(plan, quality, cost, seconds, study=study, key=key):
                floor, budget = study.quality_floor, study.budget.parameters
                line = {**key, "quality": quality, "cost": cost, "floor": floor, "budget": budget}
                line |= {"smallest": study.search_space.smallest_cost, "backbone": study.backbone.parameter_count}
                line |= {"cpu_seconds": round(seconds, 2), "configuration": plan.to_json()}
                with arguments.results.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")

            search(study, resident, seen, record)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def figures(rows, smallest):
    """Hypervolume and the best quality within each of ``SHARES``, of one search."""
    first = rows[0]
    scale = Scale(first["floor"], smallest, first["budget"])
    found = {"hypervolume": hypervolume([(row["quality"], row["cost"]) for row in rows], scale)}
    for share in SHARES:
        within = [row["quality"] for row in rows if row["cost"] <= share * first["backbone"]]
        found[f"best within {share:.2%}"] = max(within, default=first["floor"])
    return found


def table(arguments):
    by_task = defaultdict(lambda: defaultdict(list))
    for row in read(arguments.results):
        by_task[row["task"], row["steps"]][row["space"], row["seed"]].append(row)
    for (task, steps), searches in by_task.items():
        count = max(len(rows) for rows in searches.values())
        whole = {key: rows for key, rows in searches.items() if len(rows) == count}
        smallest = min(rows[0]["smallest"] for rows in whole.values())
        found = {key: figures(rows, smallest) for key, rows in whole.items()}
        names = list(next(iter(found.values())))
        print(f"\n{task}, {steps} steps, {count} trials\n\n| space (seeds) | {' | '.join(names)} | CPU s a trial |")
        print("|---" * (len(names) + 2) + "|")
        for space in dict.fromkeys(space for space, _ in found):
            seeds = [seed for name, seed in found if name == space]
            cells = [spread([found[space, seed][name] for seed in seeds]) for name in names]
            seconds = statistics.fmean(row["cpu_seconds"] for seed in seeds for row in whole[space, seed])
            print(f"| {space} ({len(seeds)}) | {' | '.join(cells)} | {seconds:.1f} |")
        print_differences(found, names)


def print_differences(found, names):
    """Each space less the first one, paired by seed."""
    spaces = list(dict.fromkeys(space for space, _ in found))
    for space in spaces[1:]:
        shared = [seed for name, seed in found if name == space and (spaces[0], seed) in found]
        if len(shared) > 1:
            cells = [spread([found[space, s][n] - found[spaces[0], s][n] for s in shared], sign="+") for n in names]
            print(f"| {space} − {spaces[0]} ({len(shared)}) | {' | '.join(cells)} | |")


def spread(values, sign=""):
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    return f"{mean:{sign}.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--task", default="aspects")
    parser.add_argument("--spaces", nargs="+", default=["layerwise", "joint", "mola"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--train-rows", type=int, default=None)
    parser.add_argument("--validation-rows", type=int, default=300)
    parser.add_argument("--prior", default=None, help="JSON file of scores")
    arguments = parser.parse_args()
    (run if arguments.command == "run" else table)(arguments)


if __name__ == "__main__":
    main()
