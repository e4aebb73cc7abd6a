"""Which trials climb the ladder of fidelities, decided from the trials alone: no database, no clock.

As in ASHA (arXiv 1810.05934) nobody waits for a rung to fill: whenever it is asked, the better half of those that have
finished a rung goes on. Better is decided by non-dominated rank on (validation loss, costs), as in NSGA-II
(doi 10.1109/4235.996017); within a rank the ends of the axes come first and then who stands alone, so the cheapest
trial and the one with the least loss always go on. Loss, not the metric: at a quarter of the run it was measured to say
more of the final metric than the metric itself. Only searched trials compete: control and reference begin at the top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autopeft import control
from autopeft.errors import AutopeftError
from autopeft.fidelity import Fidelity
from autopeft.objectives import figures
from autopeft.study import Origin, Study, Trial, TrialState

KEPT_FRACTION = 0.5
"""Share of the trials at a rung that goes on to the next."""

LEAST_COST, UNKNOWN_COST = 1e-9, 1e30
"""What stands for a cost of nothing on a log scale, and for one that is not known at a rung."""

SEARCHED = (Origin.INITIAL, Origin.MODEL)

Array = NDArray[np.float64]


class Climber(Protocol):
    """What of a trial tells where it stands on the ladder."""

    @property
    def origin(self) -> Origin:
        """Who asked for it."""

    @property
    def state(self) -> TrialState:
        """Where it stands."""

    @property
    def rung(self) -> int:
        """Rungs finished."""


def promotions(study: Study, trials: Sequence[Trial], *, more_to_come: bool) -> list[int]:
    """Numbers of the PAUSED trials that are to go on now, those of the highest rung first.

    Args:
        study: The study.
        trials: All its trials.
        more_to_come: Whether trials may still be proposed. While they may, or while trials are on their way to a rung,
            half of those that are there are rounded down; once a rung has all it will ever have, up.
    """
    searched = [trial for trial in trials if trial.origin in SEARCHED]
    chosen: list[int] = []
    for rung in reversed(range(study.fidelity.top)):
        finished = [trial for trial in searched if trial.values_at(rung) is not None]
        on_the_way = more_to_come or any(_may_reach(trial, rung, chosen) for trial in searched)
        share = KEPT_FRACTION * len(finished)
        count = math.floor(share) if on_the_way else math.ceil(share)
        best = [finished[index] for index in ranking(_coordinates(study, finished, rung))[:count]]
        chosen += [trial.number for trial in best if trial.state is TrialState.PAUSED and trial.rung == rung + 1]
    return chosen


def promotion_is_due(fidelity: Fidelity, trials: Sequence[Climber]) -> bool:
    """Whether fewer have gone on from a rung than are to in the end, told from their numbers alone.

    Which these are needs their values (``promotions``), and may still change when all have gone on.
    """
    for rung in range(fidelity.top):
        finished = [trial for trial in trials if trial.origin in SEARCHED and trial.rung > rung]
        wait = sum(trial.state is TrialState.PAUSED and trial.rung == rung + 1 for trial in finished)
        if len(finished) - wait < math.ceil(KEPT_FRACTION * len(finished)):
            return True
    return False


def is_over(study: Study, trials: Sequence[Trial], *, more_to_come: bool) -> bool:
    """Whether nothing waits, runs or goes on any more, and the control has all its trials."""
    if more_to_come or not all(trial.state.rests for trial in trials):
        return False
    return not control.missing(study, trials) and not promotions(study, trials, more_to_come=False)


def require_unfinished(study: Study, trials: Sequence[Trial]) -> None:
    """Nothing, if ``study`` has something left to do.

    Raises:
        AutopeftError: If its target is reached; the message says how to raise it.
    """
    proposed = proposed_count(trials)
    if is_over(study, trials, more_to_come=proposed < study.trials):
        raise AutopeftError(
            f"study {study.name} has reached its target of {study.trials} trials; "
            f"autopeft resume {study.name} --trials {max(proposed, study.trials) * 2} goes on"
        )


def proposed_count(trials: Sequence[Trial]) -> int:
    """Trials that the search proposed and nobody cancelled; control and reference are not among them.

    What was cancelled is made up for: whoever asked for so many trials gets them.
    """
    return sum(trial.origin in SEARCHED and trial.state is not TrialState.CANCELLED for trial in trials)


def as_if_running(trial: Trial) -> Trial:
    """``trial`` without what its latest attempt brought, as it was while that ran."""
    if not trial.state.rests:
        return trial
    if not trial.values:
        return replace(trial, state=TrialState.RUNNING)
    before = trial.rung - 1
    lower = {rung: values for rung, values in trial.lower.items() if rung < before - 1}
    return replace(
        trial, state=TrialState.RUNNING, rung=before, values=trial.lower.get(before - 1, {}), lower=lower, error=None
    )


def share_left(study: Study, trial: Trial) -> float:
    """Expected share of a full run that is still to be trained, if every promotion is as likely as its share says."""
    if trial.state.is_final:
        return 0.0
    if trial.origin not in SEARCHED:
        return 1.0
    expected = expected_share(study.fidelity, trial.rung)
    return KEPT_FRACTION * expected if trial.state is TrialState.PAUSED else expected


def expected_share(fidelity: Fidelity, rung: int = 0) -> float:
    """Expected share of a full run for which a searched trial is trained from the rung below ``rung`` on."""
    total, likely = 0.0, 1.0
    before = fidelity.share_at(rung - 1) if rung else 0.0
    for step in range(rung, fidelity.top + 1):
        total += likely * (fidelity.share_at(step) - before)
        likely, before = likely * KEPT_FRACTION, fidelity.share_at(step)
    return total


def ranking(points: Array) -> list[int]:
    """Indices of the points [n, m], best first: by non-dominated rank, then by how alone a point stands in it.

    Every coordinate is better when smaller. The ends of each coordinate in a rank stand alone without limit.
    """
    order: list[int] = []
    left = list(range(len(points)))
    while left:
        rank = [i for i in left if not any(_dominates(points[j], points[i]) for j in left)]
        alone = _crowding(points[rank])
        order += [rank[k] for k in sorted(range(len(rank)), key=lambda k: (-alone[k], *points[rank[k]], rank[k]))]
        left = [i for i in left if i not in rank]
    return order


def _dominates(one: Array, other: Array) -> bool:
    return bool((one <= other).all() and (one < other).any())


def _crowding(points: Array) -> Array:
    """Sum over the coordinates of the distance between a point's neighbours, scaled; shape [n]."""
    distances = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        spread = values[order[-1]] - values[order[0]]
        distances[order[[0, -1]]] = math.inf
        if spread > 0:
            distances[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return distances


def _coordinates(study: Study, trials: Sequence[Trial], rung: int) -> Array:
    """(loss, costs) of trials that have finished ``rung``, shape [n, m]; positive costs on a log scale."""
    names = [objective.name for objective in study.objectives[1:]]
    rows = []
    for trial in trials:
        values = trial.values_at(rung) or {}
        costs = figures(study, replace(trial, values=values), names)
        rows.append([values["loss"], *(math.log(max(costs.get(name, UNKNOWN_COST), LEAST_COST)) for name in names)])
    return np.array(rows).reshape(len(trials), 1 + len(names))


def _may_reach(trial: Trial, rung: int, chosen: Sequence[int]) -> bool:
    """Whether the trial has not finished ``rung`` and is on its way there."""
    under_way = trial.state in (TrialState.QUEUED, TrialState.RUNNING) or trial.number in chosen
    return under_way and trial.rung <= rung
