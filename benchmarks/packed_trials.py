"""What a step of a pack costs against the steps of its members alone: MiniLM, LoRA, packs of 1, 4, 16 and 64.

``python -P benchmarks/packed_trials.py --packs 1 4 16 --rows 4`` on a CPU, ``--device cuda:0`` on a GPU. Members differ
in rank, modules, lowest layer and learning rate. Packed and lone steps take turns on the same batches in one process;
what counts are medians of their ratios (1: packing brings nothing): CPU seconds on a CPU, wall seconds of synchronised
steps on a GPU. Lone steps are timed for at most ``--alone`` members, whose mean stands for all. No CUDA graph is
captured: batches differ in width, and the stacked leaves change when a member leaves. (-P: this file must not be taken
for the packages it measures.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from autopeft.adapters.lifting import lift
from autopeft.adapters.models import load_for_task, model_spec
from autopeft.adapters.weights import Stand
from autopeft.regime import USUAL
from autopeft.study import Order
from autopeft.tasks import TaskKind
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora
from workers.batches import EncodedRows, Rows, training_order
from workers.pack.member import Member
from workers.pack.pack import Pack
from workers.training import TrainingRun

SEED, LABELS, TRAINING_ROWS = 0, 3, 512
SITES = (("query", "value"), ("query", "key", "value", "output"), ("up", "down"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a packed step and of the same members' steps alone, added up, turn by turn."""

    members: int
    packed: list[float]
    alone: list[float]

    def row(self) -> dict[str, object]:
        """Medians and ratios, as plain values."""
        ratios = [packed / alone for packed, alone in zip(self.packed, self.alone, strict=True)]
        lone = statistics.median(self.alone) / self.members
        return {
            "members": self.members,
            "packed_step_seconds": round(statistics.median(self.packed), 4),
            "lone_step_seconds": round(lone, 4),
            "packed_over_all_alone": round(statistics.median(ratios), 3),
            "packed_over_one_alone": round(statistics.median(self.packed) / lone, 2),
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        }


def plan(number: int, layers: int) -> Configuration:
    lowest, sites = number % 3, SITES[number % len(SITES)]
    method = Lora(1 << number % 4, 8.0)
    rows = [LayerPlan(tuple(Placement(site, method) for site in sites) if i >= lowest else ()) for i in range(layers)]
    return Configuration(tuple(rows), Training(1e-3 * (1 + number % 5)))


def random_rows(tokens: int) -> EncodedRows:
    generator = np.random.default_rng(SEED)
    lengths = np.clip(np.exp(generator.normal(np.log(tokens), 0.4, TRAINING_ROWS)), 4, 4 * tokens).astype(int)
    ids = [generator.integers(1000, 20000, length).tolist() for length in lengths]
    labels = torch.from_numpy(generator.integers(0, LABELS, TRAINING_ROWS))
    return EncodedRows(ids, [[0] * len(row) for row in ids], labels, padding=0)


def member(classifier: Classifier, number: int, layers: int, steps: int) -> Member:
    classifier.adapt(plan(number, layers), seed=number)
    return Member(Order(number, 1, number, None, plan(number, layers), 0, 0), lift(classifier), steps)


def clock(device: torch.device) -> Callable[[], float]:
    if device.type == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def measured(classifier: Classifier, rows: EncodedRows, order: Rows, count: int, most_alone: int) -> Cost:
    """One step of a pack of ``count`` and one of each of its members alone, in turns; the first turn warms up."""
    device = next(classifier.parameters()).device
    layers, now = describe(classifier.model, "minilm").layer_count, clock(device)
    pack = Pack(classifier, rows, order, [member(classifier, number, layers, len(order)) for number in range(count)])
    numbers = np.unique(np.linspace(0, count - 1, min(count, most_alone)).astype(int)).tolist()
    packed, alone = [], []
    for step in range(len(order)):
        started = now()
        pack.run(step + 1)
        packed.append(now() - started)
        each = [lone_step(classifier, rows, order[step : step + 2], number, layers, now) for number in numbers]
        alone.append(statistics.fmean(each) * count)
    return Cost(count, packed[1:], alone[1:])


def lone_step(
    classifier: Classifier, rows: EncodedRows, order: Rows, number: int, layers: int, now: Callable[[], float]
) -> float:
    """Seconds of a step alone; adapters go in before and out after it, unmeasured."""
    configuration, moments = plan(number, layers), []
    classifier.adapt(configuration, seed=number)
    twice = np.concatenate([order[:1], order[:1]])  # a run checks gradients and meters memory at its first step
    rate = configuration.training.learning_rate
    TrainingRun(classifier, rows, twice, rate, lambda _done: moments.append(now())).run(2)
    classifier.strip()
    return moments[1] - moments[0]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--packs", type=int, nargs="+", default=[1, 4, 16, 64])
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--rows", type=int, default=16, help="of a member's step")
    asked.add_argument("--tokens", type=int, default=49, help="of a row, about")
    asked.add_argument("--steps", type=int, default=5, help="timed")
    asked.add_argument("--alone", type=int, default=4, help="members that are timed alone, at most")
    options = asked.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    classifier = load_for_task(
        model_spec("minilm", "mean"), TaskKind.CLASSIFICATION, LABELS, SEED, Stand(device, USUAL)
    )
    rows = random_rows(options.tokens)
    order = training_order(rows.lengths, options.rows, options.steps + 1, SEED, 0)
    facts = {"device": str(device), "rows": options.rows, "seed": SEED, "torch": version("torch")}
    print(json.dumps({**facts, "transformers": version("transformers"), "peft": version("peft")}))
    for count in options.packs:
        print(json.dumps(measured(classifier, rows, order, count, options.alone).row()), flush=True)


if __name__ == "__main__":
    main()
