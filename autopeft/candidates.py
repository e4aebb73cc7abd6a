"""A front's members as candidates to pick from, with the precision of their quality; repeats of one plan are one. Pure.

What several trials of the same configuration measured is averaged: the luckiest repeat is no better plan. What was
trained again for the verdict is none of them: it had no part in the choice, and tells only how far seeds differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from autopeft.objectives import Scored, point
from autopeft.picking import Candidate
from autopeft.precision import Estimate, Noise, estimate, pooled_noise
from autopeft.study import Origin, Study, TrialState


class Measured(Scored, Protocol):
    """What is needed of a trial: ``Trial``, ``Summary`` and ``Glance`` have it."""

    @property
    def digest(self) -> str:
        """Equal for repeats."""


Marks = Mapping[int, Sequence[int]]
"""Per-row marks by trial number."""


def repeats(trials: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Complete trials by digest, in order of their numbers, without those that confirm."""
    return _by_digest([trial for trial in trials if trial.origin is not Origin.CONFIRMATION])


def noise_of(trials: Sequence[Measured], name: str) -> Noise:
    """What another seed changes in the value ``name``, as the repeats among ``trials`` tell."""
    values = ([one.values[name] for one in group if name in one.values] for group in _by_digest(trials).values())
    return pooled_noise(group for group in values if group)


def estimate_of(group: Sequence[Measured], name: str, marks: Marks, noise: Noise) -> Estimate:
    """The value ``name`` of one plan, from its repeats (at least one)."""
    return estimate(
        [one.values[name] for one in group], [marks[one.number] for one in group if one.number in marks], noise
    )


def candidates(study: Study, trials: Sequence[Measured], front: Sequence[Measured], marks: Marks) -> list[Candidate]:
    """One candidate for each plan on ``front``, under the number of its first member there.

    Args:
        study: Names the objectives.
        trials: All trials, for repeats and for the noise.
        front: Members of the front.
        marks: Per-row marks, of the members' repeats at least.
    """
    groups, noise = repeats(trials), noise_of(trials, study.metric)
    found: dict[str, Candidate] = {}
    for member in front:
        placed = [(one, place) for one in groups.get(member.digest, ()) if (place := point(study, one)) is not None]
        if placed and member.digest not in found:
            means = tuple(sum(column) / len(placed) for column in zip(*(place for _, place in placed), strict=True))
            quality = estimate_of([one for one, _ in placed], study.metric, marks, noise)
            found[member.digest] = Candidate(member.number, means, quality)
    return list(found.values())


def repeat_numbers(trials: Sequence[Measured], front: Sequence[Measured]) -> list[int]:
    """Numbers of all repeats of the members of ``front``: those whose marks ``candidates`` wants."""
    groups = repeats(trials)
    return sorted({one.number for member in front for one in groups.get(member.digest, [])})


def _by_digest(trials: Sequence[Measured]) -> dict[str, list[Measured]]:
    groups: dict[str, list[Measured]] = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            groups.setdefault(trial.digest, []).append(trial)
    return groups
