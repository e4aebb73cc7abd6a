"""One trial in full: its values, its rungs, and what its schedule, selection and routers did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autopeft.measurement import SELECTION, TRUNCATION, as_trained, truncation_lines
from autopeft.objectives import show
from autopeft.report.cells import layer_bars, rank_sum
from autopeft.report.trials import state_text
from autopeft.study import IMPORTANCE, ROUTING, Study, Trial
from search_spaces.configuration import Configuration
from search_spaces.selection import Selection

NO_DETAILS: Mapping[str, Any] = {}


def trial_text(study: Study, trial: Trial, values: Mapping[str, float], details: Mapping[str, Any] = NO_DETAILS) -> str:
    """One trial in full, without its score sheet; ``details`` are those of its measurement."""
    configuration = as_trained(trial.configuration, details)
    lines = [
        f"trial          {trial.number} of {study.name} ({', '.join(filter(None, (trial.origin.value, trial.label)))})",
        f"state          {state_text(study, trial)}, attempt {trial.attempt}, replicate {trial.replicate}",
        f"digest         {trial.digest}",
        f"learning rate  {configuration.training.learning_rate:g}",
        f"layers         {layer_bars(configuration)}   Σ rank {rank_sum(configuration)}",
    ]
    width = max(14, *map(len, values)) if values else 14
    lines += [f"{name:<{width}} {show(name, value)}" for name, value in values.items()]
    lines += _rung_lines(study, trial)
    lines += _schedule_lines(configuration, details)
    lines += _selection_lines(trial.configuration.training.selection, details)
    lines += _routing_lines(details[ROUTING]) if ROUTING in details else ()
    lines += [f"rows           {line}" for line in truncation_lines(details.get(TRUNCATION, {}))]
    if trial.error:
        lines += ["error", *(f"  {line}" for line in trial.error.rstrip().splitlines())]
    return "\n".join(lines)


def _rung_lines(study: Study, trial: Trial) -> Iterator[str]:
    """What a trial showed at each rung, where it has several."""
    for rung in range(study.fidelity.top):
        if (values := trial.values_at(rung)) is not None:
            steps = f"{study.fidelity.steps_at(rung)} of {study.fidelity.steps} steps"
            yield f"rung           {steps}: loss {values['loss']:.4f}, {study.metric} {values[study.metric]:.4f}"


def _schedule_lines(configuration: Configuration, details: Mapping[str, Any]) -> Iterator[str]:
    """The update schedule, and what it saved, where there is one."""
    schedule = configuration.training.schedule
    if schedule is not None:
        chosen = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in schedule.to_json().items())
        yield f"schedule       {chosen}"
    if (found := details.get(IMPORTANCE)) is not None:
        active, whole = found["active_parameters"], found["parameters"]
        kept, of_all = found["saved_bytes"], found["saved_bytes_of_all"]
        share = f" ({kept / of_all:.0%})" if of_all else ""
        yield f"updated        {active:,.0f} of {whole:,} parameters a step on average, {found['probes']} probes"
        yield f"kept           {kept:,} of {of_all:,} bytes for a backward pass at most{share}"


def _selection_lines(selection: Selection | None, details: Mapping[str, Any]) -> Iterator[str]:
    """How a trial chose its modules, and the gates that it chose by, where it did."""
    if selection is not None:
        chosen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in selection.to_json().items())
        yield f"selection      {chosen}"
    if (found := details.get(SELECTION)) is None:
        return
    kept = {(layer, site) for layer, site in found["kept"]}
    gates = sum(value is not None for row in found["scores"].values() for value in row)
    margins = [margin for margin in found["margins"] if margin is not None]
    least = f", smallest margin {min(margins):.4f}" if margins else ""
    yield (
        f"kept           {len(kept)} of {gates} modules, {found['parameters']:,} of "
        f"{found['supernet_parameters']:,} parameters{least}"
    )
    yield f"searched       {found['search_steps']} steps, paid for with {found['paid_steps']} of the trial's"
    for site, row in found["scores"].items():
        cells = (
            f"{'–' if value is None else format(value, '.3f')}{'*' if (layer, site) in kept else ' '}"
            for layer, value in enumerate(row)
        )
        yield f"  {site:<12} {' '.join(cells)}".rstrip()


def _routing_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What the routers of a trial did, one line a layer; of all of its modules together."""
    yield "routing        share of the load of each expert, experts a token, entropy, distance of the experts"
    for layer, row in enumerate(record["layers"]):
        if row:
            load = " ".join(f"{share:.2f}" for share in row.get("load", ())) or "(modules differ)"
            yield (
                f"  layer {layer:<4}   {load}   {row['active']:.2f} a token   entropy {row['entropy']:.3f}   "
                f"distance {row['redundancy']:.3g}"
            )
