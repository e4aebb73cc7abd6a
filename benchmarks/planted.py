"""Planted truth: do IST and DiffoRA find the layers or modules in which a teacher differs from its base?

``python benchmarks/planted.py importance|selection [--seeds 5] [--steps 200] [--rate 2e-3]``. The base is a random BERT
of eight layers; the teacher is the base with a random low-rank change of some modules, and says one of 32 classes by a
fixed random head. The student, the base with LoRA everywhere, starts from the teacher's head and learns its classes.
``importance`` plants two layers (all six modules), ``selection`` one module in each of six layers, each felt as much as
the others. Defaults are those of ``autopeft importance`` and ``autopeft select``.
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
from transformers import BertConfig, BertModel

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier, mean_over_tokens
from search_spaces.configuration import Configuration, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection, cut
from workers.batches import EncodedRows, training_order
from workers.importance import ImportanceLoop, hold_out
from workers.selection import Gates, halve, search
from workers.training import train

LAYERS, WIDTH, VOCABULARY, LENGTH, ROWS = 8, 64, 200, 16, 6000
CLASSES, SHARPNESS, CHANGE = 32, 1.5, 1.0
BATCH, RATE, RANK = 16, 2e-3, 4
FELT = 0.5
"""Share of its spread by which each planted module moves the representation."""


def base_model(seed: int) -> BertModel:
    """A random BERT whose layers all matter."""
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        initializer_range=0.1,
    )
    return BertModel(config).eval().requires_grad_(False)


def teacher_of(base: BertModel, modules: list[str], seed: int, felt: float | None = None) -> BertModel:
    """The base with a change of rank 4 in some modules, ``CHANGE`` times as large as the weights.

    With ``felt``, each change is as large as it takes to move the representation by that share on its own: by changes
    of one size a query moves it a fifth as far as a value or a feed-forward module.
    """
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for path in modules:
        rows, columns = base.get_submodule(path).weight.shape
        change = torch.randn(rows, 4, generator=generator) @ torch.randn(4, columns, generator=generator)
        changes[path] = change * (CHANGE * base.get_submodule(path).weight.norm() / change.norm())
    if felt is not None:
        changes = {path: change * _size_felt(base, path, change, felt) for path, change in changes.items()}
    return _changed(base, changes)


def _changed(base: BertModel, changes: dict[str, torch.Tensor]) -> BertModel:
    changed = copy.deepcopy(base)
    for path, change in changes.items():
        changed.get_submodule(path).weight.add_(change)
    return changed


@torch.no_grad()
def _size_felt(base: BertModel, path: str, change: torch.Tensor, felt: float) -> float:
    """The multiple of ``change``, up to 16, that moves the representation by ``felt`` of its spread."""
    ids = torch.randint(1, VOCABULARY, (200, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)

    def states(model: BertModel) -> torch.Tensor:
        means = mean_over_tokens(model(ids, attention_mask=mask).last_hidden_state, mask)
        return means - means.mean(0)

    own, low, high = states(base), 1 / 16, 16.0
    for _ in range(8):
        middle = (low * high) ** 0.5
        moved = float((states(_changed(base, {path: middle * change})) - own).norm() / own.norm())
        low, high = (middle, high) if moved < felt else (low, middle)
    return (low * high) ** 0.5


@torch.no_grad()
def lesson(base: BertModel, teacher: BertModel, seed: int) -> tuple[EncodedRows, torch.Tensor, torch.Tensor]:
    """Random rows with the teacher's classes, and the weight of its head with a bias that centres the base."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    means, own = (mean_over_tokens(m(ids, attention_mask=mask).last_hidden_state, mask) for m in (teacher, base))
    weight = torch.randn(CLASSES, WIDTH, generator=generator) * (SHARPNESS / (means.std(0).mean() * WIDTH**0.5))
    classes = ((means - means.mean(0)) @ weight.T).argmax(-1)
    return EncodedRows(ids.tolist(), None, classes, 0), weight, -weight @ own.mean(0)


