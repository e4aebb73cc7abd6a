"""What a prior is worth, true or wrong: hypervolume of searches on surfaces with planted layers.

``python benchmarks/priors.py [--seeds 10] [--trials 24]``. Twelve layers, the space ``layerwise`` within 0.5 %; three
layers carry most of what rank can bring, in another draw for every seed. ``none`` and ``true`` run for ``--trials``,
``adversarial`` (the true scores with their sign turned) for twice as many. Hypervolume is that of the noiseless values
of what was tried. A line a seed, then means with standard errors, and how many trials ``true`` needs for what ``none``
ends with.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from autopeft.optimizer import make_proposer
from autopeft.optimizer.demands import Demands
from autopeft.optimizer.hints import prior_of
from autopeft.pareto import Scale, hypervolume
from autopeft.probe import LAYER, Guide
from autopeft.study import PARAMETERS, Direction, Objective, Observation
from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import Configuration
from search_spaces.presets import layerwise
from search_spaces.space import SearchSpace

LAYERS, WIDTH, NOISE, INITIAL = 12, 128, 0.005, 8
OBJECTIVES = (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))


def backbone() -> Backbone:
    """Twelve layers of the usual six modules."""
    sizes = {"query": (1, 1), "key": (1, 1), "value": (1, 1), "output": (1, 1), "up": (1, 4), "down": (4, 1)}
    rows = tuple(
        tuple(
            ModuleShape(role, f"layer.{layer}.{role}", WIDTH * inside, WIDTH * outside)
            for role, (inside, outside) in sizes.items()
        )
        for layer in range(LAYERS)
    )
    return Backbone("planted", "bert", WIDTH, LAYERS * 12 * WIDTH**2 + 30_000 * WIDTH, rows)


class Surface:
    """Quality of a plan: layers saturate in the logarithm of their rank, and three matter."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng([seed, 7])
        self.planted = sorted(generator.choice(LAYERS, 3, replace=False).tolist())
        self.gains = generator.uniform(0.0, 0.15, LAYERS)
        self.gains[self.planted] = generator.uniform(0.8, 1.2, 3)
        self.best_rate = float(10 ** generator.uniform(-3.3, -2.7))

    def quality(self, plan: Configuration) -> float:
        """Without noise."""
        gained = sum(
            gain * (1 - 0.5 ** (sum(placement.method.rank for placement in row.placements) / 6))
            for gain, row in zip(self.gains, plan.layers, strict=True)
        )
        off = np.log10(plan.training.learning_rate / self.best_rate)
        return float(0.6 + 0.1 * gained * np.exp(-(off**2)))

    def guide(self, sign: int) -> Guide:
        """The true scores of the layers, or with -1 their opposite."""
        return Guide("planted", "0" * 64, {LAYER: (sign * self.gains).tolist()})


def run(surface: Surface, space: SearchSpace, scale: Scale, seed: int, trials: int, sign: int) -> list[float]:
    """Hypervolume after every trial."""
    demands = Demands(prior=prior_of([surface.guide(sign)] if sign else []))
    proposer, noise = make_proposer("closed-form", INITIAL, seed), np.random.default_rng([seed, 11])
    seen: list[Observation] = []
    true: list[tuple[float, int]] = []
    volumes = []
    for trial in range(trials):
        generator = np.random.default_rng([seed, trial])
        [plan] = proposer.propose(space, scale, OBJECTIVES, seen, [], 1, generator, demands)
        quality, cost = surface.quality(plan), space.cost(plan)
        seen.append(Observation(plan, {"accuracy": quality + NOISE * noise.standard_normal(), PARAMETERS: cost}))
        true.append((quality, cost))
        volumes.append(hypervolume(true, scale))
    return volumes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=24)
    asked = parser.parse_args()
    started, shapes = time.process_time(), backbone()
    space = SearchSpace(layerwise(shapes, (1e-4, 1e-2)), shapes)
    budget = round(0.005 * shapes.parameter_count)
    scale = Scale(0.6, space.smallest_cost, budget)
    figures = []
    for seed in range(asked.seeds):
        surface = Surface(seed)
        none = run(surface, space, scale, seed, asked.trials, 0)
        true = run(surface, space, scale, seed, asked.trials, 1)
        wrong = run(surface, space, scale, seed, 2 * asked.trials, -1)
        needed = next((trial + 1 for trial, volume in enumerate(true) if volume >= none[-1]), 2 * asked.trials)
        figures.append((none[-1], true[-1], wrong[asked.trials - 1], wrong[-1], wrong[-1] / none[-1], needed))
        print(
            f"seed {seed}: planted {surface.planted}, " + ", ".join(f"{figure:.4f}" for figure in figures[-1]),
            flush=True,
        )
    table = np.array(figures)
    errors = table.std(0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else np.zeros(table.shape[1])
    names = ("none", "true", "adversarial", "adversarial at twice", "its share of none", "trials of true")
    for name, mean, error in zip(names, table.mean(0), errors, strict=True):
        print(f"{name:<24} {mean:.4f} ± {error:.4f}")
    print(f"true needs at most as many trials in {(table[:, 5] < asked.trials).sum()} of {len(table)} seeds")
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
