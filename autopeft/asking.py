"""What a search asks of its proposer, read from the study and its trials: what was seen, and what is demanded.

The one place between the record and the optimizer: the driver calls it before every proposal. Each field of
``Demands`` is filled by a function of its own here; what a field needs of the record beyond the trials, the driver
passes on. Pure: no database, no clock, nothing is proposed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from autopeft import control
from autopeft.foresight import foretold
from autopeft.objectives import KINDS, figures
from autopeft.optimizer.demands import Demands, Figure, LowerRung
from autopeft.optimizer.hints import prior_of
from autopeft.price import from_trials
from autopeft.scales import cost_axis, scale
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Observation, Origin, Proposal, Study, Trial, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training
from search_spaces.references import references

APART = 10_000
"""First replicate of what the search and its control or references have in common: nothing confirms so often."""

SLIM = 0.1
"""Least probability of being on the front that is worth a line."""


def observations(study: Study, trials: Sequence[Trial]) -> list[Observation]:
    """What the proposer may learn from: complete trials, and diverged ones, in the order of their numbers.

    A run that diverged scores like guessing, and is on no front; the head alone is no configuration of the space; the
    control informs the model but has a front of its own, and so do their confirmations.
    """
    names = list(dict.fromkeys([*(objective.name for objective in study.objectives), *study.limits]))
    seen = []
    # with a sibling, what is confirmed is measured on another model
    left_out = (Origin.REFERENCE,) if study.proxy is None else (Origin.REFERENCE, Origin.CONFIRMATION)
    swept = {trial.digest for trial in trials if trial.origin is Origin.CONTROL}
    for trial in trials:
        if trial.state is TrialState.DIVERGED:
            seen.append(Observation(trial.configuration, {study.metric: study.quality_floor}, counts=False))
        elif trial.state is TrialState.COMPLETE and trial.origin not in left_out:
            counts = trial.origin is not Origin.CONTROL
            if trial.origin is Origin.CONFIRMATION:
                counts = trial.digest not in swept
            values = {**trial.values, **figures(study, trial, names)}
            seen.append(Observation(trial.configuration, values, counts=counts))
    return seen


def demands(study: Study, trials: Sequence[Trial]) -> Demands:
    """What ``study`` asks beyond quality, parameters and the budget, given what its trials have shown.

    A measured limit on something that is an objective as well is the end of that objective's axis, as the budget is:
    nothing beyond it gains anything, so no probability of keeping it is counted on top. A limit on the peak memory is
    exact as well, as far as that is foreseen.
    """
    further = [objective for objective in study.objectives[1:] if objective.name != PARAMETERS]
    ends = {objective.name for objective in further if not KINDS[objective.name].exact}
    known, limits = foretold(study, trials)
    return Demands(
        known=known,
        axes={objective.name: cost_axis(study, objective, trials) for objective in further},
        limits={name: limit for name, limit in study.limits.items() if name not in ends} | limits,
        predicted_seconds=_predicted_seconds(study, trials),
        prior=prior_of(study.guides),
        lower_rungs=_lower_rungs(study, trials),
        repeats=study.repeats,
    )


def _predicted_seconds(study: Study, trials: Sequence[Trial]) -> Figure | None:
    """The price of a trial where time is the budget, of the clock or of the devices; None elsewhere.

    It follows from what was measured, so there is none before that.
    """
    prices = from_trials(study, trials) if (study.hours, study.device_hours) != (None, None) else None
    return None if prices is None else prices.seconds


def _lower_rungs(study: Study, trials: Sequence[Trial]) -> list[LowerRung]:
    """What searched trials showed at rungs below the full run, whatever became of them."""
    return [
        LowerRung(Observation(trial.configuration, values, counts=False), study.fidelity.share_at(rung))
        for trial in trials
        for rung in range(study.fidelity.top)
        if trial.origin is not Origin.REFERENCE and (values := trial.values_at(rung)) is not None
    ]


def fixed(study: Study) -> list[Proposal]:
    """What every search begins with: the reference that trains nothing but the head, and the control's first trials."""
    head = Configuration((LayerPlan(),) * study.backbone.layer_count, Training(study.control_learning_rate))
    plans = [(head, Origin.REFERENCE, "head only")]
    plans += [(plan, Origin.CONTROL, label) for label, plan in control.first(study).items()]
    return [Proposal(plan, origin, label, priority=1, rung=study.fidelity.top) for plan, origin, label in plans]


