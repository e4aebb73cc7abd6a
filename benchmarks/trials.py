"""Trials at a fraction of their price: one fixed list of LoRA configurations, trained in four ways, side by side.

    python benchmarks/trials.py run --output trials.jsonl [--task aspects] [--configurations 24] [--ways naive,ours]
    python benchmarks/trials.py report trials.jsonl

The list: 24 configurations, four for each lowest adapted layer k = 0 … 5 of MiniLM, 40 steps of 16 rows each, scored on
the validation rows. The ways:

- ``naive``: a process per trial; HF Trainer + peft, padded to the greatest length, random batches.
- ``honest``: HF + peft in one process; batches of like length, scoring sorted by length, tokens kept.
- ``ours``: the worker's own evaluation on one resident backbone, states kept on disk (the cache starts empty).
- ``rungs``: ours with the ladder of ``--fidelity rungs``, where half of the trials end (a cache of its own, empty too).

``run`` adds a line a trial to the output and leaves out what is there, so it can be stopped and started. The last three
take turns on each configuration in one process, so that a machine whose speed changes slows all of them; imports and
loading are divided among the trials of each way as if it ran alone. ``--configurations N`` takes N of the list, spread
evenly over k. Seconds are CPU seconds of the trial's process, all threads; set OMP_NUM_THREADS=1 to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stock_trials import STARTED, Clock, honest_trial, naive_trial
from trials_report import read, report

STEPS, BATCH, RATE = 40, 16, 2e-3
ALL = ("query", "key", "value", "output", "up", "down")
SHAPES = ((ALL, 8), (ALL, 2), (("query", "value"), 8), (("up", "down"), 4))
"""Sites and rank of the four configurations of each k; they stand in layer k and all above."""
NAIVE, RUNGS = "naive", "rungs"
WAYS = (NAIVE, "honest", "ours", RUNGS)


def study_of(task: str, fidelity: str = "full"):
    from autopeft.api import prepare
    from autopeft.settings import SearchSettings

    sizes = {"steps": STEPS, "batch_size": BATCH, "train_rows": 840, "validation_rows": 600}
    settings = SearchSettings(task=task, fidelity=fidelity, **sizes)
    return prepare(settings, []).study


def configurations(layer_count: int) -> list:
    """(k, configuration) of the whole list; the four shapes of each k one after the other."""
    from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
    from search_spaces.methods.lora import Lora

    found = []
    for k in range(layer_count):
        for sites, rank in SHAPES:
            row = LayerPlan(tuple(Placement(site, Lora(rank, 2.0 * rank)) for site in sites))
            rows = (LayerPlan(),) * k + (row,) * (layer_count - k)
            found.append((k, Configuration(rows, Training(RATE))))
    return found


def chosen(count: int, total: int, layers: int) -> list[int]:
    """``count`` indices of the list in its order: as evenly over k as can be, ends first; a shape a round over k."""
    each = total // layers
    turns = sorted(range(layers), key=lambda k: (min(k, layers - 1 - k), k))
    return sorted([k * each + (round_ + k) % each for round_ in range(each) for k in turns][:count])


def run(asked: argparse.Namespace) -> None:
    output, ways = Path(asked.output), asked.ways.split(",")
    done = {(line["way"], line["index"]) for line in read(output) if line["task"] == asked.task}
    study = study_of(asked.task)
    listed = configurations(study.backbone.layer_count)
    wanted = chosen(asked.configurations, len(listed), study.backbone.layer_count)
    for index in [index for index in wanted if NAIVE in ways and (NAIVE, index) not in done]:
        _child(output, NAIVE, asked.task, [index])
    rest = [way for way in ways if way != NAIVE and any((way, index) not in done for index in wanted)]
    left = [index for index in wanted if any((way, index) not in done for way in rest)]
    if rest and left:
        _child(output, ",".join(rest), asked.task, left)


def _child(output: Path, ways: str, task: str, indices: list[int]) -> None:
    """Trains in a process of its own; its lines are kept as they come."""
    command = [
        sys.executable,
        __file__,
        "some",
        "--ways",
        ways,
        "--task",
        task,
        "--indices",
        ",".join(map(str, indices)),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **quiet}) as child:
        for line in child.stdout:
            if line.startswith('{"task"'):
                with output.open("a", encoding="utf-8") as file:
                    file.write(line)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {child.returncode}")


def some(asked: argparse.Namespace) -> None:
    """Trains some of the list in this process, a JSON line each."""
    indices, ways = [int(index) for index in asked.indices.split(",")], asked.ways.split(",")
    if ways == [NAIVE]:
        study = study_of(asked.task)
        listed = configurations(study.backbone.layer_count)
        for index in indices:
            began = time.time()
            _say(
                asked.task, NAIVE, index, {**naive_trial(study, listed[index][1]), "wall_seconds": time.time() - began}
            )
        return
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    folder = Path(tempfile.mkdtemp())
    try:
        _in_turn(asked.task, ways, indices, folder)
    finally:
        shutil.rmtree(folder)


def _in_turn(task: str, ways: list[str], indices: list[int], folder: Path) -> None:
    clock = Clock()
    clock.last = STARTED
    from our_trials import Rungs, loaded, our_trial

    from workers.batches import training_order

    clock.lap("imports")
    studies = {way: study_of(task, "rungs" if way == RUNGS else "full") for way in ways}
    residents, shared = {}, {}
    for way in ways:
        started = Clock()
        residents[way] = loaded(studies[way], folder / way, started)
        shared[way] = {part: seconds / len(indices) for part, seconds in {**clock.parts, **started.parts}.items()}
    study = studies[ways[0]]
    order = training_order(residents[ways[0]].train.lengths, BATCH, STEPS, study.seed, 0)
    listed = configurations(study.backbone.layer_count)
    trials = {
        "honest": lambda index: honest_trial(study, listed[index][1], residents["honest"], order),
        "ours": lambda index: our_trial(study, listed[index][1], residents["ours"], index, folder),
    }
    climbing = Rungs(studies[RUNGS], residents[RUNGS], folder) if RUNGS in ways else None
    for index in indices:
        for way in (way for way in ways if way in trials):
            began = time.time()
            found = trials[way](index)
            parts = {**shared[way], **_added(found["parts"], shared[way])}
            _say(task, way, index, {**found, "parts": parts, "wall_seconds": time.time() - began})
        if climbing:
            climbing.start(listed[index][1], last=index == indices[-1])
    for index, found in zip(indices, climbing.found() if climbing else (), strict=False):
        _say(task, RUNGS, index, {**found, "parts": {**shared[RUNGS], **_added(found["parts"], shared[RUNGS])}})


def _added(parts: dict[str, float], shared: dict[str, float]) -> dict[str, float]:
    """``parts``, with what a part has in both."""
    return {part: seconds + shared.get(part, 0.0) for part, seconds in parts.items()}


def _say(task: str, way: str, index: int, found: dict) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    where = {"task": task, "way": way, "index": index, "k": index // len(SHAPES)}
    print(json.dumps({**where, **found, "peak_bytes": peak}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("run")
    first.add_argument("--output", required=True)
    first.add_argument("--task", default="aspects")
    first.add_argument("--configurations", type=int, default=24)
    first.add_argument("--ways", default=",".join(WAYS))
    commands.add_parser("report").add_argument("output")
    part = commands.add_parser("some")
    for option in ("--ways", "--task", "--indices"):
        part.add_argument(option, required=True)
    asked = parser.parse_args()
    {"run": run, "report": report, "some": some}[asked.command](asked)


if __name__ == "__main__":
    main()
