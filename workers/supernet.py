"""A trial that chooses its own modules: the search of a supernet, its cut, and the kept modules ready to be trained.

DiffoRA (arXiv 2502.08905) within one trial: part of the trial's steps pays for the search (``workers.selection``), the
matrix of gates is cut, everything that was dropped is taken out, and the rest of the steps trains what was kept: anew,
or from the supernet's weights with each gate folded into its B. What a trial found goes along in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autopeft.adapters.calibration import TrainingRows
from autopeft.adapters.head import Classifier
from autopeft.errors import ConfigurationError
from autopeft.study import Study
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from search_spaces.selection import Scores, Selection, cut, margins
from workers.batches import TaskRows
from workers.memory import MemoryMeter
from workers.selection import Gates, Searched, halve, search
from workers.training import BetweenSteps, UpdateAll, go_on


class Chosen(UpdateAll):
    """What a trial chose: every step updates all of it, and its checkpoints hold how it was found.

    Attributes:
        record: What a measurement keeps under ``selection``.
    """

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        self.record: dict[str, Any] = dict(record or {})

    def state(self) -> dict[str, Any]:
        """The record."""
        return {"selection": self.record}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Takes in what ``state`` gave."""
        self.record = dict(state["selection"])


def put_in(
    classifier: Classifier,
    configuration: Configuration,
    study: Study,
    rows: TaskRows,
    seed: int,
    meter: MemoryMeter,
    given: TrainingRows | None,
    between_steps: BetweenSteps = go_on,
) -> Chosen | None:
    """What ``configuration`` trains is in ``classifier`` afterwards; how it was chosen comes back, None if it was not.

    Arguments and errors: as of ``choose``; ``given`` are rows for initialisations that read some.
    """
    if configuration.training.selection is None:
        classifier.adapt(configuration, seed, given)
        return None
    return choose(classifier, configuration, study, rows, seed, meter, between_steps)


def choose(
    classifier: Classifier,
    configuration: Configuration,
    study: Study,
    rows: TaskRows,
    seed: int,
    meter: MemoryMeter,
    between_steps: BetweenSteps = go_on,
) -> Chosen:
    """What was kept is in ``classifier`` afterwards, and nothing else; how it was found comes back.

    Args:
        classifier: Without adapters.
        configuration: With a selection; its table is the supernet.
        study: Its training, and the seed of how rows are halved, alike for all its trials.
        rows: Training rows.
        seed: Of starting values and the order of rows.
        meter: What measures peak memory.
        between_steps: Called after every step of the search.

    Raises:
        ConfigurationError: If there is nothing to choose.
        DivergedError: If a loss of the search is not finite.
        EvaluationError: If there are too few rows to halve.
    """
    selection, fidelity = configuration.training.selection, study.fidelity
    if selection is None:
        raise ConfigurationError("the configuration has no selection: nothing is to be chosen")
    classifier.adapt(configuration.supernet, seed)
    gates = Gates(classifier, configuration, study.backbone, selection.relaxation)
    found = search(
        classifier,
        gates,
        selection,
        rows,
        halve(len(rows), study.seed),
        selection.search_steps(fidelity.steps),
        fidelity.batch_size,
        configuration.training.learning_rate,
        seed,
        between_steps,
        meter,
    )
    kept = configuration.keeping(cut(found.scores, selection.ratio, selection.scope))
    gates.fold_in()
    learned = {name: value.detach().clone() for name, value in classifier.trained_parameters().items()}
    classifier.strip()
    classifier.adapt(kept, seed)
    if selection.weights == "continue":
        with torch.no_grad():
            for name, parameter in classifier.trained_parameters().items():
                parameter.copy_(learned[name])
    return Chosen(
        {
            **selection.to_json(),
            **_found(found, selection, study.backbone.layer_count),
            "parameters": trainable_parameters(kept, study.backbone),
            "supernet_parameters": trainable_parameters(configuration.supernet, study.backbone),
            "search_steps": selection.search_steps(fidelity.steps),
            "paid_steps": selection.price(fidelity.steps),
            "seed": seed,
        }
    )


def _found(found: Searched, selection: Selection, layer_count: int) -> dict[str, Any]:
    """Matrix, cut and margins as plain values."""
    kept = cut(found.scores, selection.ratio, selection.scope)
    gaps = margins(found.scores, selection.ratio, selection.scope)
    return {
        "scores": by_site(found.scores, layer_count),
        "by_layer": _means(found.scores, layer_count),
        "kept": [list(entry) for entry in sorted(kept)],
        "margins": [None if gap is None else round(gap, 6) for gap in gaps],
        "losses": [round(loss, 6) for loss in found.losses],
        "split_sha256": found.halves.sha256,
    }


def by_site(scores: Scores, layer_count: int) -> dict[str, list[float | None]]:
    """Scores as a list a site with a value a layer; None where a layer has no such module."""
    rows: dict[str, list[float | None]] = {}
    for (layer, site), value in scores.items():
        rows.setdefault(site, [None] * layer_count)[layer] = round(value, 6)
    return rows


def _means(scores: Scores, layer_count: int) -> list[float | None]:
    """The mean score of each layer; None where there is none."""
    by_layer: list[list[float]] = [[] for _ in range(layer_count)]
    for (layer, _), value in scores.items():
        by_layer[layer].append(value)
    return [round(sum(values) / len(values), 6) if values else None for values in by_layer]
