"""The trials of a default search, each trained as it is now and as it was before: CPU seconds of both, side by side.

    python benchmarks/search_before.py run --output search.jsonl [--trials 24] [--steps 105] [--task aspects]
    python benchmarks/search_before.py report search.jsonl [--steps 105]

The search runs in this process (``price.searched``): the head-only reference, the control, then what the proposer
proposes after the trials as they are now. *Now*: batches of like length, states kept on disk (empty at first), LoRA in
place. *Before*: one resident backbone too, but random batches, scoring in the order of the data, nothing kept, peft's
own forward pass. ``report`` scales training to another number of steps; imports, loading and proposing are in neither.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from price import searched
from stock_trials import Clock


def study_of(asked: argparse.Namespace):
    from autopeft.api import prepare
    from autopeft.settings import SearchSettings

    settings = SearchSettings(
        task=asked.task, space="layerwise", trials=asked.trials, steps=asked.steps, confirm=0, control_rates=1
    )
    return prepare(settings, []).study


def before(study, configuration, resident, generator: np.random.Generator) -> dict[str, float]:
    """CPU seconds of a trial as it was."""
    from workers.training import train

    classifier, clock = resident.classifier, Clock()
    size, steps = study.fidelity.batch_size, study.fidelity.steps
    passes = [generator.permutation(len(resident.train)) for _ in range(1 + steps * size // len(resident.train))]
    order = np.concatenate(passes)[: steps * size].reshape(steps, size)
    classifier.adapt(configuration, study.seed)
    for module in classifier.model.modules():
        module.__dict__.pop("forward", None)
    train(classifier, resident.train, order, configuration.training.learning_rate)
    clock.lap("train")
    with torch.inference_mode():
        for first in range(0, len(resident.validation), 32):
            rows = np.arange(first, min(first + 32, len(resident.validation)))
            classifier(resident.validation.batch(rows, torch.device("cpu"))[0])
    clock.lap("evaluate")
    classifier.strip()
    return clock.parts


def run(asked: argparse.Namespace) -> None:
    """Adds a line a trial to the output."""
    from search_spaces.cost import frozen_layer_count
    from workers import evaluate as evaluating
    from workers.backbones import load_resident

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    study, generator = study_of(asked), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOPEFT_CACHE_DIR"] = f"{folder}/cache"
        resident = load_resident(study, torch.device("cpu"))
        parts, inner = {}, evaluating.evaluate

        def timed(order, resident, folder):
            """The worker's evaluation, with its CPU seconds kept."""
            clock = Clock()
            resident.beginning_at(frozen_layer_count(order.configuration))
            clock.lap("cache fill")

            def advance(start, until: int) -> None:
                start.run.run(until)
                clock.lap("train")

            found = inner(order, resident, folder, advance=advance)
            clock.lap("evaluate")
            parts["now"] = clock.parts
            return found

        evaluating.evaluate = timed
        for trial in searched(study, resident, Path(folder)):
            line = {
                "number": trial.number,
                "origin": trial.origin.value,
                "k": frozen_layer_count(trial.configuration),
                "steps": asked.steps,
                "quality": trial.values[study.metric],
                "now": parts["now"],
                "before": before(study, trial.configuration, resident, generator),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "at": time.time(),
            }
            with asked.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def report(asked: argparse.Namespace) -> None:
    """Prints means by kind of trial, and the sums that a search of the asked number of steps takes."""
    lines = [json.loads(line) for line in asked.output.read_text().splitlines()]
    print("| trials | lowest layers | steps | before | now | before ÷ now |\n|---|---|---|---|---|---|")
    for name, some in (("all", lines), ("searched", [line for line in lines if line["origin"] == "model"])):
        for steps in dict.fromkeys((lines[0]["steps"], asked.steps)):
            old, new = (np.mean([seconds(line, way, steps) for line in some]) for way in ("before", "now"))
            layers = sorted(line["k"] for line in some)
            print(f"| {len(some)} {name} | {layers} | {steps} | {old:.2f} | {new:.2f} | {old / new:.2f} |")
    print(f"peak of both ways together {max(line['peak_bytes'] for line in lines) / 1e9:.2f} GB")


def seconds(line: dict, way: str, steps: int) -> float:
    """CPU seconds of a trial, with training scaled to ``steps``."""
    parts = line[way]
    return sum(parts.values()) + parts["train"] * (steps / line["steps"] - 1)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--output", type=Path, required=True)
    one.add_argument("--trials", type=int, default=24)
    one.add_argument("--task", default="aspects")
    other = commands.add_parser("report")
    other.add_argument("output", type=Path)
    for part in (one, other):
        part.add_argument("--steps", type=int, default=105)
    asked = parser.parse_args()
    {"run": run, "report": report}[asked.command](asked)


if __name__ == "__main__":
    main()
