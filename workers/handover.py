"""What a final training hands over: the adapter of one seed, all figures, what was promised, score sheet and card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.adapters.head import Classifier
from autopeft.adapters.models import resolve
from autopeft.adapters.saving import ADAPTER_FILE, CONFIGURATION_FILE, HEAD_FILE, read_configuration, write_whole
from autopeft.export.final_card import final_card
from autopeft.export.trained import Trained
from autopeft.final import (
    METRICS_FILE,
    METRICS_SCHEMA,
    FinalRun,
    FinalSettings,
    Training,
    comparisons,
    cost_figures,
    differences,
    kept_run,
    test_estimate,
    validation_estimate,
)
from autopeft.precision import Estimate
from autopeft.score_sheet import svg_sheet
from autopeft.study import IMPORTANCE, ROUTING, SELECTION, Origin, Study, Trial, TrialState


@dataclass(frozen=True)
class Handover:
    """The runs of one configuration, ended and scored.

    Attributes:
        study: With the fidelity that they were trained with.
        searched: The study as the search had it.
        settings: How they were trained.
        training: What was trained.
        runs: One a seed.
        facts: What the figures rest on: environment, hashes of the data, rows.
        labels: Names of the outputs, where they have some.
    """

    study: Study
    searched: Study
    settings: FinalSettings
    training: Training
    runs: Sequence[FinalRun]
    facts: Mapping[str, Any]
    labels: tuple[str, ...] | None


def hand_over(given: Handover, classifier: Classifier) -> None:
    """Fills the output folder; ``metrics.json`` comes last.

    Args:
        given: The runs.
        classifier: Without adapters; for the size of its head.
    """
    folder, study = given.training.output, given.study
    kept, why = kept_run(study.metric, given.runs, full_data=given.settings.full_data)
    for name in (ADAPTER_FILE, CONFIGURATION_FILE, HEAD_FILE):
        write_whole(folder / name, (folder / f"seed-{kept.seed}" / name).read_bytes())
    head = sum(parameter.numel() for parameter in classifier.head_parameters().values())
    metrics = _metrics(given, head, kept, why)
    trained = _trained(given, classifier, kept)
    plan, ordered, origin = trained.trial.configuration, given.training.configuration, dict(given.training.provenance)
    if plan.digest != ordered.digest:
        origin |= {"digest": plan.digest, "ordered": ordered.to_json()}
    # those of the search, so that this folder can be trained as an export can
    write_json(folder / "study.json", given.searched.to_json())
    write_json(folder / "provenance.json", origin)
    picture = {key: kept.details[key] for key in (IMPORTANCE, ROUTING, SELECTION) if key in kept.details}
    title = f"{study.name} · trial {given.training.number} · seed {kept.seed}"
    sheet = svg_sheet(plan, study.backbone, title=title, details=picture)
    write_whole(folder / "score_sheet.svg", sheet.encode())
    write_whole(folder / "README.md", final_card(trained, metrics).encode())
    write_json(folder / METRICS_FILE, metrics)


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file that is either whole or not there."""
    write_whole(file, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _metrics(given: Handover, head: int, kept: FinalRun, why: str) -> dict[str, Any]:
    """``metrics.json``: every seed, the means with their errors, and the comparison to the promise."""
    study, settings, training, runs = given.study, given.settings, given.training, given.runs
    fidelity, tested = study.fidelity, test_estimate(runs)
    compared = comparisons(study, settings, training.promise, runs, fidelity.steps)
    summary = {one.name: {"mean": one.value, "error": one.error, "runs": one.runs} for one in cost_figures(runs)}
    validation = None if settings.full_data else _quality(validation_estimate(study.metric, runs))
    found: dict[str, Any] = {
        "schema": METRICS_SCHEMA,
        "study": study.name,
        "trial": training.number,
        "origin": training.provenance.get("origin"),
        "digest": training.configuration.digest,
        "metric": study.metric,
        "training": fidelity.to_json(),
        "settings": settings.to_json(),
        **given.facts,
        "head_parameters": head,
        "validation": validation,
        "test": None if tested is None else _quality(tested),
        "costs": summary,
        "kept_seed": kept.seed,
        "kept_because": why,
        "searched_promise": None if training.promise is None else training.promise.to_json(),
        "fresh_promise": None if training.promise is None else training.promise.fresh,
        "promise": [one.to_json() for one in compared],
        "seeds": [one.to_json() for one in runs],
    }
    if not settings.reads_test:
        found["reproduction"] = {"differences": differences(training.provenance, runs[0], study.metric)}
    return found


def _quality(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "error": found.error, "seed_error": found.seed_error, "runs": found.repeats}


def _trained(given: Handover, classifier: Classifier, kept: FinalRun) -> Trained:
    """The kept run as a trained trial, for the card."""
    training, origin = given.training, given.training.provenance
    plan = read_configuration(training.output / CONFIGURATION_FILE)
    trial = Trial(
        number=training.number,
        configuration=plan,
        digest=plan.digest,
        state=TrialState.COMPLETE,
        origin=Origin(origin["origin"]),
        label=origin.get("label"),
        replicate=kept.seed,
        rung=1,
        attempt=1,
        owner=None,
        values=kept.values,
        error=None,
    )
    base = resolve(given.study.model.source)
    return Trained(given.study, trial, training.output, classifier, base, given.labels)
