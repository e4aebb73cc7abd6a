"""What a trial will cost in seconds, known before it runs: from its lowest trained layer, its methods and their sizes.

A training step and a scored row are each priced by five figures of the configuration (a constant, layers that train,
modules with adapters, the adapters' own operations, frozen layers below) with weights ≥ 0, fitted to measured seconds
by least squares of the relative error. A few measurements lean on a prior that knows the figures' usual proportions
and no more; with many it no longer matters. Pure arithmetic: nothing is measured here, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopeft.proxy import carried, stands_in
from autopeft.study import Study, Trial
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.cost import forward_flops, frozen_layer_count

Array = NDArray[np.float64]

PROPORTIONS = np.array([0.3, 1.0, 0.03, 1.0, 0.1])
"""Prior, in layers that train: a constant, such a layer, a module with adapters, adapters with as many operations as a
layer, a frozen layer (between 0, if it is read, and 0.3 in training and 1 in scoring, if it is computed)."""

PRIOR_WEIGHT = 0.05
"""How much one proportion of the prior counts against one measurement."""

DRAWS = 64
"""Configurations of the space whose mean stands for what is not proposed yet …"""

DRAWS_COUNT_AS = 5
"""… as much as so many proposals, of which the last ``LATEST`` count one each."""

LATEST = 10
TIMED = {"train_seconds", "evaluate_seconds"}
CALIBRATION_PLANS = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds that were measured of one configuration.

    Attributes:
        configuration: What was trained.
        step_seconds: Of one training step.
        row_seconds: Of one scored row.
        on_model: Whether it was the study's own model that was trained, though a sibling stands in for it.
    """

    configuration: Configuration
    step_seconds: float
    row_seconds: float
    on_model: bool = False


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of the trials of one study on one kind of machine.

    Attributes:
        study: What the trials are.
        scored_rows: Rows that each trial scores.
        step_weights: Seconds a step of each figure.
        row_weights: Seconds a row of each figure.
    """

    study: Study
    scored_rows: int
    step_weights: Array
    row_weights: Array

    @classmethod
    def fitted(cls, study: Study, scored_rows: int, measured: Sequence[Measured]) -> Prices:
        """The prices that ``measured`` show, at least one."""
        rows = np.array([figures_in(study, m.configuration, m.on_model) for m in measured])
        steps = _weights(rows, np.array([m.step_seconds for m in measured]))
        return cls(study, scored_rows, steps, _weights(rows, np.array([m.row_seconds for m in measured])))

    def train_seconds(self, configuration: Configuration, on_model: bool = False) -> float:
        """Of the full run; ``on_model``: as confirmations are trained, where a sibling stands in for the model."""
        found = figures_in(self.study, configuration, on_model)
        return self.study.fidelity.steps * float(found @ self.step_weights)

    def evaluate_seconds(self, configuration: Configuration, on_model: bool = False) -> float:
        """Of scoring all rows once."""
        return self.scored_rows * float(figures_in(self.study, configuration, on_model) @ self.row_weights)

    def seconds(self, configuration: Configuration, on_model: bool = False) -> float:
        """Of a trial trained in full and scored."""
        return self.train_seconds(configuration, on_model) + self.evaluate_seconds(configuration, on_model)

    def trial_seconds(self, trial: Trial) -> float:
        """Of that trial, trained in full and scored."""
        return self.seconds(trial.configuration, not stands_in(self.study, trial.origin, trial.configuration))

    def extremes(self) -> dict[str, float]:
        """``least_seconds`` and ``most_seconds`` of a trial, among configurations drawn from the space."""
        found = [self.seconds(plan) for plan in drawn(self.study)]
        return {"least_seconds": min(found), "most_seconds": max(found)}

    def expected_seconds(self, proposed: Sequence[Configuration] = (), on_model: bool = False) -> float:
        """Of what nobody has proposed yet: between the mean of the space and that of the latest proposals."""
        latest = [self.seconds(plan, on_model) for plan in proposed[-LATEST:]]
        prior = float(np.mean([self.seconds(plan, on_model) for plan in drawn(self.study)]))
        return (DRAWS_COUNT_AS * prior + sum(latest)) / (DRAWS_COUNT_AS + len(latest))


def from_trials(study: Study, trials: Sequence[Trial]) -> Prices | None:
    """The prices that trials show, in full or at a rung; None before the first with adapters was measured."""
    measured = [
        # the size of the split is not known here: all of it counts as one row
        Measured(
            trial.configuration,
            trial.values["train_seconds"] / steps,
            trial.values["evaluate_seconds"],
            not stands_in(study, trial.origin, trial.configuration),
        )
        for trial in trials
        if trial.rung and trial.values.keys() >= TIMED and not trial.configuration.is_empty
        for steps in [study.fidelity.steps_at(trial.rung - 1)]
    ]
    return Prices.fitted(study, 1, measured) if measured else None


def drawn(study: Study, count: int = DRAWS) -> list[Configuration]:
    """Configurations of the space within the budget, the same for the same study."""
    generator = np.random.default_rng([study.seed, count])
    return [study.search_space.sample(generator, study.budget.parameters) for _ in range(count)]


def calibration_plans(study: Study) -> list[Configuration]:
    """What to measure so that the rest can be priced: of few, some and many layers the least and the most adapted."""
    plans = sorted(drawn(study), key=lambda plan: tuple(figures(plan, study.backbone)[1:4]))
    thirds = np.array_split(np.arange(len(plans)), CALIBRATION_PLANS // 2)
    return [plans[index] for third in thirds for index in (third[0], third[-1])]


def figures(configuration: Configuration, backbone: Backbone) -> Array:
    """The five figures that a price is a sum of: one, and four in units of layers and modules."""
    frozen = frozen_layer_count(configuration)
    modules = sum(1 for _ in configuration.placements())
    added = forward_flops(configuration, backbone, 1) / _layer_flops(backbone)
    return np.array([1.0, backbone.layer_count - frozen, modules, added, frozen])


def figures_in(study: Study, configuration: Configuration, on_model: bool) -> Array:
    """The figures of ``configuration`` as it is trained; all in units of the sibling's layers, if one stands in."""
    if study.proxy is None:
        return figures(configuration, study.backbone)
    if not on_model:
        return figures(carried(study, configuration), study.proxy.backbone)
    wider = _layer_flops(study.backbone) / _layer_flops(study.proxy.backbone)
    found: Array = figures(configuration, study.backbone) * np.array([1.0, wider, 1.0, wider, wider])
    return found


def _weights(rows: Array, seconds: Array) -> Array:
    """Weights ≥ 0 that give ``seconds`` with the least relative error, leaning on the prior × one scale."""
    from scipy.optimize import nnls  # takes a third of a second to import: status and front need none of it

    usable = seconds > 0
    if not usable.any():
        return np.zeros(len(PROPORTIONS))
    rows, seconds = rows[usable], seconds[usable]
    scale = float(np.median(seconds / (rows @ PROPORTIONS)))
    left = np.vstack([rows / seconds[:, None], np.diag(PRIOR_WEIGHT / (scale * PROPORTIONS))])
    right = np.concatenate([np.ones(len(rows)), np.full(len(PROPORTIONS), PRIOR_WEIGHT)])
    return np.asarray(nnls(left, right)[0])


def _layer_flops(backbone: Backbone) -> float:
    """Operations of the linear modules of a layer for one token."""
    return float(sum(2 * module.in_features * module.out_features for module in backbone.layers[0]))
