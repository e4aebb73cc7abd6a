"""The axis of every objective of a study: what is 0, what is 1, and on which scale. One box a study, kept on resume.

Quality and trained parameters have the box of ``autopeft.pareto.Scale``. Every other cost has a log axis from half the
smallest to twice the largest value of some anchors: of an exact cost configurations spread over the space within the
budget (fixed when the study is made, and stored), of a measured one the head-only reference and the control, which
every search trains first. The loss has a linear axis from 0 to the anchors' largest. A limit is the end of its axis, as
the budget is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autopeft import pareto
from autopeft.errors import BudgetError
from autopeft.foresight import foreseen_memory
from autopeft.objectives import KINDS, Scored, exact, figures, parse, show
from autopeft.study import PARAMETERS, Objective, Origin, Study, TrialState
from search_spaces.configuration import Configuration

SPREAD = 128
"""Configurations of the space that the box of an exact cost is anchored on."""

MARGIN = 2.0
"""How far beyond its anchors a log axis goes, as a factor."""


def scale(study: Study, budget: int | None = None) -> pareto.Scale:
    """The box of quality against trained parameters.

    Args:
        study: The study.
        budget: A tighter limit on trained parameters than the study's, or None.
    """
    ceiling = study.budget.parameters if budget is None else budget
    return pareto.Scale(study.quality_floor, study.search_space.smallest_cost, ceiling)


def box(study: Study, trials: Sequence[Scored], budget: int | None = None) -> pareto.Box:
    """The box that hypervolumes of ``study`` are measured in, given what its first trials showed.

    Args:
        study: The study.
        trials: All its trials.
        budget: A tighter limit on trained parameters than the study's, or None.
    """
    two = scale(study, budget)
    costs = [
        two.cost if objective.name == PARAMETERS else cost_axis(study, objective, trials)
        for objective in study.objectives[1:]
    ]
    return pareto.Box((two.quality, *costs))


def cost_axis(study: Study, objective: Objective, trials: Sequence[Scored]) -> pareto.Axis:
    """The axis of a cost other than the trained parameters; of length 0 while nothing of it is known."""
    kind = KINDS[objective.name]
    if kind.exact:
        best, worst = objective.box or exact_box(study, objective.name)
    else:
        best, worst = _between(_anchors(study, objective.name, trials), kind.logarithmic)
    limit = study.limits.get(objective.name)
    if limit is not None:
        best, worst = min(best, limit / MARGIN), min(worst, limit)
    return pareto.Axis(best, worst, kind.logarithmic)


def with_boxes(study: Study) -> Study:
    """``study`` with the boxes of its exact costs fixed."""

    def boxed(objective: Objective) -> Objective:
        is_exact = objective.name in KINDS and KINDS[objective.name].exact and objective.name != PARAMETERS
        fixed = objective.box is not None or not is_exact
        return objective if fixed else replace(objective, box=exact_box(study, objective.name))

    return replace(study, objectives=tuple(boxed(objective) for objective in study.objectives))


def trading(study: Study, names: str) -> Study:
    """``study`` as if the objectives in ``names`` had been asked for; its limits stay.

    Raises:
        ConfigurationError: If the names are not valid objectives of it.
    """
    kept = {objective.name: objective for objective in study.objectives}
    objectives = [kept.get(objective.name, objective) for objective in parse(names, study.metric, {})]
    return with_boxes(replace(study, objectives=tuple(objectives)))


def exact_box(study: Study, name: str) -> tuple[float, float]:
    """The ends of the axis of an exact cost, from configurations spread over the space within the budget."""
    function = exact(study)[name]
    return _between([function(plan) for plan in _spread(study)], KINDS[name].logarithmic)


def require_feasible(study: Study) -> None:
    """Nothing, if configurations spread over the space keep the exact limits of ``study`` together.

    Of the peak memory a lower bound is known before any trial.

    Raises:
        BudgetError: If none of them does; the message names the least of each cost.
    """
    functions = {name: function for name, function in exact(study).items() if name in study.limits}
    if "peak_memory" in study.limits and (bound := foreseen_memory(study, ())) is not None:
        functions["peak_memory"] = bound
    values = [{name: function(plan) for name, function in functions.items()} for plan in _spread(study)]
    if not any(all(value[name] <= study.limits[name] for name in functions) for value in values):
        least = [f"{name} {show(name, min(value[name] for value in values))}" for name in functions]
        asked = [f"{name} ≤ {show(name, study.limits[name])}" for name in functions]
        raise BudgetError(
            f"limits {', '.join(asked)}: none of {len(values)} configurations spread over space {study.space.name} "
            f"keeps them; the least seen: {', '.join(least)}"
        )


def _spread(study: Study) -> list[Configuration]:
    """The smallest configuration of the space, and others of every size up to the budget; the same every time."""
    space = study.search_space
    units = np.random.default_rng(0).random((SPREAD, space.dimension_count + 1))
    units[0, 0] = 0.0
    return [space.decode(point) for point in space.place_points(units, study.budget.parameters)]


def _anchors(study: Study, name: str, trials: Sequence[Scored]) -> list[float]:
    """What the head alone and the control showed of a measured cost; before that, what the first trial showed."""
    seen = [
        (trial, found[name])
        for trial in trials
        if trial.state is TrialState.COMPLETE and (found := figures(study, trial, [name]))
    ]
    fixed = [
        value
        for trial, value in seen
        if trial.origin is Origin.CONTROL or (trial.origin is Origin.REFERENCE and not trial.values[PARAMETERS])
    ]
    return fixed or [value for _, value in seen[:1]]


def _between(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """The ends of an axis around ``values``; equal ones if none is above 0."""
    positive = [value for value in values if value > 0]
    if not positive:
        return 1.0, 1.0
    return (min(positive) / MARGIN, max(positive) * MARGIN) if logarithmic else (0.0, max(positive))
