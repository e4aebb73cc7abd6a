"""The trials of a study, a row or a line each, and how far the study is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from autopeft import proxy
from autopeft.objectives import KINDS, Scored, T, describe
from autopeft.report.cells import first_line, further, layer_bars, shown
from autopeft.report.front import left_out
from autopeft.spending import target_text
from autopeft.standing import Standing
from autopeft.study import PARAMETERS, UNLIMITED, Study, Trial, TrialState


def trials_document(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """The document ``autopeft.trials/1``."""
    return {"schema": "autopeft.trials/1", "study": study.name, "trials": [trial_row(trial) for trial in trials]}


def trial_row(trial: Trial) -> dict[str, Any]:
    """One trial as plain values."""
    return {
        "trial": trial.number,
        "state": trial.state.value,
        "origin": trial.origin.value,
        "label": trial.label,
        "rung": trial.rung,
        "lower_rungs": [{"rung": rung, "values": dict(values)} for rung, values in sorted(trial.lower.items())],
        "replicate": trial.replicate,
        "attempt": trial.attempt,
        "digest": trial.digest,
        "values": dict(trial.values),
        "configuration": trial.configuration.to_json(),
        "error": trial.error,
    }


def status_document(study: Study, trials: Sequence[T], standing: Standing[T]) -> dict[str, Any]:
    """The document ``autopeft.status/1``."""
    return {
        "schema": "autopeft.status/1",
        "study": study.name,
        "task": study.task_name,
        "model": study.backbone.name,
        "space": study.space.name,
        "budget": study.budget.parameters,
        "trials": study.trials,
        "rung_steps": [*study.fidelity.ladder, study.fidelity.steps],
        "states": {state.value: count for state, count in _states(trials).items()},
        "front_size": len(standing.front),
        "hypervolume": standing.hypervolume,
        "control_hypervolume": standing.control_hypervolume,
        "objectives": [objective.name for objective in study.objectives],
        "limits": dict(study.limits),
        "over_limits": {name: list(numbers) for name, numbers in standing.broken.items()},
        "errors": [{"trial": t.number, "error": first_line(t.error)} for t in trials if t.error],
    }


def status_text(study: Study, trials: Sequence[T], standing: Standing[T]) -> str:
    """How far a study is, in a few lines."""
    states = ", ".join(f"{count} {state.value.lower()}" for state, count in _states(trials).items()) or "none yet"
    steps = f"; rungs at {', '.join(map(str, study.fidelity.ladder))} of {study.fidelity.steps} steps"
    lines = [
        f"study    {study.name}: {study.task_name} on {study.backbone.name}, space {study.space.name}, "
        f"budget {study.budget.text} = {study.budget.parameters:,}",
        f"trials   {states}; target {target_text(study)} + control{steps if study.fidelity.top else ''}",
        f"front    {len(standing.front)} members, hypervolume {standing.hypervolume:.4f} "
        f"(control {standing.control_hypervolume:.4f})",
        *proxy.lines(study),
        *describe(study),
        *left_out(study, standing),
    ]
    lines += [
        f"trial {trial.number}: {trial.state.value}: {first_line(trial.error)}" for trial in trials if trial.error
    ]
    return "\n".join(lines)


def trials_text(study: Study, trials: Sequence[Trial]) -> str:
    """One line a trial."""
    costs = further(study)
    heads = "".join(f" {KINDS[name].heading:>12}" for name in costs)
    lines = [f"trial  {'state':<11} {'origin':<12} {study.metric:>9} {'parameters':>11}{heads}   learning rate  layers"]
    for trial in trials:
        quality = trial.values.get(study.metric)
        cost = trial.values.get(PARAMETERS)
        more = "".join(f" {text:>12}" for text in shown(study, trial, costs))
        lines.append(
            f"{trial.number:>5}  {state_text(study, trial):<11} {trial.origin.value:<12} "
            f"{'–' if quality is None else f'{quality:.4f}':>9} {'–' if cost is None else f'{cost:,.0f}':>11}{more}   "
            f"{trial.configuration.training.learning_rate:<13g}  {layer_bars(trial.configuration)}"
            f"{'  ' + trial.label if trial.label else ''}{'  ' + first_line(trial.error) if trial.error else ''}"
        )
    return "\n".join(lines)


def trial_line(study: Study, trial: Trial, done: int, target: int) -> str:
    """The line that a search prints when a trial ends, where no live view is possible."""
    what, of = trial.label or trial.origin.value, str(done) if study.trials >= UNLIMITED else f"{done}/{target}"
    if trial.state is TrialState.PAUSED:
        what = f"paused at {study.fidelity.steps_at(trial.rung - 1)} of {study.fidelity.steps} steps, {what}"
    elif trial.state is not TrialState.COMPLETE:
        return f"[{of}] trial {trial.number} {trial.state.value.lower()} ({what}): {first_line(trial.error)}"
    seconds = trial.values["train_seconds"] + trial.values["evaluate_seconds"]
    figures = zip(further(study), shown(study, trial, further(study)), strict=True)
    more = "".join(f", {KINDS[name].heading} {text}" for name, text in figures if name != "train_seconds")
    return (
        f"[{of}] trial {trial.number}: {study.metric} {trial.values[study.metric]:.4f}, "
        f"{trial.values[PARAMETERS]:,.0f} parameters{more}, {seconds:.1f} s ({what})"
    )


def state_text(study: Study, trial: Trial) -> str:
    """Its state, and while it climbs, the rungs that it has behind it of all: ``PAUSED 1/3``."""
    if trial.state.is_final or not study.fidelity.top:
        return trial.state.value
    return f"{trial.state.value} {trial.rung if trial.values else 0}/{study.fidelity.top + 1}"


def _states(trials: Sequence[Scored]) -> dict[TrialState, int]:
    counted = Counter(trial.state for trial in trials)
    return {state: counted[state] for state in TrialState if counted[state]}