def student_of(
    base: BertModel, head: tuple[torch.Tensor, torch.Tensor], seed: int, schedule: UpdateSchedule | None = None
) -> tuple[Classifier, Configuration]:
    """The base with LoRA everywhere and the teacher's head."""
    classifier = Classifier(base, CLASSES, None)
    backbone = describe(base, "planted")
    plain = uniform(backbone, backbone.roles, Lora(RANK, 2.0 * RANK), RATE)
    configuration = Configuration(plain.layers, Training(RATE, schedule))
    classifier.adapt(configuration, seed)
    with torch.no_grad():
        for parameter, value in zip(classifier.head_parameters().values(), head, strict=True):
            parameter.copy_(value)
    return classifier, configuration


def importance(seed: int, steps: int, schedule: UpdateSchedule, rate: float) -> list[int]:
    """Ranks of the two planted layers by importance, 1 first."""
    planted = sorted(np.random.default_rng(seed).choice(LAYERS, 2, replace=False).tolist())
    base = base_model(seed)
    backbone = describe(base, "planted")
    modules = [backbone.module(layer, role).path for layer in planted for role in backbone.roles]
    rows, *head = lesson(base, teacher_of(base, modules, seed), seed)
    classifier, _ = student_of(base, head, seed, schedule)
    held_out = hold_out(len(rows), schedule, seed)
    loop = ImportanceLoop(classifier, schedule, rows, held_out, seed)
    lengths = rows.lengths[held_out.trained]
    order = held_out.trained[training_order(lengths, BATCH, steps, seed, 0)]
    curve = train(classifier, rows, order, rate, updates=loop)
    ranked = np.argsort(-loop.importance, kind="stable").tolist()
    ranks = [ranked.index(layer) + 1 for layer in planted]
    values = " ".join(f"{value:+.2f}" for value in loop.importance)
    print(f"seed {seed}: planted {planted}, ranks {ranks}, I {values}, loss {curve[0][1]:.3f} to {curve[-1][1]:.3f}")
    return ranks


def selection(seed: int, steps: int, chosen: Selection, rate: float) -> tuple[int, int]:
    """Planted modules that are their row's first, and that are among the first six of all."""
    generator = np.random.default_rng(seed)
    base = base_model(seed)
    backbone = describe(base, "planted")
    layers = sorted(generator.choice(LAYERS, 6, replace=False).tolist())
    planted = {(layer, str(generator.choice(backbone.roles))) for layer in layers}
    teacher = teacher_of(base, [backbone.module(*entry).path for entry in sorted(planted)], seed, FELT)
    rows, *head = lesson(base, teacher, seed)
    classifier, configuration = student_of(base, head, seed)
    gates = Gates(classifier, configuration, backbone, chosen.relaxation)
    found = search(classifier, gates, chosen, rows, halve(len(rows), seed), steps, BATCH, rate, seed)
    first = len(planted & cut(found.scores, 1e-9, "row"))
    top = len(planted & cut(found.scores, 6 / len(found.scores), "global"))
    values = [found.scores[entry] for entry in sorted(planted)]
    rest = [score for entry, score in found.scores.items() if entry not in planted]
    print(
        f"seed {seed}: first of its row {first} of 6 (chance 1), in the first six {top} (chance 0.75), mean gate "
        f"{np.mean(values):.3f} against {np.mean(rest):.3f}, loss {found.losses[0]:.3f} to {found.losses[-1]:.3f}"
    )
    return first, top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("importance", "selection"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate of the student")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update-fraction", type=float, default=1.0)
    parser.add_argument("--step-size", type=float, default=2.0)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--relaxation", default="sigmoid")
    parser.add_argument("--order", type=int, default=1)
    asked = parser.parse_args()
    rate, seeds = asked.rate, range(asked.first, asked.first + asked.seeds)
    torch.set_num_threads(asked.threads)
    started = time.process_time()
    if asked.what == "importance":
        schedule = UpdateSchedule(asked.update_fraction, candidates=asked.candidates, step_size=asked.step_size)
        ranks = [rank for seed in seeds for rank in importance(seed, asked.steps, schedule, rate)]
        print(f"mean rank of a planted layer {np.mean(ranks):.2f} of {LAYERS} (chance {(LAYERS + 1) / 2})")
    else:
        chosen = Selection(relaxation=asked.relaxation, order=asked.order)
        found = np.array([selection(seed, asked.steps, chosen, rate) for seed in seeds])
        print(f"mean first of its row {found[:, 0].mean():.1f} of 6, in the first six {found[:, 1].mean():.1f}")
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