def missing_control(study: Study, trials: Sequence[Trial]) -> list[Proposal]:
    """The trials of the control that its learning rate has been chosen for, and that nobody has enqueued."""
    return _beside(study, control.missing(study, trials), trials, Origin.CONTROL)


def reference_sweep(study: Study) -> dict[str, dict[str, Configuration]]:
    """By name of each reference that ``study`` asks for its configurations by label; those that keep exact limits.

    Raises:
        ConfigurationError: If a name is unknown.
    """
    keeps = demands(study, ()).keeps_exact_limits
    found = references(study.backbone, study.budget.parameters, study.control_learning_rate, study.references)
    return {
        name: {label: plan for label, plan in plans.items() if plan.training.backbone or keeps(plan)}
        for name, plans in found.items()
    }


def missing_references(study: Study, trials: Sequence[Trial]) -> list[Proposal]:
    """The references that ``study`` asks for and that nobody has enqueued."""
    known = {trial.digest for trial in trials if trial.origin is Origin.REFERENCE}
    wanted = {
        label: plan
        for plans in reference_sweep(study).values()
        for label, plan in plans.items()
        if plan.digest not in known
    }
    return _beside(study, wanted, trials, Origin.REFERENCE)


def _beside(
    study: Study, wanted: Mapping[str, Configuration], trials: Sequence[Trial], origin: Origin
) -> list[Proposal]:
    """Full runs of ``wanted``, by label, before anything else that waits.

    Each is trained in the data order of the search's own trials, or in one apart if the search has tried it itself.
    """
    ready = proposals(list(wanted.values()), trials, origin)
    return [
        replace(one, label=label, priority=1, rung=study.fidelity.top) for label, one in zip(wanted, ready, strict=True)
    ]


def proposals(configurations: Sequence[Configuration], trials: Sequence[Trial], origin: Origin) -> list[Proposal]:
    """``configurations`` ready for the queue; one that was tried before gets the next replicate number.

    One that another side tried (search, control or references) is numbered from ``APART`` on, so that every replicate
    that confirms is left to both.
    """
    side = _side(origin)
    taken = {(trial.digest, trial.replicate) for trial in trials}
    own = sorted((one.replicate, one.digest) for one in trials if _side(one.origin) == side and one.replicate < APART)
    latest = {digest: replicate for replicate, digest in own}
    ready = []
    for plan in configurations:
        replicate = latest[plan.digest] = latest.get(plan.digest, -1) + 1
        if (plan.digest, replicate) in taken:
            replicate = next(one for one in count(APART) if (plan.digest, one) not in taken)
        taken.add((plan.digest, replicate))
        ready.append(Proposal(plan, origin, replicate=replicate))
    return ready


def _side(origin: Origin) -> Origin:
    return Origin.MODEL if origin.is_searched else origin


def odds(study: Study, trials: Sequence[Trial]) -> dict[str, float]:
    """Posterior probability of being on the front, by digest, of every searched configuration that is complete.

    Noise makes members doubtful, and leaves others a chance. The draws depend on the study's seed alone.
    """
    from autopeft.optimizer.bayesian import membership  # scipy takes half a second to import

    space, generator = study.search_space, np.random.default_rng(study.seed)
    seen, asked = observations(study, trials), demands(study, trials)
    return membership(space, scale(study), study.objectives, seen, generator, asked)


def near(standing: Standing, trials: Sequence[Trial], odds: Mapping[str, float]) -> list[Trial]:
    """Searched trials that are no members of the front but have a chance of ``SLIM`` or more, the likeliest first."""
    members = {trial.digest for trial in standing.front}
    others = {
        trial.digest: trial
        for trial in reversed(trials)
        if trial.state is TrialState.COMPLETE and trial.digest not in members and odds.get(trial.digest, 0.0) >= SLIM
    }
    return sorted(others.values(), key=lambda trial: (-odds[trial.digest], trial.number))
