"""The front of a study, the control and the references beside it, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopeft import proxy
from autopeft.confirming import UNCONFIRMED, Confirmed
from autopeft.objectives import KINDS, T, figures, show
from autopeft.pareto import Axis
from autopeft.picking import Candidate
from autopeft.report.cells import further, layer_bars, rank_sum, shown
from autopeft.ruling import ruling_document, ruling_lines
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Origin, Study, Trial

NO_ODDS: Mapping[str, float] = {}


def front_document(study: Study, standing: Standing, confirmed: Confirmed = UNCONFIRMED) -> dict[str, Any]:
    """The document ``autopeft.front/1``."""
    return {
        "schema": "autopeft.front/1",
        "study": study.name,
        "objectives": [{"name": o.name, "direction": o.direction.value} for o in study.objectives],
        "budget": study.budget.parameters,
        "limits": dict(study.limits),
        "box": [
            _axis(objective.name, axis) for objective, axis in zip(study.objectives, standing.box.axes, strict=True)
        ],
        "members": [_member(study, trial, standing) for trial in standing.front],
        "hypervolume": standing.hypervolume,
        "control": [_member(study, trial, standing) for trial in standing.control],
        "control_hypervolume": standing.control_hypervolume,
        "head_only": _member(study, standing.head_only, standing) if standing.head_only else None,
        "references": [_member(study, trial, standing) for trial in standing.beside],
        "left_out": {
            "limits": {name: list(numbers) for name, numbers in standing.broken.items()},
            "lacking": list(standing.lacking),
        },
        **(proxy.document(study, confirmed.ranks) | ruling_document(confirmed)),
    }


def front_text(
    study: Study,
    standing: Standing,
    confirmed: Confirmed = UNCONFIRMED,
    odds: Mapping[str, float] = NO_ODDS,
    near: Sequence[Trial] = (),
    to_come: bool = False,
) -> str:
    """The front, the control beside it and the head alone, as a table for people, and the verdict.

    What was trained again with fresh seeds is shown with their mean, its standard error and the probability that no
    other member dominates it; the rest as it was measured.

    Args:
        study: The study.
        standing: Of its trials.
        confirmed: What fresh seeds say.
        odds: Probability of being on the front, by digest.
        near: Trials that are no members but have a chance.
        to_come: Whether the search is going to train front and control again by itself.
    """
    again = {one.number: one for one in (*confirmed.front, *confirmed.control, *confirmed.references)}
    lines = [_header(study, bool(again)) + ("   probability" if odds else "")]
    lines += [
        f"{_front_row(study, trial, again, confirmed.memberships)}{_said(trial, standing, odds)}"
        for trial in standing.front
    ]
    if not standing.front:
        lines.append("  (no trial within budget and limits is complete yet)")
    if near:
        lines.append("may be on it as well:")
        lines += [f"{_front_row(study, trial, again)}{_said(trial, standing, odds)}" for trial in near]
    lines.append("control (LoRA rank sweep):")
    lines += [f"{_front_row(study, trial, again)}   {trial.label or ''}" for trial in standing.control]
    if not standing.control:
        lines.append("  (none complete, or none fits budget and limits)")
    if standing.beside:
        lines.append("references (in neither front nor verdict):")
        lines += [f"{_front_row(study, trial, again)}   {trial.label or ''}" for trial in standing.beside]
    if standing.head_only:
        value = standing.head_only.values[study.metric]
        lines.append(f"head only: {study.metric} {value:.4f} with no adapter at all")
    chosen = ", by the runs that chose them" if again else ""
    lines.append(f"hypervolume: front {standing.hypervolume:.4f}, control {standing.control_hypervolume:.4f}{chosen}")
    lines += [*left_out(study, standing), *proxy.lines(study, confirmed.ranks)]
    lines += ruling_lines(study, confirmed, to_come=to_come) if standing.front and standing.control else ()
    return "\n".join(line.rstrip() for line in lines)


def odds_document(standing: Standing, odds: Mapping[str, float], near: Sequence[Trial]) -> dict[str, Any]:
    """What ``front --probability`` adds to the front document."""
    rows = [*standing.front, *near]
    return {"probabilities": [{"trial": trial.number, "probability": odds.get(trial.digest)} for trial in rows]}


def left_out(study: Study, standing: Standing[T]) -> list[str]:
    """Lines for people on the complete trials that are on no front, because of a limit or a figure that they lack."""
    lines = [
        f"left out: {_these(numbers)} over the limit {name} ≤ {show(name, study.limits[name])}"
        for name, numbers in standing.broken.items()
    ]
    if standing.lacking:
        lines.append(f"left out: {_these(standing.lacking)} without a figure of every objective")
    return lines


def _member(study: Study, trial: Trial, standing: Standing) -> dict[str, Any]:
    cost = int(trial.values[PARAMETERS])
    member: dict[str, Any] = {
        "trial": trial.number,
        "values": {
            study.metric: trial.values[study.metric],
            PARAMETERS: cost,
            **figures(study, trial, [*further(study), *study.limits]),
        },
        "trainable_fraction": cost / study.backbone.parameter_count,
        "configuration": trial.configuration.to_json(),
    }
    if trial.number in standing.repeats:
        member["repeats"] = standing.repeats[trial.number]
    return member | ({"label": trial.label} if trial.origin in (Origin.CONTROL, Origin.REFERENCE) else {})


def _axis(name: str, axis: Axis) -> dict[str, Any]:
    scale = "log" if axis.logarithmic else "linear"
    origin = "exact" if name in KINDS and KINDS[name].exact else "measured"
    unit = KINDS[name].unit if name in KINDS else ""
    return {"objective": name, "best": axis.best, "worst": axis.worst, "scale": scale, "unit": unit, "origin": origin}


def _said(trial: Trial, standing: Standing, odds: Mapping[str, float]) -> str:
    """Behind a row of the front: the probability that it belongs there, and how many measurements it rests on."""
    chance = f"   {odds[trial.digest]:>11.0%}" if trial.digest in odds else ""
    runs = standing.repeats.get(trial.number)
    return chance + (f"   mean of {runs}" if runs else "")


def _these(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _header(study: Study, confirmed: bool) -> str:
    heads = "".join(f"{KINDS[name].heading:>12}   " for name in further(study))
    errors, chances = ("     ± se", "   on front") if confirmed else ("", "")
    shape = f"layers       Σ rank   learning rate{chances}"
    return f"trial  {study.metric:>9}{errors}   parameters   fraction   {heads}{shape}"


def _front_row(
    study: Study, trial: Trial, again: Mapping[int, Candidate], chances: Mapping[int, float] | None = None
) -> str:
    cost = trial.values[PARAMETERS]
    configuration = trial.configuration
    costs = "".join(f"{text:>12}   " for text in shown(study, trial, further(study)))
    quality, error, chance = f"{trial.values[study.metric]:.4f}", "", ""
    if again:
        error = f"{'(chosen)':>9}"
        chance = f"   {chances[trial.number]:>8.0%}" if chances and trial.number in chances else ""
    if trial.number in again:
        found = again[trial.number].quality
        quality, error = f"{found.mean:.4f}", f"{'' if found.error is None else f'{found.error:.4f}':>9}"
    return (
        f"{trial.number:>5}  {quality:>9}{error}   {cost:>10,.0f}   "
        f"{cost / study.backbone.parameter_count * 100:>6.3f} %   {costs}{layer_bars(configuration):<10} "
        f"{rank_sum(configuration):>8}   {configuration.training.learning_rate:<13g}{chance}"
    )
