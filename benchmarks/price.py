"""How well the price of a trial is known before it runs: the trials of a real search against the predictions.

    python benchmarks/price.py [--trials 24] [--steps 24] [--task aspects] [--space layerwise] [--output price.json]
    python benchmarks/price.py --of price.json

Searches in this process: the head-only reference, the control, then what the study's own proposer proposes, and prints
the relative error of the predicted seconds: from the calibration that ``autopeft search --dry-run`` makes, of each
trial from those before it, and of the time that is left after five trials. Seconds are CPU seconds of this process, so
that other load on the machine does not matter; set OMP_NUM_THREADS=1. ``--of`` reads what ``--output`` wrote.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from autopeft import asking, control
from autopeft.api import prepare
from autopeft.optimizer import make_proposer
from autopeft.pace import eta_seconds
from autopeft.price import Measured, Prices, calibration_plans, from_trials
from autopeft.scales import scale
from autopeft.settings import SearchSettings
from autopeft.study import Order, Origin, Proposal, Study, Trial, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.cost import frozen_layer_count
from workers import evaluate as evaluating
from workers.backbones import Resident, load_resident
from workers.timing import measure

KNOWN = 5
"""Trials after which the time that is left is asked for."""


def searched(study: Study, resident: Resident, folder: Path) -> Iterator[Trial]:
    """The trials of a search of ``study`` by one worker, in their order."""
    proposer = make_proposer(study.proposer, study.initial_count, study.seed)
    head = Configuration((LayerPlan(),) * study.backbone.layer_count, Training(study.control_learning_rate))
    waiting = [Proposal(head, Origin.REFERENCE)]
    waiting += [Proposal(plan, Origin.CONTROL) for plan in control.sizes(study).values()]
    total = len(waiting) + study.trials
    trials: list[Trial] = []
    while len(trials) < total:
        if not waiting:
            plans = proposer.propose(
                study.search_space,
                scale(study),
                study.objectives,
                asking.observations(study, trials),
                [],
                1,
                np.random.default_rng([study.seed, len(trials)]),
                asking.demands(study, trials),
            )
            waiting = asking.proposals(plans, trials, Origin.MODEL)
        trial = trained(study, resident, folder, len(trials), waiting.pop(0))
        trials.append(trial)
        yield trial


def trained(study: Study, resident: Resident, folder: Path, number: int, proposal: Proposal) -> Trial:
    plan, top = proposal.configuration, study.fidelity.top
    order = Order(number, 1, number, study, plan, proposal.replicate, top)
    values = evaluating.evaluate(order, resident, folder).values
    return complete(number, plan, proposal.origin, proposal.replicate, values)


def complete(number: int, plan: Configuration, origin: Origin, replicate: int, values: dict[str, float]) -> Trial:
    state = TrialState.COMPLETE
    return Trial(number, plan, plan.digest, state, origin, None, replicate, 1, 1, None, values, None)


def seconds(trial: Trial) -> float:
    return trial.values["train_seconds"] + trial.values["evaluate_seconds"]


def told(what: str, errors: Sequence[float]) -> None:
    off = np.array(errors)
    print(
        f"{what}: median error {np.median(np.abs(off)):.1%}, 90th percentile {np.quantile(np.abs(off), 0.9):.1%}, "
        f"mean {off.mean():+.1%}, of {len(off)} trials"
    )


def report(study: Study, trials: Sequence[Trial], calibrated: Prices) -> None:
    """Prints how far off the predictions were."""
    adapted = [trial for trial in trials if not trial.configuration.is_empty]
    told("from the calibration", [calibrated.seconds(t.configuration) / seconds(t) - 1 for t in adapted])
    before = []
    for index, trial in enumerate(trials):
        prices = from_trials(study, trials[:index])
        if prices is not None:
            before.append(prices.seconds(trial.configuration) / seconds(trial) - 1)
    told("of each trial from those before it", before)
    late = [error for error, trial in zip(before[::-1], trials[::-1], strict=False) if trial.origin is Origin.MODEL]
    told("of these what the search proposed", late)
    eta, true = eta_seconds(study, trials[:KNOWN], len(trials), 1), sum(map(seconds, trials[KNOWN:]))
    assert eta is not None
    print(f"time left after {KNOWN} trials: predicted {eta:.0f} s, taken {true:.0f} s ({eta / true - 1:+.1%})")


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """The record of a search, as plain values."""
    evaluating.time = SimpleNamespace(perf_counter=time.process_time)  # CPU seconds
    settings = SearchSettings(
        task=asked.task,
        space=asked.space,
        trials=asked.trials,
        steps=asked.steps,
        validation_rows=asked.validation_rows,
        seed=asked.seed,
    )
    study = prepare(settings, []).study
    resident = load_resident(study, torch.device("cpu"))
    seen = [measure(study, resident, plan, time.process_time) for plan in calibration_plans(study)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for trial in searched(study, resident, Path(folder)):
            print(f"trial {trial.number}: k={frozen_layer_count(trial.configuration)}, {seconds(trial):.2f} s")
            rows.append(
                {
                    "configuration": trial.configuration.to_json(),
                    "origin": trial.origin.value,
                    "replicate": trial.replicate,
                    "values": dict(trial.values),
                }
            )
    return {
        "study": study.to_json(),
        "validation_rows": len(resident.validation),
        "calibration": [[m.configuration.to_json(), m.step_seconds, m.row_seconds] for m in seen],
        "trials": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--task", default="aspects")
    parser.add_argument("--space", default="layerwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation-rows", type=int, default=150)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--of", type=Path)
    asked = parser.parse_args()
    record = json.loads(asked.of.read_text()) if asked.of else measured(asked)
    if asked.output:
        asked.output.write_text(json.dumps(record))
    study = Study.from_json(record["study"])
    calibration = [Measured(Configuration.from_json(plan), step, row) for plan, step, row in record["calibration"]]
    trials = [
        complete(
            number,
            Configuration.from_json(row["configuration"]),
            Origin(row["origin"]),
            row["replicate"],
            row["values"],
        )
        for number, row in enumerate(record["trials"])
    ]
    report(study, trials, Prices.fitted(study, record["validation_rows"], calibration))


if __name__ == "__main__":
    main()
