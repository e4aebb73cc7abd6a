"""Where a study stands: its front, the control's front, the head-only reference and their hypervolumes.

Pure: trials in, standing out; used by the driver, the reports and the dashboard alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopeft import pareto
from autopeft.study import PARAMETERS, Origin, Study, Trial, TrialState


@dataclass(frozen=True, slots=True)
class Standing:
    """A study at one moment.

    Attributes:
        front: Members of the search's front, cheapest first.
        control: Members of the control's front, cheapest first.
        reference: The head-only trial, once complete.
        hypervolume: Of ``front``, in [0, 1].
        control_hypervolume: Of ``control``, in [0, 1].
    """

    front: tuple[Trial, ...]
    control: tuple[Trial, ...]
    reference: Trial | None
    hypervolume: float
    control_hypervolume: float


def scale(study: Study, budget: int | None = None) -> pareto.Scale:
    """The box that hypervolumes of ``study`` are measured in."""
    ceiling = study.budget.parameters if budget is None else budget
    return pareto.Scale(study.quality_floor, study.search_space.smallest_cost, ceiling)


def point(study: Study, trial: Trial) -> pareto.Point:
    """(quality, cost) of a complete trial, as measured."""
    return trial.values[study.metric], trial.values[PARAMETERS]


def standing(study: Study, trials: Sequence[Trial], budget: int | None = None) -> Standing:
    """The standing of ``study`` given its trials.

    Args:
        study: The study.
        trials: All its trials.
        budget: A tighter limit on trainable parameters than the study's, or None.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    box = scale(study, budget)
    within = [trial for trial in complete if trial.values[PARAMETERS] <= box.cost_ceiling]
    searched = [trial for trial in within if trial.origin in (Origin.INITIAL, Origin.MODEL)]
    control = [trial for trial in within if trial.origin is Origin.CONTROL]
    reference = next((trial for trial in complete if trial.origin is Origin.REFERENCE), None)
    return Standing(
        front=_members(study, searched),
        control=_members(study, control),
        reference=reference,
        hypervolume=pareto.hypervolume([point(study, trial) for trial in searched], box),
        control_hypervolume=pareto.hypervolume([point(study, trial) for trial in control], box),
    )


def _members(study: Study, trials: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(trials[index] for index in pareto.front([point(study, trial) for trial in trials]))
