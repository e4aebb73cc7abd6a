"""The control: plain LoRA of one size in every layer, size by size, and how its learning rate is chosen.

A search chooses among learning rates, so that a control with one rate may lose by that alone. Its middle size is
therefore trained with each of a few rates from the range of the space, in one data order, and all other sizes with the
best of these. The record decides, never the clock, so that a resumed search chooses alike. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from autopeft.foresight import foretold
from autopeft.objectives import Scored
from autopeft.study import Direction, Origin, Study, TrialState
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from search_spaces.dimensions import significant
from search_spaces.presets import control

Sweep = dict[str, Configuration]
"""Configurations by their label for people."""


def rates(study: Study) -> tuple[float, ...]:
    """The learning rates that the control chooses among, rising: spread over the space's range on a log scale.

    The task's usual rate takes the place of the nearest, if it is in the range. Where the space has one rate, so has
    the control.
    """
    low, high = study.space.learning_rate
    count, own = study.control_rates, significant(study.control_learning_rate)
    if low == high or count == 1:
        return (significant(low) if low == high else own,)
    spread = [significant(low * (high / low) ** (index / (count - 1))) for index in range(count)]
    nearest = min(spread, key=lambda rate: abs(math.log(rate / own)))
    return tuple(sorted({own if low <= own <= high and rate == nearest else rate for rate in spread}))


def sizes(study: Study, rate: float | None = None) -> Sweep:
    """The control at one learning rate: the sizes that fit the budget and keep the exact limits.

    Args:
        study: The study.
        rate: The learning rate; None: the usual one among ``rates``.
    """
    known, limits = foretold(study, ())
    plans = _swept(study.backbone, study.budget.parameters, _usual(study) if rate is None else rate)
    return {label: plan for label, plan in plans if all(known[name](plan) <= limit for name, limit in limits.items())}


def first(study: Study) -> Sweep:
    """What is trained before the rate is known: the middle size with each; if there is one rate, every size."""
    options = rates(study)
    if len(options) == 1:
        return sizes(study)
    by_rate = {rate: sizes(study, rate) for rate in options}
    middle = _middle(study, by_rate[options[0]])
    return {f"{label} at {rate:g}": by_rate[rate][label] for rate in options for label in middle}


def chosen_rate(study: Study, trials: Sequence[Scored]) -> float | None:
    """The learning rate of the control; None while the trials that choose it have not all ended.

    A rate that a size was already trained with stays, whatever is done to the trials that chose it.
    """
    options = rates(study)
    if len(options) == 1:
        return options[0]
    there = {trial.digest: trial for trial in trials if trial.origin is Origin.CONTROL}
    pilots = {plan.training.learning_rate: there.get(plan.digest) for plan in first(study).values()}
    if len(there) > len(pilots):
        for rate in options:
            if any(plan.digest in there for plan in _others(study, rate).values()):
                return rate
    if not pilots or not all(pilot is not None and pilot.state.is_final for pilot in pilots.values()):
        return None
    sign = 1 if study.objectives[0].direction is Direction.MAXIMISE else -1
    scores = {
        rate: sign * pilot.values[study.metric]
        for rate, pilot in pilots.items()
        if pilot is not None and pilot.state is TrialState.COMPLETE
    }
    usual = _usual(study)
    return max(scores, key=lambda rate: (scores[rate], rate == usual)) if scores else usual


def planned(study: Study) -> list[Configuration]:
    """All that the control will be trained with, at the usual rate what the rate is yet to be chosen for."""
    return [*first(study).values(), *_others(study, _usual(study)).values()]


def missing(study: Study, trials: Sequence[Scored]) -> Sweep:
    """The sizes beside ``first`` that can be trained now and nobody has enqueued; empty while the rate is not known."""
    rate = chosen_rate(study, trials)
    return {} if rate is None else _absent(_others(study, rate), trials)


def to_come(study: Study, trials: Sequence[Scored]) -> list[Configuration]:
    """The sizes beside ``first`` that nobody has enqueued, at the usual rate where none is chosen yet."""
    return list(_absent(_others(study, chosen_rate(study, trials) or _usual(study)), trials).values())


def first_digests(study: Study) -> frozenset[str]:
    """Of the trials that choose the rate, which flatters the best of them; empty where nothing is chosen."""
    return frozenset(plan.digest for plan in first(study).values()) if len(rates(study)) > 1 else frozenset()


def rejected(study: Study, trials: Sequence[Scored]) -> frozenset[str]:
    """Digests of the middle size at rates that were not chosen."""
    rate = chosen_rate(study, trials)
    if rate is None or not first_digests(study):
        return frozenset()
    return frozenset(plan.digest for plan in first(study).values() if plan.training.learning_rate != rate)


@lru_cache(maxsize=32)
def _swept(backbone: Backbone, budget: int, rate: float) -> tuple[tuple[str, Configuration], ...]:
    """One sweep for all who ask: the driver does at every look."""
    return tuple(control(backbone, budget, rate).items())


def _usual(study: Study) -> float:
    return min(rates(study), key=lambda rate: abs(math.log(rate / study.control_learning_rate)))


def _others(study: Study, rate: float) -> Sweep:
    """All sizes but the middle one, at ``rate``; empty where no rate is chosen, since ``first`` holds them then."""
    if len(rates(study)) == 1:
        return {}
    plans = sizes(study, rate)
    middle = _middle(study, plans)
    return {f"{label} at {rate:g}": plan for label, plan in plans.items() if label not in middle}


def _absent(plans: Sweep, trials: Sequence[Scored]) -> Sweep:
    there = {trial.digest for trial in trials if trial.origin is Origin.CONTROL}
    return {label: plan for label, plan in plans.items() if plan.digest not in there}


def _middle(study: Study, plans: Sweep) -> list[str]:
    """The label of the size in the middle, by parameters; empty if there is none."""
    ordered = sorted(plans, key=lambda label: trainable_parameters(plans[label], study.backbone))
    return ordered[(len(ordered) - 1) // 2 :][:1]
