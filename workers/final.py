"""The final training: chosen configurations trained with several seeds, scored once on the test split, and handed over.

The only place that reads the test split. It is read before the first step, so that one that cannot be read costs no
training, and scored when the last run has ended. A run that was killed goes on from its checkpoint, one that has ended
is not trained again; on a CPU either comes out the same to the bit.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autopeft.adapters.saving import ADAPTER_FILE, CONFIGURATION_FILE, HEAD_FILE, artifact_sha256
from autopeft.errors import EvaluationError, TaskError
from autopeft.final import LM_EVAL, METRICS_FILE, FinalPlan, FinalRun, Training, kept_run
from autopeft.study import Fidelity, Measurement, Order, Study
from autopeft.tasks import Split, Task, TaskSpec, load_task, split_sha256
from autopeft.trackers import require_tracker
from workers.backbones import Resident, encode_split, encode_training, load_resident, open_device
from workers.batches import TaskRows
from workers.environment import fingerprint
from workers.evaluate import evaluate
from workers.handover import Handover, hand_over, write_json
from workers.harness import harness_scores, require_harness
from workers.journal import Journal
from workers.processes import ALONE, Processes, Together, launched_together, require_rows
from workers.progress import to_standard_error
from workers.scoring import score_rows
from workers.tracking import UNTOLD, Tracker, open_tracker
from workers.training import memory_errors

CHECKPOINTS = 10
"""Checkpoints of a run, if nobody says how many steps lie between two."""

ADAPTER_FILES = (ADAPTER_FILE, CONFIGURATION_FILE, HEAD_FILE)


def train_in_full(plan: FinalPlan) -> None:
    """Trains, scores and hands over everything in ``plan`` that is not done; ``metrics.json`` comes last in a folder.

    Raises:
        AutopeftError: If something cannot be trained, or the data are not those of the search.
    """
    require_tracker(plan.settings.tracker)
    if plan.settings.lm_eval:
        require_harness(plan.settings.lm_eval, plan.study.metric)
    together = Together(cpu=plan.device == "cpu") if launched_together() else None
    device = together.device if together else open_device(plan.device)
    with memory_errors():
        desk = _Desk.open(plan, device, together or ALONE)
        for training in plan.trainings:
            training.configuration.validate(plan.study.backbone)
        waiting = [one for one in plan.trainings if not (one.output / METRICS_FILE).is_file()]
        for training in waiting:
            for seed in plan.settings.seeds:
                desk.train(training, seed)
        if desk.writes:
            for training in waiting:
                desk.finish(training)
        if together:
            together.wait()


@dataclass(frozen=True)
class _Desk:
    """What all runs of a plan share.

    Attributes:
        plan: What is trained.
        study: With the fidelity of these runs.
        resident: Model and rows.
        test: The test rows; None where there are none, or nobody may read them.
        test_sha256: Of their content.
        task: The task.
    """

    plan: FinalPlan
    study: Study
    resident: Resident
    test: TaskRows | None
    test_sha256: str | None
    task: Task

    @classmethod
    def open(cls, plan: FinalPlan, device: torch.device, processes: Processes) -> _Desk:
        """The model and the rows, if these are those of the search."""
        settings, study = plan.settings, plan.study
        if settings.precision is not None:
            study = replace(study, regime=replace(study.regime, precision=settings.precision))
        task = load_task(TaskSpec.from_json(study.task))
        if task.train.chats is None:
            _require_same_data(study, task)  # before weights are loaded
        resident = replace(load_resident(study, device, settings.cache), processes=processes)
        task = resident.task  # a chat template is part of its hash
        _require_same_data(study, task)
        test = None if task.test_reader is None or not settings.reads_test else task.read_test()
        encoded = None if test is None else encode_split(study, task, test, resident.classifier)
        if settings.full_data:
            joined = _all_rows(task).joined(task.validation)
            resident = replace(resident, train=encode_training(study, task, joined, resident.classifier))
        study = replace(study, proxy=None, fidelity=_fidelity(plan, len(task.train), len(resident.train)))
        require_rows(study.fidelity.batch_size, processes.count)
        return cls(plan, study, resident, encoded, None if test is None else split_sha256(test), task)

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self.resident.processes.rank == 0

    def train(self, training: Training, seed: int) -> None:
        """One run, from where it was left; nothing if it has ended."""
        folder = training.output / f"seed-{seed}"
        if (folder / METRICS_FILE).is_file():
            return
        steps, settings = self.study.fidelity.steps, self.plan.settings
        kept, every = folder / "checkpoints", settings.checkpoint_steps or max(1, steps // CHECKPOINTS)
        say = to_standard_error(steps, f"trial {training.number}, seed {seed}: ") if self.writes else _say_nothing
        with _scratch(folder, writes=self.writes) as scratch, self._tracker(training, seed) as tracker:
            journal = Journal(self.resident.classifier, kept, every, tracker, writes=self.writes)
            checkpoints = journal.latest()
            order = Order(0, 1, training.number, self.study, training.configuration, seed, 0, checkpoints=checkpoints)
            measurement = evaluate(
                order, self.resident, scratch, lambda step: say(step) if step else None, journal.advance
            )
            if changed := self.resident.changed:
                raise EvaluationError(f"frozen weights changed in training, the first is {changed[0]}; nothing is kept")
            tracker.log({"validation/" + self.study.metric: measurement.values[self.study.metric]}, steps)
            if self.writes:
                _keep(measurement, seed, scratch, folder)
                shutil.rmtree(kept, ignore_errors=True)

    def finish(self, training: Training) -> None:
        """Scores all runs on the test split, and hands the best on validation over."""
        runs = [self._scored(training, read_run(training.output / f"seed-{seed}")) for seed in self.plan.settings.seeds]
        with self._tracker(training, None) as tracker:
            for run in runs:
                held_out = None if self.plan.settings.full_data else run.values[self.study.metric]
                scores = {"validation": held_out, "test": run.test}
                known = {f"{split}/{self.study.metric}": score for split, score in scores.items() if score is not None}
                tracker.log(known, run.seed)
        environment = fingerprint(str(next(self.resident.classifier.parameters()).device))
        facts = {
            "environment": environment,
            "data_sha256": self.task.data_sha256,
            "test_sha256": self.test_sha256,
            "rows": {
                "train": len(self.resident.train),
                "validation": 0 if self.plan.settings.full_data else len(self.resident.validation),
                "test": 0 if self.test is None else len(self.test),
            },
            "threads": torch.get_num_threads(),
            "processes": self.resident.processes.count,
            **self._harness(training, runs),
        }
        labels = tuple(self.task.label_names) or None
        given = Handover(self.study, self.plan.study, self.plan.settings, training, runs, facts, labels)
        hand_over(given, self.resident.classifier)

    def _scored(self, training: Training, run: FinalRun) -> FinalRun:
        if self.test is None:
            return run
        classifier = self.resident.classifier
        classifier.first_layer = 0
        try:
            classifier.readapt(training.output / f"seed-{run.seed}")
            scored = score_rows(classifier, self.test, self.study.metric)
        finally:
            classifier.strip()
        return run.scored(scored.value, scored.loss, scored.correct)

    def _harness(self, training: Training, runs: Sequence[FinalRun]) -> dict[str, Any]:
        """What lm-evaluation-harness says of the adapter that is handed over; nothing if it was not asked for."""
        settings, classifier = self.plan.settings, self.resident.classifier
        if not settings.lm_eval:
            return {}
        kept, _ = kept_run(self.study.metric, runs, full_data=settings.full_data)
        classifier.first_layer = 0
        try:
            classifier.readapt(training.output / f"seed-{kept.seed}")
            return {
                LM_EVAL: harness_scores(self.study, self.task, classifier, settings.lm_eval, settings.lm_eval_limit)
            }
        finally:
            classifier.strip()

    @contextmanager
    def _tracker(self, training: Training, seed: int | None) -> Iterator[Tracker]:
        """Of the run of a seed; without one, of the outcome of all seeds, where the step is the seed."""
        name = self.plan.settings.tracker if self.writes else None
        alone = len(self.plan.trainings) == 1
        folder = (training.output if alone else training.output.parent) / "tracking"
        facts = {
            "study": self.study.name,
            "trial": training.number,
            **({} if seed is None else {"seed": seed}),
            "steps": self.study.fidelity.steps,
            "learning_rate": training.configuration.training.learning_rate,
            "digest": training.configuration.digest,
        }
        run = f"trial-{training.number}" + ("" if seed is None else f"-seed-{seed}")
        tracker = UNTOLD if name is None else open_tracker(name, folder, self.study.name, run, facts)
        try:
            yield tracker
        finally:
            tracker.close()


def read_run(folder: Path) -> FinalRun:
    """The run that ended in ``folder``."""
    return FinalRun.from_json(json.loads((folder / METRICS_FILE).read_text(encoding="utf-8")))


def _keep(measurement: Measurement, seed: int, scratch: Path, folder: Path) -> None:
    """Moves what a run left to its place; its measurement comes last."""
    source = scratch / str(measurement.artifact)
    for name in ADAPTER_FILES:
        (source / name).replace(folder / name)
    sha256 = artifact_sha256(folder)
    if sha256 != measurement.sha256:
        raise EvaluationError(f"{folder}: SHA-256 {sha256[:12]}…, trained was {str(measurement.sha256)[:12]}…")
    run = FinalRun(seed, measurement.values, measurement.curve, measurement.correct, sha256, measurement.details)
    write_json(folder / METRICS_FILE, run.to_json())


@contextmanager
def _scratch(folder: Path, *, writes: bool) -> Iterator[Path]:
    """Where a run leaves its files first; those of processes that do not write go."""
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / "unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory(prefix="autopeft-") as name:
        yield Path(name)


def _all_rows(task: Task) -> Split:
    """The training rows, those too that the search left out."""
    return task.train if task.spec.train_rows is None else load_task(replace(task.spec, train_rows=None)).train


def _require_same_data(study: Study, task: Task) -> None:
    expected = study.environment.get("data")
    if expected is not None and expected != task.data_sha256:
        raise TaskError(
            f"the rows of {task.spec.source} are not those of the search {study.name}: SHA-256 "
            f"{task.data_sha256[:12]}…, expected {expected[:12]}…; give the folder that holds them with "
            "--task, or search anew"
        )


def _fidelity(plan: FinalPlan, searched_rows: int, rows: int) -> Fidelity:
    """As many passes over the rows as asked for, or as the search made."""
    fidelity, settings = replace(plan.study.fidelity, ladder=()), plan.settings
    if settings.epochs is not None:
        steps = math.ceil(settings.epochs * rows / fidelity.batch_size)
    else:
        steps = fidelity.steps if rows == searched_rows else math.ceil(fidelity.steps * rows / searched_rows)
    micro = settings.micro_batch or fidelity.micro_batch
    return replace(fidelity, steps=max(1, steps), micro_batch=micro)


def _say_nothing(_step: int) -> None:
    """Another process says it."""
