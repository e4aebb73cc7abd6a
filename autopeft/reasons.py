"""Why a trial is on the front, or is not: what it dominates, what dominates it, its neighbours, its repeats. Pure.

Objectives are compared as measured, quality upwards and costs downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autopeft import control
from autopeft.candidates import Measured
from autopeft.objectives import KINDS, point, show
from autopeft.study import PARAMETERS, Direction, Origin, Study, TrialState

NAMED = 3
"""Trials that are named where many would do."""

T = TypeVar("T", bound=Measured)


def searched(trials: Sequence[T]) -> list[T]:
    """Complete trials that the search itself proposed: those that may stand on its front."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.origin.is_searched]


@dataclass(frozen=True, slots=True)
class Rival:
    """A trial with its objectives, in the order of the study."""

    number: int
    digest: str
    place: tuple[float, ...]


@dataclass(frozen=True)
class Rivals:
    """All searched trials of a study: made once, asked for each trial.

    Attributes:
        study: Names the objectives.
        known: The trials.
        losses: Their objectives, the smaller the better, shape [n, m].
    """

    study: Study
    known: tuple[Rival, ...]
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, study: Study, trials: Sequence[Measured]) -> Rivals:
        """Those of ``trials`` that have every objective."""
        known = tuple(
            Rival(one.number, one.digest, place) for one in searched(trials) if (place := point(study, one)) is not None
        )
        losses = np.array([one.place for one in known]).reshape(len(known), len(study.objectives)) * _signs(study)
        return cls(study, known, losses)

    def others(self, digest: str) -> int:
        """How many of them are of other plans."""
        return sum(one.digest != digest for one in self.known)

    def dominated_by(self, place: Sequence[float]) -> int:
        """How many of them a trial at ``place`` dominates."""
        gains = self.losses - np.array(place) * _signs(self.study)
        return int(((gains >= 0).all(axis=1) & (gains > 0).any(axis=1)).sum())


def _signs(study: Study) -> NDArray[np.float64]:
    return np.array([-1.0 if one.direction is Direction.MAXIMISE else 1.0 for one in study.objectives])


def reasons(rivals: Rivals, trials: Sequence[Measured], front: Sequence[Measured], number: int) -> list[str]:
    """Sentences on the place of trial ``number``; none before it is measured.

    Args:
        rivals: All searched trials.
        trials: All trials.
        front: Members of the front.
        number: The trial.
    """
    study = rivals.study
    trial = next((one for one in trials if one.number == number), None)
    if trial is None or trial.state is not TrialState.COMPLETE or point(study, trial) is None:
        return []
    if trial.origin is Origin.REFERENCE:
        if trial.values[PARAMETERS]:
            return ["It is a reference beside the search: on no front, and no part of the verdict."]
        return ["It is the backbone with a trained head and no adapter: what every adapter has to be better than."]
    same = [one for one in trials if one.digest == trial.digest and one.state is TrialState.COMPLETE]
    again = [one for one in same if one.origin is Origin.CONFIRMATION]
    group = [one for one in same if one not in again]
    if trial in again:
        return (
            [f"It trains trial {group[0].number} again for the verdict, and is no point of its own."] if group else []
        )
    members = [Rival(one.number, one.digest, place) for one in front if (place := point(study, one)) is not None]
    here = Rival(number, trial.digest, _mean(study, group))
    if any(member.digest == trial.digest for member in members):
        found = _on_front(rivals, here, members)
    else:
        found = _off_front(study, here, members, is_control=trial.origin is Origin.CONTROL)
    if trial.digest in control.rejected(study, trials):
        found.append("It was trained to choose the control's learning rate; its own was not chosen.")
    return [*found, *_repeats(study, here, group, members), *_fresh(study, again)]


def _mean(study: Study, group: Sequence[Measured]) -> tuple[float, ...]:
    places = [place for one in group if (place := point(study, one)) is not None]
    return tuple(sum(column) / len(column) for column in zip(*places, strict=True))


def dominates(study: Study, left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether ``left`` is at least as good in every objective, and better in one; both in the order of the study."""
    gains = (np.array(right) - np.array(left)) * _signs(study)
    return bool(gains.min() >= 0 and gains.max() > 0)


def _on_front(rivals: Rivals, here: Rival, members: Sequence[Rival]) -> list[str]:
    study, beaten = rivals.study, rivals.dominated_by(here.place)
    found = [
        f"On the front: no searched trial dominates it; it dominates {beaten:,} of {rivals.others(here.digest):,}."
    ]
    near = sorted(
        (one for one in members if one.digest != here.digest), key=lambda one: abs(one.place[0] - here.place[0])
    )
    better = next((one for one in near if one.place[0] > here.place[0]), None)
    worse = next((one for one in near if one.place[0] < here.place[0]), None)
    below = "Next cheaper" if len(study.objectives) == 2 else "Next below in quality"
    found += [f"Next better: {_step(study, here, better)}."] if better else ["No member has a better quality."]
    found += [f"{below}: {_step(study, here, worse)}."] if worse else ["No member has a lower quality."]
    return found


def _off_front(study: Study, here: Rival, members: Sequence[Rival], *, is_control: bool) -> list[str]:
    above = [one for one in members if dominates(study, one.place, here.place)]
    if is_control:
        if not above:
            return ["Control: no member of the search's front dominates it."]
        return [f"Control: dominated by {_named(study, here, above)} of the search."]
    if above:
        return [f"Not on the front: dominated by {_named(study, here, above)}."]
    return ["Not on the front: a member has the same values, or it is beyond a limit or the budget."]


def _repeats(study: Study, here: Rival, group: Sequence[Measured], members: Sequence[Rival]) -> list[str]:
    if len(group) < 2:
        return ["One run: no repeat tells what another seed would have brought."]
    scores = [one.values[study.metric] for one in group]
    listed = ", ".join(f"{one.values[study.metric]:.4f} (trial {one.number})" for one in group)
    found = [f"{len(group)} repeats: {listed}; their mean of {here.place[0]:.4f} is what counts."]
    luckiest = group[scores.index(max(scores))]
    alone = (max(scores), *here.place[1:])
    above = [one for one in members if one.digest != here.digest and dominates(study, one.place, here.place)]
    if above and not any(dominates(study, one.place, alone) for one in members):
        found.append(
            f"Trial {luckiest.number} alone would be on the front; the mean is dominated by trial {above[0].number}."
        )
    return found


def _fresh(study: Study, again: Sequence[Measured]) -> list[str]:
    if not again:
        return []
    listed = ", ".join(f"{one.values[study.metric]:.4f} (trial {one.number})" for one in again)
    return [f"Trained again with fresh seeds, which had no part in the choice: {listed}."]


def _step(study: Study, here: Rival, other: Rival) -> str:
    parts = [f"{other.place[0] - here.place[0]:+.4f} {study.metric}"]
    for objective, before, after in zip(study.objectives[1:], here.place[1:], other.place[1:], strict=True):
        heading = KINDS[objective.name].heading if objective.name in KINDS else objective.name
        parts.append(f"{'+' if after > before else ''}{show(objective.name, after - before)} {heading}")
    return f"trial {other.number}, {', '.join(parts)}"


def _named(study: Study, here: Rival, above: Sequence[Rival]) -> str:
    ordered = sorted(above, key=lambda one: -one.place[0])[:NAMED]
    more = len(above) - len(ordered)
    return "; ".join(_step(study, here, one) for one in ordered) + (f" and {more} more" if more else "")
