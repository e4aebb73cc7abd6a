"""What is said of a verdict: one plain sentence, the gaps at shares of the budget, and a versioned document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from autopeft.confirming import Confirmed, will_come
from autopeft.objectives import Scored
from autopeft.picking import Candidate
from autopeft.standing import Standing
from autopeft.study import Origin, Study
from autopeft.verdict import Answer, Gap, Verdict


def ruling_document(confirmed: Confirmed) -> dict[str, Any]:
    """The keys ``verdict`` and ``confirmed`` of the document ``autopeft.front/1``."""
    verdict = confirmed.verdict
    return {
        "verdict": None if verdict is None else _verdict_document(verdict),
        "confirmed": {
            "front": [
                _candidate(one) | {"on_front_probability": confirmed.memberships[one.number]} for one in confirmed.front
            ],
            "control": [_candidate(one) for one in confirmed.control],
            "references": [_candidate(one) for one in confirmed.references],
        },
    }


def ruling_lines(study: Study, confirmed: Confirmed, *, to_come: bool = False) -> Iterator[str]:
    """The verdict for people, or how there will be one.

    Args:
        study: The study.
        confirmed: What fresh seeds say.
        to_come: Whether the search is going to train front and control again by itself.
    """
    verdict = confirmed.verdict
    if verdict is None:
        again = f"autopeft confirm {study.name} trains front and control again with fresh seeds"
        if to_come:
            seeds = f"{study.confirmations} fresh seed{'s' if study.confirmations > 1 else ''}"
            again = f"when the search has reached its target, it trains front and control again with {seeds}"
        yield f"verdict: none yet. The values above are also what chose the front, so they flatter it: {again}"
        return
    gap = verdict.hypervolume
    yield (
        f"verdict: {verdict.answer.value}. The front's hypervolume is {abs(gap.value):.3f} "
        f"{'above' if gap.value >= 0 else 'below'} the control's (95 % interval {_interval(gap)}); {_basis(verdict)}"
    )
    low, high = study.space.learning_rate
    if verdict.answer is Answer.BETTER and study.control_rates == 1 and low < high:
        yield (
            f"  the search chose among learning rates from {low:g} to {high:g}, the control had "
            f"{study.control_learning_rate:g} alone: without --control-rates 1 it has a choice too"
        )
    if verdict.answer is not Answer.BETTER:
        best = max(confirmed.control, key=lambda one: one.quality.mean)
        plain = f"plain LoRA (trial {best.number}, {study.metric} {best.quality.mean:.4f})"
        if verdict.answer is Answer.WORSE:
            yield f"  you did not need a search here: {plain} does better"
        else:  # a wide interval is no proof of the contrary
            yield f"  nothing here shows that a search was needed: {plain} may do as well"
    for share, gap in verdict.at:
        yield (
            f"  within {share:.0%} of the budget the best {study.metric} is {gap.value:+.4f} against the control's "
            f"({_interval(gap)}): {gap.answer.value}"
        )


def judgement(study: Study, trials: Sequence[Scored], standing: Standing[Any], confirmed: Confirmed) -> list[str]:
    """The verdict on a study in any state, a sentence a line, for pages that show it whether or not there is one.

    Args:
        study: The study.
        trials: All its trials.
        standing: Where it stands.
        confirmed: What fresh seeds say.
    """
    if not standing.front:
        return ["No searched trial within the budget is complete, so there is nothing to judge yet."]
    if not standing.control:
        return ["No trial of the control, the plain LoRA rank sweep, is complete, so nothing can be judged yet."]
    rests = [trial.state.rests for trial in trials if trial.origin is Origin.CONFIRMATION]
    if confirmed.verdict is None and not all(rests):
        return [
            f"verdict: none yet. Of {len(rests)} runs of front and control with fresh seeds {sum(rests)} have ended."
        ]
    return [line.strip() for line in ruling_lines(study, confirmed, to_come=will_come(study, trials))]


def _basis(verdict: Verdict) -> str:
    runs = f"{verdict.runs} run{'s' if verdict.runs > 1 else ''} or more each that did not choose it"
    unknown = [what for what, known in (("seeds", verdict.knows_seeds), ("rows", verdict.knows_rows)) if not known]
    return runs + "".join(f"; what other {what} would change is not in it" for what in unknown)


def _interval(gap: Gap) -> str:
    return f"{gap.low:+.3f} … {gap.high:+.3f}"


def _verdict_document(verdict: Verdict) -> dict[str, Any]:
    return {
        "answer": verdict.answer.value,
        "hypervolume": _gap(verdict.hypervolume),
        "at": [{"budget_share": share, **_gap(gap)} for share, gap in verdict.at],
        "runs": verdict.runs,
        "knows_seeds": verdict.knows_seeds,
        "knows_rows": verdict.knows_rows,
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {"difference": gap.value, "low": gap.low, "high": gap.high, "answer": gap.answer.value}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    quality = candidate.quality
    return {
        "trial": candidate.number,
        "quality": quality.mean,
        "error": quality.error,
        "runs": quality.repeats,
    }
