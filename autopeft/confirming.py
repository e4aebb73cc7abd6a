"""Training the front and the control once more with fresh seeds, and what that says of them.

A front is chosen by its measured values, so these flatter it: the luckiest of many. Fresh seeds had no part in the
choice. Both sides are compared on the same replicates, because all trials of one share their data order. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from autopeft import control
from autopeft.candidates import Marks, estimate_of
from autopeft.objectives import Scored, T, point
from autopeft.picking import Candidate
from autopeft.precision import Noise, interaction_noise, turned_share
from autopeft.proxy import agreement
from autopeft.ranks import RankAgreement
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Origin, Proposal, Study, Trial, TrialState
from autopeft.verdict import Contender, Verdict, judge, memberships


def missing(study: Study, trials: Sequence[Trial], now: Standing[Trial]) -> list[Proposal]:
    """The confirmations that ``study`` asks for and that nobody has enqueued: of its front and of its control.

    Their replicates begin where those end that the search itself may ask for.
    """
    top = study.fidelity.top
    return [
        Proposal(trial.configuration, Origin.CONFIRMATION, f"trial {trial.number} again", replicate, 1, top)
        for trial, replicate in _wanted(study, trials, now)
    ]


def missing_count(study: Study, trials: Sequence[T], now: Standing[T]) -> int:
    """How many that are, of trials in any form."""
    return len(_wanted(study, trials, now))


def _wanted(study: Study, trials: Sequence[T], now: Standing[T]) -> list[tuple[T, int]]:
    known = {(trial.digest, trial.replicate) for trial in trials}
    out = control.rejected(study, trials)
    swept = [one for one in trials if one.origin is Origin.CONTROL and one.state is TrialState.COMPLETE]
    wanted = {
        (trial.digest, replicate): (trial, replicate)
        for replicate in range(study.repeats, study.repeats + study.confirmations)
        for trial in (*now.front, *(one for one in swept if one.digest not in out))
    }
    return [one for place, one in wanted.items() if place not in known]


def will_come(study: Study, trials: Sequence[Scored]) -> bool:
    """Whether the search trains front and control again by itself: it has not reached its target yet.

    A search that ends by the clock does not.
    """
    proposed = sum(trial.origin.is_searched for trial in trials)
    under_way = proposed < study.trials or not all(trial.state.rests for trial in trials)
    under_way = under_way or bool(control.missing(study, trials))
    return bool(study.confirmations) and study.hours is None and under_way


M = TypeVar("M", bound=Scored)


@dataclass(frozen=True)
class Confirmed:
    """What fresh seeds say of a front and its control.

    Attributes:
        front: The members that were trained again, cheapest first.
        control: The control, likewise.
        references: What stands beside both, by the only runs that they have: nobody chose these.
        verdict: The comparison; None where either side lacks a second run.
        memberships: By number of each confirmed member, the probability that no other member dominates it.
        ranks: How well a sibling ordered what was trained again, for a study that has one.
    """

    front: tuple[Candidate, ...]
    control: tuple[Candidate, ...]
    verdict: Verdict | None
    memberships: dict[int, float]
    references: tuple[Candidate, ...] = ()
    ranks: RankAgreement | None = None


UNCONFIRMED = Confirmed((), (), None, {})
"""What is known before anything was trained again."""


def numbers(trials: Sequence[T]) -> list[int]:
    """Numbers of the trials whose marks of single rows ``confirmed`` wants."""
    return [one.number for one in trials if one.origin in (Origin.CONTROL, Origin.CONFIRMATION, Origin.REFERENCE)]


def confirmed(
    study: Study, trials: Sequence[T], now: Standing[M], marks: Marks, budget: int | None = None
) -> Confirmed:
    """The front and the control by runs that did not choose them, and the verdict.

    Args:
        study: The study.
        trials: All its trials.
        now: Where it stands.
        marks: Per-row marks, of the trials in ``numbers`` at least.
        budget: A tighter limit on trained parameters than the study's, or None.
    """
    ceiling = study.budget.parameters if budget is None else budget
    done = [one for one in trials if one.state is TrialState.COMPLETE and point(study, one) is not None]
    again: dict[str, list[T]] = {}
    for one in done:
        if one.origin is Origin.CONFIRMATION:
            again.setdefault(one.digest, []).append(one)
    front = [one for one in now.front if one.digest in again]
    sweep = [
        one
        for one in done
        if one.origin is Origin.CONTROL and one.digest in again and one.values[PARAMETERS] <= ceiling
    ]
    # nobody chose these by their first runs, which therefore tell how far runs differ
    chosen = control.first_digests(study)
    first = [one for one in sweep if study.proxy is None and one.digest not in chosen]  # else another model's
    runs = [again[one.digest] for one in front] + [
        [*([one] if one in first else []), *again[one.digest]] for one in sweep
    ]
    noise = replace(
        interaction_noise({run.replicate: run.values[study.metric] for run in group} for group in runs),
        turned=turned_share([marks[run.number] for run in group if run.number in marks] for group in runs),
    )
    ours = [_contender(study, one, again[one.digest], marks, noise) for one in front]
    theirs = [_contender(study, one, again[one.digest], marks, noise) for one in sweep]
    generator = np.random.default_rng(study.seed)
    verdict = judge(ours, theirs, now.box, ceiling, noise, generator) if ours and theirs else None
    chances = memberships(ours, noise, generator)
    return Confirmed(
        tuple(one.candidate for one in ours),
        tuple(one.candidate for one in theirs),
        verdict,
        {one.candidate.number: chance for one, chance in zip(ours, chances, strict=True)},
        tuple(_contender(study, one, [one], marks, noise).candidate for one in now.beside if ours or theirs),
        agreement(study, trials),
    )


def _contender(study: Study, member: Scored, runs: Sequence[T], marks: Marks, noise: Noise) -> Contender:
    """``member`` by ``runs``; costs are means too, which changes only those that are measured."""
    points = [found for run in runs if (found := point(study, run)) is not None]
    values = tuple(sum(column) / len(points) for column in zip(*points, strict=True))
    quality = estimate_of(runs, study.metric, marks, noise)
    return Contender(Candidate(member.number, values, quality), int(member.values[PARAMETERS]))
