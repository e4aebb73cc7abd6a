"""A probe: LoRA in every layer at a small rank, trained for a while, to learn where adapters matter.

What comes back is stored by the command line that asked; a probe that is killed leaves nothing. Repeats differ in
order of rows and starting values, and their scores are averaged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autopeft.probe import LAYER, ProbeKind
from autopeft.study import Study
from search_spaces.configuration import Configuration
from search_spaces.selection import Selection, cut, margins
from workers.backbones import Resident, load_resident, open_device
from workers.child import stay_with
from workers.evaluate import adapted
from workers.importance import ImportanceLoop, hold_out
from workers.progress import Progress, to_standard_error
from workers.seeds import initial_seed
from workers.selection import Gates, halve, search
from workers.supernet import by_site
from workers.training import TrainingRun, memory_errors


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a probe: its scores by entry (a layer, or a layer and a site), and what else it says."""

    scores: Mapping[tuple[int, str], float]
    said: Mapping[str, Any]
    split_sha256: str


def probe(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The fields ``scores``, ``details``, ``split_sha256``, ``data_sha256`` of a probe.

    Args:
        plan: ``study``, ``configuration``, ``kind``, ``repeats``; ``selection`` for that kind; if given ``device`` and
            ``parent``, the process whose death ends this one.

    Raises:
        AutopeftError: If it cannot be trained.
    """
    if plan.get("parent"):
        stay_with(int(plan["parent"]))
    study = Study.from_json(plan["study"])
    configuration = Configuration.from_json(plan["configuration"])
    configuration.validate(study.backbone)
    started = time.perf_counter()
    resident = load_resident(study, open_device(str(plan.get("device") or "cpu")))
    runs = []
    for repeat in range(int(plan["repeats"])):
        show = to_standard_error(study.fidelity.steps, f"run {repeat + 1} of {plan['repeats']}: ")
        with memory_errors():
            if plan["kind"] == ProbeKind.IMPORTANCE:
                runs.append(_importance(study, configuration, resident, repeat, show))
            else:
                selection = Selection.from_json(plan["selection"])
                runs.append(_selection(study, configuration, resident, selection, repeat, show))
    scores = {entry: float(np.mean([run.scores[entry] for run in runs])) for entry in runs[0].scores}
    details: dict[str, Any] = {"runs": [dict(run.said) for run in runs]}
    if plan["kind"] == ProbeKind.SELECTION:
        selection = Selection.from_json(plan["selection"])
        kept = sorted(cut(scores, selection.ratio, selection.scope))
        details |= {"kept": [list(entry) for entry in kept]}
        details |= {"margins": margins(scores, selection.ratio, selection.scope)}
    return {
        "scores": by_site(scores, study.backbone.layer_count),
        "details": {**details, "seconds": round(time.perf_counter() - started, 2)},
        "split_sha256": runs[0].split_sha256,
        "data_sha256": resident.task.data_sha256,
    }


def _importance(study: Study, configuration: Configuration, resident: Resident, repeat: int, show: Progress) -> Run:
    schedule, classifier = configuration.training.schedule, resident.classifier
    assert schedule is not None
    held_out = hold_out(len(resident.train), schedule, study.seed)
    order = held_out.order(resident.train.lengths, study.fidelity, study.seed, repeat)
    seed = initial_seed(study.seed, repeat, configuration.digest)
    with adapted(classifier, configuration, seed):
        loop = ImportanceLoop(classifier, schedule, resident.train, held_out, seed)
        rate = configuration.training.learning_rate
        run = TrainingRun(classifier, resident.train, order, rate, show, updates=loop)
        run.run(len(order))
        found = loop.record(run.saved_bytes, order)
    scores = {(layer, LAYER): value for layer, value in enumerate(found["importance"]) if value is not None}
    return Run(scores, {**found, "loss": run.curve[-1][1]}, held_out.sha256)


def _selection(
    study: Study,
    configuration: Configuration,
    resident: Resident,
    selection: Selection,
    repeat: int,
    show: Progress,
) -> Run:
    halves, seed = halve(len(resident.train), study.seed), initial_seed(study.seed, repeat, configuration.digest)
    classifier, fidelity = resident.classifier, study.fidelity
    with adapted(classifier, configuration, seed):
        gates = Gates(classifier, configuration, study.backbone, selection.relaxation)
        found = search(
            classifier,
            gates,
            selection,
            resident.train,
            halves,
            fidelity.steps,
            fidelity.batch_size,
            configuration.training.learning_rate,
            seed,
            show,
        )
    said = {"seed": seed, "losses": [round(loss, 6) for loss in found.losses]}
    gates_found = by_site(found.scores, study.backbone.layer_count)
    return Run(found.scores, {**said, "scores": gates_found}, halves.sha256)
