"""The front after the final training: its members and the control's on the test split, who stays and who falls off.

Values are means over seeds that no search saw, on rows that no search saw, so that nothing flatters them; the verdict
on front against control is that of ``autopeft.verdict``, on these runs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autopeft.confirming import Confirmed
from autopeft.final import FinalRun, compared_quality, cost_figures
from autopeft.objectives import KINDS, point, show
from autopeft.picking import Candidate
from autopeft.precision import Noise, estimate, interaction_noise, turned_share
from autopeft.promise import Comparison, Promise
from autopeft.ruling import ruling_document, ruling_lines
from autopeft.standing import Standing, standing
from autopeft.study import PARAMETERS, Study, Trial
from autopeft.verdict import Contender, judge, memberships

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True)
class Finished:
    """One member of either side, trained in full.

    Attributes:
        trial: As the search has it.
        runs: One a seed.
        promise: What the search says of it.
        as_searched: Whether it was trained as the search trains.
        harness: By task of lm-evaluation-harness the scores of the adapter that is kept, if they were asked for.
    """

    trial: Trial
    runs: tuple[FinalRun, ...]
    promise: Promise | None
    as_searched: bool
    harness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FinalFront:
    """Both sides after the final training.

    Attributes:
        study: The study.
        split: What was scored: ``test``, or ``validation`` where the task has no test split.
        finished: Members of the search's front, then of the control's, by number.
        standing: Of the final values.
        confirmed: Qualities with their precision, the verdict, and how likely each member is on the front.
        fallen: Numbers of members of the search's front that are on it no more, each with one that is better.
    """

    study: Study
    split: str
    finished: Mapping[int, Finished]
    standing: Standing[Any]
    confirmed: Confirmed
    fallen: Mapping[int, int | None]

    @property
    def known(self) -> dict[int, Candidate]:
        """Qualities with their precision, by number."""
        return {one.number: one for one in (*self.confirmed.front, *self.confirmed.control)}

    def compared(self, number: int) -> Comparison | None:
        """The quality of a member beside its promise; None without one."""
        one = self.finished[number]
        return compared_quality(self.study.metric, one.promise, one.runs, self.split, as_searched=one.as_searched)


def final_front(study: Study, searched: Standing[Trial], finished: Sequence[Finished]) -> FinalFront:
    """The front of the final values.

    Args:
        study: The study.
        searched: Where the search ended.
        finished: Every member of its front and its control.
    """
    split = TEST if all(run.test is not None for one in finished for run in one.runs) else VALIDATION
    by_number = {one.trial.number: one for one in finished}
    finals = {number: _final(study, one, split) for number, one in by_number.items()}
    reference = list(searched.references)
    now = standing(study, [*finals.values(), *reference])
    noise = replace(
        interaction_noise({run.seed: _score(study, run, split) for run in one.runs} for one in finished),
        turned=turned_share(_marks(one, split) for one in finished),
    )
    ours, theirs = (
        [_contender(study, finals[one.number], by_number[one.number], split, noise) for one in side]
        for side in (searched.front, searched.control)
    )
    generator = np.random.default_rng(study.seed)
    budget = study.budget.parameters
    verdict = judge(ours, theirs, searched.box, budget, noise, generator) if ours and theirs else None
    chances = memberships(ours, noise, generator)
    confirmed = Confirmed(
        tuple(one.candidate for one in ours),
        tuple(one.candidate for one in theirs),
        verdict,
        {one.candidate.number: chance for one, chance in zip(ours, chances, strict=True)},
    )
    kept = {one.number for one in now.front}
    fallen = {
        one.number: _better(study, finals[one.number], now.front) for one in searched.front if one.number not in kept
    }
    return FinalFront(study, split, by_number, now, confirmed, fallen)


def _score(study: Study, run: FinalRun, split: str) -> float:
    return run.values[study.metric] if split == VALIDATION or run.test is None else run.test


def _final(study: Study, one: Finished, split: str) -> Trial:
    """The trial with the means of its final runs."""
    values = dict(one.trial.values) | {figure.name: figure.value for figure in cost_figures(one.runs)}
    losses = [run.values["loss"] if split == VALIDATION else float(run.test_loss or 0.0) for run in one.runs]
    scores = [_score(study, run, split) for run in one.runs]
    return one.trial.with_values(values | {study.metric: sum(scores) / len(scores), "loss": sum(losses) / len(losses)})


def _marks(one: Finished, split: str) -> list[Sequence[int]]:
    """Of the rows of ``split``, of the runs that have them."""
    marks = [run.correct if split == VALIDATION else run.test_correct for run in one.runs]
    return [mark for mark in marks if mark]


def _contender(study: Study, final: Trial, one: Finished, split: str, noise: Noise) -> Contender:
    quality = estimate([_score(study, run, split) for run in one.runs], _marks(one, split), noise)
    return Contender(Candidate(final.number, point(study, final) or (), quality), int(final.values[PARAMETERS]))


def _better(study: Study, fallen: Trial, front: Sequence[Trial]) -> int | None:
    """A member of the front that is as good in everything and better in something; None if a limit is broken."""
    quality, *costs = point(study, fallen) or (0.0,)
    for one in front:
        other, *others = point(study, one) or (0.0,)
        if other >= quality and all(theirs <= ours for theirs, ours in zip(others, costs, strict=True)):
            return one.number
    return None


def final_document(front: FinalFront) -> dict[str, Any]:
    """The document ``autopeft.final/1``."""
    return {
        "schema": "autopeft.final/1",
        "study": front.study.name,
        "metric": front.study.metric,
        "split": front.split,
        "seeds": [run.seed for run in next(iter(front.finished.values())).runs],
        "front": [one.number for one in front.standing.front],
        "fell_off": [{"trial": number, "better": better} for number, better in front.fallen.items()],
        "hypervolume": front.standing.hypervolume,
        "control_hypervolume": front.standing.control_hypervolume,
        "members": [_row(front, one, side) for side, group in _sides(front) for one in group],
        **ruling_document(front.confirmed),
    }


def _sides(front: FinalFront) -> Iterator[tuple[str, Sequence[Candidate]]]:
    yield "front", front.confirmed.front
    yield "control", front.confirmed.control


def _row(front: FinalFront, one: Candidate, side: str) -> dict[str, Any]:
    compared = front.compared(one.number)
    names = [objective.name for objective in front.study.objectives]
    return {
        "trial": one.number,
        "side": side,
        "label": front.finished[one.number].trial.label,
        "on_front": one.number in {trial.number for trial in (*front.standing.front, *front.standing.control)},
        "values": dict(zip(names, one.values, strict=True)),
        "error": one.quality.error,
        "runs": one.quality.repeats,
        "promise": None if compared is None else compared.to_json(),
        **({"lm_eval": harness} if (harness := front.finished[one.number].harness) else {}),
    }


def final_lines(front: FinalFront) -> Iterator[str]:
    """The final front for people: a table, who fell off, and the verdict."""
    study = front.study
    costs = [objective.name for objective in study.objectives[1:]]
    heads = "".join(f"{KINDS[name].heading:>14}" for name in costs)
    yield f"trial  {study.metric + ' on ' + front.split:>20}     ± se{heads}   {'promised':>8}   on front"
    for side, group in _sides(front):
        if side == "control":
            yield "control (LoRA rank sweep):"
        for one in sorted(group, key=lambda each: each.values[1:]):
            yield _line(front, one, costs, side)
    for number, better in front.fallen.items():
        why = f"trial {better} is as good or better at no more cost" if better is not None else "it breaks a limit"
        yield f"trial {number} falls off the front: {why}"
    if not front.fallen:
        yield "every member of the search's front stays on it"
    held = [found.answer.value for number in front.known if (found := front.compared(number))]
    if held:
        yield f"promises: {', '.join(f'{held.count(each)} {each}' for each in dict.fromkeys(held))}"
    yield from harness_lines(front)
    if front.split == VALIDATION:
        yield "the task has no test split: these are validation rows, on which the search ranked, with fresh seeds"
    yield from ruling_lines(study, front.confirmed)


def harness_lines(front: FinalFront) -> Iterator[str]:
    """What lm-evaluation-harness says of each member, a line a task; nothing if it was not asked for."""
    for number in front.known:
        for task, scores in front.finished[number].harness.items():
            listed = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items() if "stderr" not in metric)
            yield f"lm-eval {task}: trial {number} {listed}"


def _line(front: FinalFront, one: Candidate, costs: Sequence[str], side: str) -> str:
    error = "" if one.quality.error is None else f"{one.quality.error:.4f}"
    values = "".join(f"{show(name, value):>14}" for name, value in zip(costs, one.values[1:], strict=True))
    compared = front.compared(one.number)
    promised = "–" if compared is None else f"{compared.promised.value:.4f}"
    if side == "control":
        last = front.finished[one.number].trial.label or ""
    else:
        chance = front.confirmed.memberships[one.number]
        last = f"{chance:.0%}" + ("  falls off" if one.number in front.fallen else "")
    return f"{one.number:>5}  {one.quality.mean:>20.4f}  {error:>7}{values}   {promised:>8}   {last}"
