"""What commands print: versioned JSON documents and plain-text tables of one study.

No torch, no SQL, no terminal control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.standing import Standing
from autopeft.study import PARAMETERS, Origin, Study, Trial, TrialState
from search_spaces.configuration import Configuration

BARS = " ▁▂▃▄▅▆▇█"


def front_document(study: Study, standing: Standing) -> dict[str, Any]:
    """The document ``autopeft.front/1``."""
    return {
        "schema": "autopeft.front/1",
        "study": study.name,
        "objectives": [{"name": o.name, "direction": o.direction.value} for o in study.objectives],
        "budget": study.budget.parameters,
        "members": [_member(study, trial) for trial in standing.front],
        "hypervolume": standing.hypervolume,
        "control": [_member(study, trial) for trial in standing.control],
        "control_hypervolume": standing.control_hypervolume,
        "head_only": _member(study, standing.reference) if standing.reference else None,
    }


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
        "replicate": trial.replicate,
        "attempt": trial.attempt,
        "digest": trial.digest,
        "values": dict(trial.values),
        "configuration": trial.configuration.to_json(),
        "error": trial.error,
    }


def status_document(study: Study, trials: Sequence[Trial], standing: Standing) -> dict[str, Any]:
    """The document ``autopeft.status/1``."""
    return {
        "schema": "autopeft.status/1",
        "study": study.name,
        "task": study.task_name,
        "model": study.backbone.name,
        "space": study.space.name,
        "budget": study.budget.parameters,
        "trials": study.trials,
        "states": {state.value: count for state, count in _states(trials).items()},
        "front_size": len(standing.front),
        "hypervolume": standing.hypervolume,
        "control_hypervolume": standing.control_hypervolume,
        "errors": [{"trial": t.number, "error": first_line(t.error)} for t in trials if t.error],
    }


def front_text(study: Study, standing: Standing) -> str:
    """The front, the control beside it and the head alone, as a table for people."""
    lines = [_header(study)]
    lines += [_front_row(study, trial) for trial in standing.front]
    if not standing.front:
        lines.append("  (no trial within the budget is complete yet)")
    lines.append("control (LoRA rank sweep):")
    lines += [f"{_front_row(study, trial)}   {trial.label or ''}" for trial in standing.control]
    if not standing.control:
        lines.append("  (none complete, or none fits the budget)")
    if standing.reference:
        value = standing.reference.values[study.metric]
        lines.append(f"head only: {study.metric} {value:.4f} with no adapter at all")
    lines.append(f"hypervolume: front {standing.hypervolume:.4f}, control {standing.control_hypervolume:.4f}")
    return "\n".join(line.rstrip() for line in lines)


def status_text(study: Study, trials: Sequence[Trial], standing: Standing) -> str:
    """How far a study is, in a few lines."""
    states = ", ".join(f"{count} {state.value.lower()}" for state, count in _states(trials).items()) or "none yet"
    lines = [
        f"study    {study.name}: {study.task_name} on {study.backbone.name}, space {study.space.name}, "
        f"budget {study.budget.text} = {study.budget.parameters:,}",
        f"trials   {states}; target {study.trials} searched + control",
        f"front    {len(standing.front)} members, hypervolume {standing.hypervolume:.4f} "
        f"(control {standing.control_hypervolume:.4f})",
    ]
    lines += [
        f"trial {trial.number}: {trial.state.value}: {first_line(trial.error)}" for trial in trials if trial.error
    ]
    return "\n".join(lines)


def trials_text(study: Study, trials: Sequence[Trial]) -> str:
    """One line a trial."""
    lines = [f"trial  {'state':<11} {'origin':<9} {study.metric:>9} {'parameters':>11}   learning rate  layers"]
    for trial in trials:
        quality = trial.values.get(study.metric)
        cost = trial.values.get(PARAMETERS)
        lines.append(
            f"{trial.number:>5}  {trial.state.value:<11} {trial.origin.value:<9} "
            f"{'–' if quality is None else f'{quality:.4f}':>9} {'–' if cost is None else f'{cost:,.0f}':>11}   "
            f"{trial.configuration.training.learning_rate:<13g}  {layer_bars(trial.configuration)}"
            f"{'  ' + trial.label if trial.label else ''}{'  ' + first_line(trial.error) if trial.error else ''}"
        )
    return "\n".join(lines)


def trial_line(study: Study, trial: Trial, done: int, target: int) -> str:
    """The line that a search prints when a trial ends, where no live view is possible."""
    what = trial.label or trial.origin.value
    if trial.state is not TrialState.COMPLETE:
        return f"[{done}/{target}] trial {trial.number} {trial.state.value.lower()} ({what}): {first_line(trial.error)}"
    seconds = trial.values["train_seconds"] + trial.values["evaluate_seconds"]
    return (
        f"[{done}/{target}] trial {trial.number}: {study.metric} {trial.values[study.metric]:.4f}, "
        f"{trial.values[PARAMETERS]:,.0f} parameters, {seconds:.1f} s ({what})"
    )


def trial_text(study: Study, trial: Trial, values: Mapping[str, float]) -> str:
    """One trial in full, without its score sheet."""
    configuration = trial.configuration
    lines = [
        f"trial          {trial.number} of {study.name} ({', '.join(filter(None, (trial.origin.value, trial.label)))})",
        f"state          {trial.state.value}, attempt {trial.attempt}, replicate {trial.replicate}",
        f"digest         {trial.digest}",
        f"learning rate  {configuration.training.learning_rate:g}",
        f"layers         {layer_bars(configuration)}   Σ rank {rank_sum(configuration)}",
    ]
    lines += [f"{name:<14} {_number(value)}" for name, value in values.items()]
    if trial.error:
        lines += ["error", *(f"  {line}" for line in trial.error.rstrip().splitlines())]
    return "\n".join(lines)


def layer_bars(configuration: Configuration) -> str:
    """A bar a layer, as high as its summed rank; ``·`` where nothing is inserted."""
    sums = [layer.extent for layer in configuration.layers]
    top = max([*sums, 1])
    return "".join(BARS[max(1, round(rank / top * 8))] if rank else "·" for rank in sums)


def rank_sum(configuration: Configuration) -> int:
    """All ranks of a configuration, added up."""
    return sum(layer.extent for layer in configuration.layers)


def first_line(text: str | None) -> str:
    """The first line of an error, or nothing."""
    return (text or "").strip().partition("\n")[0]


def _member(study: Study, trial: Trial) -> dict[str, Any]:
    cost = int(trial.values[PARAMETERS])
    member: dict[str, Any] = {
        "trial": trial.number,
        "values": {study.metric: trial.values[study.metric], PARAMETERS: cost},
        "trainable_fraction": cost / study.backbone.parameter_count,
        "configuration": trial.configuration.to_json(),
    }
    return member | ({"label": trial.label} if trial.origin is Origin.CONTROL else {})


def _header(study: Study) -> str:
    return f"trial  {study.metric:>9}   parameters   fraction   layers       Σ rank   learning rate"


def _front_row(study: Study, trial: Trial) -> str:
    cost = trial.values[PARAMETERS]
    configuration = trial.configuration
    return (
        f"{trial.number:>5}  {trial.values[study.metric]:>9.4f}   {cost:>10,.0f}   "
        f"{cost / study.backbone.parameter_count * 100:>6.3f} %   {layer_bars(configuration):<10} "
        f"{rank_sum(configuration):>8}   {configuration.training.learning_rate:<13g}"
    )


def _states(trials: Sequence[Trial]) -> dict[TrialState, int]:
    counted = Counter(trial.state for trial in trials)
    return {state: counted[state] for state in TrialState if counted[state]}


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4f}"
