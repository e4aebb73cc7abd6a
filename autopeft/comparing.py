"""Trials beside each other: every measured value with its precision, and whether the first is told apart from the rest.

Pure. The quality is paired over validation rows; other values know only the spread of their repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autopeft.candidates import Marks, Measured, estimate_of, noise_of, repeats
from autopeft.precision import Difference, Estimate, difference
from autopeft.study import Origin, Study


@dataclass(frozen=True)
class Line:
    """One value of every trial that is compared.

    Attributes:
        name: Of the value.
        estimates: One a trial; None where it has no such value.
        differences: Of each trial to the first; None where either lacks it.
    """

    name: str
    estimates: tuple[Estimate | None, ...]
    differences: tuple[Difference | None, ...]


def compare(study: Study, chosen: Sequence[Measured], trials: Sequence[Measured], marks: Marks) -> list[Line]:
    """A line for each value that any of ``chosen`` has, the objectives first.

    Args:
        study: Names the objectives.
        chosen: What is compared; the first is what the others are compared with.
        trials: All trials of the study, for repeats and the noise of each value.
        marks: Per-row marks of the repeats of ``chosen``.
    """
    groups = repeats(trials)
    objectives = [objective.name for objective in study.objectives]
    names = list(dict.fromkeys([*objectives, *sorted({name for trial in chosen for name in trial.values})]))
    return [_line(name, chosen, groups, trials, marks if name == study.metric else {}) for name in names]


def _line(
    name: str,
    chosen: Sequence[Measured],
    groups: Mapping[str, Sequence[Measured]],
    trials: Sequence[Measured],
    marks: Marks,
) -> Line:
    noise = noise_of(trials, name)
    estimates = []
    for trial in chosen:
        same = [trial] if trial.origin is Origin.CONFIRMATION else groups.get(trial.digest, [])
        group = [one for one in same if name in one.values]
        estimates.append(estimate_of(group, name, marks, noise) if group else None)
    first = estimates[0]
    differences = [difference(one, first) if one and first else None for one in estimates]
    return Line(name, tuple(estimates), tuple(differences))
