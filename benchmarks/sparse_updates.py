"""What an update schedule (IST) costs in quality and saves in activations on a real task; pairs of equal plans.

    python -P benchmarks/sparse_updates.py --task path/to/data [--steps 60] [--seeds 0 1 2] [--update-fraction 0.25]

LoRA of rank 1 at all linear modules, at the upper end of the task's learning rates, with every layer updated at every
step and with a schedule; a seed is a data order, an initialisation and the schedule's draws. Prints JSON: a line a run,
then mean differences with standard errors. In this process, on one thread of a CPU, without kept states.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from autopeft.api import prepare
from autopeft.settings import SearchSettings
from autopeft.study import Order
from search_spaces.configuration import Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from workers.backbones import load_resident
from workers.evaluate import evaluate


def trained(study, resident, plan, seed):
    """Quality, loss, CPU seconds, and what the schedule told of its bytes, if there is one."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        measured = evaluate(Order(0, 1, 0, study, plan, seed, 0), resident, Path(folder))
    found = {name: measured.values[name] for name in (study.metric, "loss")}
    found["cpu_seconds"] = round(time.process_time() - started, 1)
    told = measured.details.get("importance", {})
    return found | {name: told[name] for name in ("saved_bytes", "saved_bytes_of_all") if name in told}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="aspects")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--validation-rows", type=int, default=400)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--update-fraction", type=float, default=0.25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {name: getattr(arguments, name) for name in ("task", "steps", "batch_size", "validation_rows")}
    study = prepare(SearchSettings(cache="off", **sizes), []).study
    resident = load_resident(study, torch.device("cpu"))
    plain = uniform(study.backbone, study.backbone.roles, Lora(1, 2.0), study.space.learning_rate[1])
    schedule = UpdateSchedule(update_fraction=arguments.update_fraction)
    sparse = replace(plain, training=Training(plain.training.learning_rate, schedule))
    differences = []
    for seed in arguments.seeds:
        runs = {name: trained(study, resident, plan, seed) for name, plan in (("all", plain), ("schedule", sparse))}
        for name, found in runs.items():
            print(json.dumps({"task": study.task_name, "seed": seed, "updates": name, **found}), flush=True)
        saved = runs["schedule"]["saved_bytes"] / runs["schedule"]["saved_bytes_of_all"]
        apart = {name: runs["schedule"][name] - runs["all"][name] for name in (study.metric, "loss")}
        differences.append({**apart, "share_of_bytes": saved})
    for name in differences[0]:
        values = [found[name] for found in differences]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        print(json.dumps({"figure": name, "mean": statistics.fmean(values), "error": error}))


if __name__ == "__main__":
    main()
