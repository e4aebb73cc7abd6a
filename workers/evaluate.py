"""The story of one trial: adapters into the resident backbone, train, score, save, measure, adapters out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopeft.adapters.calibration import TrainingRows
from autopeft.adapters.head import Classifier
from autopeft.adapters.saving import artifact_sha256, save_adapter
from autopeft.adapters.watching import routing_record, watching
from autopeft.errors import AutopeftError
from autopeft.measurement import TRUNCATION
from autopeft.objectives import exact
from autopeft.study import EXECUTION, IMPORTANCE, ROUTING, SELECTION, Checkpoint, Measurement, Order
from search_spaces.configuration import Configuration
from search_spaces.cost import frozen_layer_count
from workers.answers import AnswerRows
from workers.backbones import Resident
from workers.batches import Rows, TaskRows
from workers.caching import COMPUTED
from workers.checkpoints import read_checkpoint, write_checkpoint
from workers.importance import ImportanceLoop, hold_out, importance_loop
from workers.memory import MemoryMeter
from workers.scoring import score_rows
from workers.seeds import initial_seed
from workers.stopping import Preempted
from workers.supernet import Chosen, put_in
from workers.training import (
    UPDATE_ALL,
    BetweenSteps,
    TrainingRun,
    TrainingState,
    go_on,
    loss_of,
    memory_errors,
    precision,
)

INFERENCE_SECONDS, PEAK_MEMORY = "inference_seconds", "peak_memory"
CALIBRATION_STEPS = 8
LABELS = "labels"

_log = logging.getLogger("autopeft.worker")


Advance = Callable[["Start", int], None]
"""Trains a run that has begun up to a step, and does what is to be done on the way."""


def straight(start: Start, until: int) -> None:
    """Trains, and nothing else."""
    start.run.run(until)


def evaluate(
    order: Order,
    resident: Resident,
    artifacts: Path,
    between_steps: BetweenSteps = go_on,
    advance: Advance = straight,
) -> Measurement:
    """What comes of training ``order`` to its rung; the resident backbone is left as it was found.

    Seconds of training count from the insertion of the adapters, so initialisations that read rows pay for it, and add
    up over the attempts that a trial was trained in; seconds of inference are those of scoring, a row, and told only
    where every layer was computed for it. Peak memory is of training: see ``workers.memory``. Of full fine-tuning, a
    reference, nothing is saved.

    Args:
        order: Complete: nothing else is asked.
        resident: Of the order's study.
        artifacts: Root folder of artifacts.
        between_steps: Called after every step; what it raises ends the trial.
        advance: How the steps are made.

    Raises:
        DivergedError: If the loss is not finite.
        EvaluationError: If the trial cannot be trained.
        Preempted: If ``between_steps`` says so; with a checkpoint, if that is to be kept.
    """
    study, classifier = order.study, resident.classifier
    timed = INFERENCE_SECONDS in {*study.limits, *(objective.name for objective in study.objectives)}
    resident = resident.beginning_at(frozen_layer_count(order.configuration), between_steps, timed=timed)
    folder, whole = artifact_of(order), order.configuration.training.backbone
    with memory_errors(), begun(order, resident, artifacts, between_steps) as start:
        run, from_step = start.run, start.run.step
        try:
            advance(start, start.steps_at(order))
            trained = time.perf_counter()
            details = _details(order, start, from_step)
            with watching(classifier.model) as routers:
                scored = score_rows(classifier, resident.validation, study.metric, between_steps, order.memory_failures)
        except Preempted as stopped:
            stopped.checkpoint = _left(order, start, classifier, artifacts) if stopped.keep else None
            raise
        evaluated = time.perf_counter()
        values = {
            study.metric: scored.value,
            **scored.losses(resident.task.kind),
            **(order.costs or {name: figure(start.trained) for name, figure in exact(study).items()}),
            "train_seconds": start.seconds(trained),
            "evaluate_seconds": evaluated - trained,
            PEAK_MEMORY: run.peak_bytes,
        }
        if timed or resident.begun["states"] == COMPUTED:
            values[INFERENCE_SECONDS] = (evaluated - trained) / len(resident.validation)
        details[EXECUTION] = {**resident.begun, "threads": torch.get_num_threads()}
        details |= {TRUNCATION: cut} if (cut := resident.truncation) else {}
        details |= {ROUTING: routing_record(classifier.model, routers)} if routers else {}
        if order.rung < study.fidelity.top:
            sha256 = write_checkpoint(classifier, run.state(start.seconds(trained)), artifacts / folder)
        elif whole:
            return Measurement(order.rung, values, tuple(run.curve), scored.correct, details=details)
        else:
            sha256 = save(classifier, artifacts / folder)
    return Measurement(order.rung, values, tuple(run.curve), scored.correct, folder.as_posix(), sha256, details)


def artifact_of(order: Order) -> Path:
    """Folder of what the attempt leaves, relative to the artifact root; no other attempt writes there."""
    return Path(order.study.name) / f"trial-{order.number}" / f"attempt-{order.attempt}"


def _details(order: Order, start: Start, from_step: int) -> dict[str, Any]:
    """What the training learned, and how it was gone about where that was not in one piece."""
    accumulation = order.study.fidelity.accumulation(order.memory_failures)
    said = {"from_step": from_step} if from_step else {}
    said |= {"accumulation": accumulation} if accumulation > 1 else {}
    learned = {} if start.loop is None else {IMPORTANCE: start.loop.record(start.run.saved_bytes, start.order)}
    learned |= {} if start.chosen is None else {SELECTION: start.chosen.record}
    return learned | ({"training": said} if said else {})


@dataclass(frozen=True, slots=True)
class Start:
    """A training run that is about to go on.

    Attributes:
        run: The run, perhaps some steps old.
        order: Row numbers of each of its steps.
        trained: What is trained: the trial's configuration, or what it chose of it.
        loop: What decides about its updates; None if every step updates all.
        chosen: What the trial chose to train; None if it trains all that is in its configuration.
        at: When this attempt began, on the performance counter.
        seconds_before: What earlier attempts spent on the steps that are done.
    """

    run: TrainingRun
    order: Rows
    trained: Configuration
    loop: ImportanceLoop | None
    chosen: Chosen | None
    at: float
    seconds_before: float

    def steps_at(self, order: Order) -> int:
        """Steps of the run when it finishes the order's rung: its share of those that are not spent on choosing."""
        fidelity = order.study.fidelity
        return -(-len(self.order) * fidelity.steps_at(order.rung) // fidelity.steps)

    def seconds(self, now: float) -> float:
        """Seconds of training up to ``now``, in all attempts."""
        return self.seconds_before + now - self.at


@contextmanager
def begun(order: Order, resident: Resident, artifacts: Path, between_steps: BetweenSteps) -> Iterator[Start]:
    """The run of ``order``, from its furthest checkpoint that can be read, or from the beginning.

    Adapters are in, and out again whatever happens.
    """
    study, configuration, classifier = order.study, order.configuration, resident.classifier
    seed = initial_seed(study.seed, order.replicate, configuration.digest)
    held_out = hold_out(len(resident.train), configuration.training.schedule, study.seed)
    rows = held_out.order(resident.train.lengths, study.fidelity, study.seed, order.replicate)
    meter = MemoryMeter(classifier, next(classifier.parameters()).device)
    at = time.perf_counter()
    try:
        state, selection = resumed(order, classifier, artifacts), configuration.training.selection
        if selection is not None:
            rows = rows[selection.price(len(rows)) :]
        chosen = None if selection is None else Chosen()
        if state is None:
            given = calibration(classifier, resident.train, rows)
            chosen = put_in(classifier, configuration, study, resident.train, seed, meter, given, between_steps)
        loop = importance_loop(classifier, configuration, resident.train, held_out, seed)
        run = TrainingRun(
            classifier,
            resident.train,
            rows,
            configuration.training.learning_rate,
            between_steps,
            meter,
            loop or chosen or UPDATE_ALL,
            study.fidelity.accumulation(order.memory_failures),
            state,
            resident.processes,
        )
        trained = classifier.configuration or configuration
        yield Start(run, rows, trained, loop, chosen, at, state.seconds if state is not None else 0.0)
    finally:
        classifier.strip()


def resumed(order: Order, classifier: Classifier, artifacts: Path) -> TrainingState | None:
    """The state in the furthest checkpoint that can be read, whose adapters are in ``classifier`` now; None without.

    What was damaged costs the steps since the checkpoint before, and a line in the log.
    """
    device = next(classifier.parameters()).device
    for checkpoint in order.checkpoints:
        try:
            return read_checkpoint(
                classifier, order.configuration, artifacts / checkpoint.path, checkpoint.sha256, device
            )
        except AutopeftError as error:
            _log.warning("trial %s: %s; going on from an earlier one", order.number, error)
    return None


def _left(order: Order, start: Start, classifier: Classifier, artifacts: Path) -> Checkpoint | None:
    """Where a preempted trial stands, written; None if it has made no step, trains all weights, or there is no room."""
    if not start.run.step or order.configuration.training.backbone:
        return None
    folder = artifact_of(order)
    state = start.run.state(start.seconds(time.perf_counter()))
    try:
        sha256 = write_checkpoint(classifier, state, artifacts / folder)
    except OSError as error:
        _log.warning("trial %s: no checkpoint was written: %s", order.number, error)
        return None
    return Checkpoint(order.rung, folder.as_posix(), sha256)


@contextmanager
def adapted(
    classifier: Classifier, configuration: Configuration, seed: int, rows: TrainingRows | None = None
) -> Iterator[None]:
    """Adapters in, and out again whatever happens; ``rows`` are for initialisations that read some."""
    with stripped_afterwards(classifier):
        classifier.adapt(configuration, seed, rows)
        yield


@contextmanager
def stripped_afterwards(classifier: Classifier) -> Iterator[None]:
    """No adapters in ``classifier`` afterwards, whatever happens."""
    try:
        yield
    finally:
        classifier.strip()


def calibration(classifier: Classifier, rows: TaskRows, order: Rows) -> TrainingRows:
    """The training rows of the first steps, for initialisations that read some; nothing is read before they do."""
    device = next(classifier.parameters()).device
    if isinstance(rows, AnswerRows):
        rows = replace(rows, is_packed=False)  # what reads them looks at rows, and at which tokens are padding

    def batches() -> Iterator[dict[str, Tensor]]:
        for chosen in order[:CALIBRATION_STEPS]:
            inputs, labels = rows.batch(chosen, device)
            yield {**inputs, LABELS: labels}

    def loss(batch: Mapping[str, Tensor]) -> Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != LABELS}
        with precision(classifier):
            return loss_of(classifier(inputs), batch[LABELS])

    return TrainingRows(batches, loss)


def save(classifier: Classifier, folder: Path) -> str:
    """Writes adapter, configuration and head; the SHA-256 over their names and contents comes back."""
    save_adapter(classifier.model, folder)
    classifier.save_head(folder)
    return artifact_sha256(folder)
