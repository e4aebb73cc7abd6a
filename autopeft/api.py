"""What a person asks for, as functions: prepare a study, search, resume, estimate, export.

``autopeft.search(…)`` is public, and the command line a thin skin on these. The loop is ``autopeft.driver``; nothing
here trains.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autopeft.budget import parse_budget
from autopeft.driver import Driver, Ending, Interrupt, Progress, require_unfinished
from autopeft.errors import ConfigurationError, EvaluationError, StoreError
from autopeft.launch import WorkerPlan, child_environment, make_engine, plan_workers, visible_gpus, worker_command
from autopeft.optimizer import make_proposer
from autopeft.settings import SearchSettings, artifact_root, database_url, merge
from autopeft.standing import Standing, standing
from autopeft.store import Store
from autopeft.study import PARAMETERS, Direction, Fidelity, Objective, Study, Trial
from autopeft.tasks import Task, TaskSpec, TrainingDefaults, load_task, training_defaults
from search_spaces import presets
from search_spaces.configuration import Configuration

DEFAULT_TRIALS = 24


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study ready to be recorded, and what the user should hear about how it came to be.

    Attributes:
        study: The study.
        notes: Lines for people: carved splits, defaults, share of the space.
    """

    study: Study
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """A study after a search.

    Attributes:
        study: What was asked.
        trials: Every trial, as recorded.
        standing: Front, control and hypervolumes.
        ending: Why the search ended.
    """

    study: Study
    trials: Sequence[Trial]
    standing: Standing
    ending: Ending

    @property
    def front(self) -> Sequence[Trial]:
        """Members of the front, cheapest first."""
        return self.standing.front


def silent(_progress: Progress) -> None:
    """Shows nothing: the progress display of a quiet search."""


def search(
    *,
    db: str | None = None,
    show: Callable[[Progress], None] = silent,
    interrupt: Interrupt | None = None,
    **settings: Any,
) -> SearchOutcome:
    """Searches for a Pareto front of PEFT configurations and returns the study.

    Args:
        db: Database URL or SQLite file; default ``AUTOPEFT_DB`` or ``autopeft.db`` here.
        show: Called with the progress.
        interrupt: Lets another thread ask the search to stop.
        **settings: The fields of ``autopeft.settings.SearchSettings``, e.g. ``model="minilm"``, ``budget="0.5%"``.

    Raises:
        AutopeftError: If the settings, the model, the task or the budget are not valid, or workers cannot run.
    """
    merged, _ = merge(settings)
    url = database_url(db)
    with Store.open(url, create=True) as store:
        prepared = prepare(merged, store.study_names())
        study = record(store, prepared.study, named=merged.study is not None)
        return run(store, url, study, show, interrupt or Interrupt(), merged)


def run(
    store: Store,
    url: str,
    study: Study,
    show: Callable[[Progress], None],
    interrupt: Interrupt,
    settings: SearchSettings,
) -> SearchOutcome:
    """Drives a recorded study to its target, with the workers and the engine that ``settings`` name."""
    engine = make_engine(
        settings.engine, url, study.name, artifact_root(url), settings.workers, settings.engine_address
    )
    ending = Driver(store, study, engine, show, interrupt).run()
    trials = store.trials(study.name)
    return SearchOutcome(study, trials, standing(study, trials), ending)


def record(store: Store, study: Study, named: bool) -> Study:
    """The study as recorded; one that nobody named gets the next free name if another search was quicker.

    Raises:
        StoreError: If it cannot be recorded, or ``named`` and the name is taken.
    """
    while True:
        try:
            store.create_study(study)
        except StoreError:
            if named or study.name not in (taken := store.study_names()):
                raise
            study = replace(study, name=_free_name(study.task_name, taken))
        else:
            return study


def reopen(store: Store, name: str | None, trials: int | None, hours: float | None) -> Study:
    """The stored study, with its targets raised as asked.

    Raises:
        NotFoundError: If there is no such study.
        AutopeftError: If it has nothing left to do.
    """
    study = store.study(name)
    if trials is not None or hours is not None:
        store.set_target(study.name, trials or study.trials, hours)
        study = store.study(study.name)
    require_unfinished(study, store.trials(study.name))
    return study


def prepare(settings: SearchSettings, taken: Sequence[str]) -> Prepared:
    """The study that ``settings`` ask for, checked against the task and the model before anything is written.

    Args:
        settings: What the user asked for.
        taken: Names of the studies that the database holds.

    Raises:
        AutopeftError: If the task, the model, the space or the budget is not valid.
    """
    from autopeft.adapters.models import backbone_shapes, model_spec, require_readable  # seconds to import

    if settings.study in taken:
        raise ConfigurationError(f"study {settings.study} exists: autopeft resume {settings.study}, or another name")
    task = load_task(_task_spec(settings))
    defaults = training_defaults(task)
    backbone = backbone_shapes(settings.model)
    budget = parse_budget(settings.budget, backbone.parameter_count)
    space = presets.build(settings.space, backbone, defaults.learning_rate)
    space.require_feasible(budget.parameters)
    fidelity = _fidelity(settings, task, defaults)
    model = model_spec(settings.model, settings.pooling)
    require_readable(model, fidelity.max_length, task.kind)
    trials = settings.trials or (DEFAULT_TRIALS if settings.hours is None else 100_000)
    initial_count = settings.initial or _initial_count(trials)
    make_proposer(settings.proposer, initial_count, settings.seed)  # an unknown name is said before anything is written
    study = Study(
        name=settings.study or _free_name(task.name, taken),
        model=model,
        backbone=backbone,
        task=task.spec.to_json(),
        task_name=task.name,
        metric=task.metric,
        quality_floor=task.quality_floor,
        space=space.definition,
        objectives=(Objective(task.metric, Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
        budget=budget,
        fidelity=fidelity,
        control_learning_rate=defaults.control_learning_rate,
        proposer=settings.proposer,
        initial_count=initial_count,
        trials=trials,
        hours=settings.hours,
        seed=settings.seed,
        environment={**_environment(), "data": task.data_sha256},
    )
    return Prepared(study, (*task.notes, *_notes(study, task)))


def estimate(study: Study, workers: str) -> tuple[float, dict[str, Any]]:
    """Seconds that a search of ``study`` will take, and the step time it rests on, measured now in a worker.

    Raises:
        EvaluationError: If the worker cannot take the measurement.
    """
    plans = plan_workers(workers)
    measured = _time_step(study, plans[0])
    rows = load_task(TaskSpec.from_json(study.task)).validation
    trial = study.fidelity.steps * measured["step_seconds"] + len(rows) * measured["evaluate_seconds_per_row"]
    sweep = presets.control(study.backbone, study.budget.parameters, study.control_learning_rate)
    total = study.trials + len(sweep)
    seconds = math.ceil(total / len(plans)) * trial + measured["load_seconds"]
    if study.hours is not None:
        seconds = min(seconds, study.hours * 3600)
    return seconds, {**measured, "trial_seconds": trial, "workers": len(plans), "control_trials": len(sweep)}


def _time_step(study: Study, plan: WorkerPlan) -> dict[str, Any]:
    order = {"study": study.to_json(), "device": plan.device, "threads": plan.threads}
    answer = subprocess.run(
        worker_command("time-step", "--plan", "-"),
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env=child_environment("", plan),
        check=False,
    )
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"the step time could not be measured: {last}")
    measured: dict[str, Any] = json.loads(answer.stdout)
    return measured


def _task_spec(settings: SearchSettings) -> TaskSpec:
    return TaskSpec(
        source=settings.task,
        text=settings.text,
        text_pair=settings.text_pair,
        label=settings.label,
        metric=settings.metric,
        train_rows=settings.train_rows,
        validation_rows=settings.validation_rows,
        seed=settings.seed,
    )


def _fidelity(settings: SearchSettings, task: Task, defaults: TrainingDefaults) -> Fidelity:
    batch = settings.batch_size or defaults.batch_size
    epochs = settings.epochs or defaults.epochs
    steps = settings.steps or max(1, math.ceil(epochs * len(task.train) / batch))
    return Fidelity(steps, batch, settings.max_length or defaults.max_length)


def _initial_count(trials: int) -> int:
    """A third of the proposals, between 4 and 12; a longer start costs hypervolume (docs/experiments.md)."""
    return max(min(4, trials), min(12, trials // 3))


def _free_name(stem: str, taken: Sequence[str]) -> str:
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("autopeft", "torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source"
    return found | {"device": "cuda" if visible_gpus() else "cpu"}


def _notes(study: Study, task: Task) -> list[str]:
    space, budget = study.search_space, study.budget
    share = space.share_within(budget.parameters)
    fraction = budget.parameters / study.backbone.parameter_count
    epochs = study.fidelity.steps * study.fidelity.batch_size / len(task.train)
    return [
        f"model    {study.backbone.name}: {study.backbone.layer_count} layers, "
        f"{study.backbone.parameter_count:,} parameters, {study.model.pooling} head",
        f"task     {task.name}: {len(task.train):,} training and {len(task.validation):,} validation rows, "
        f"{task.metric}, {task.floor_name} {task.quality_floor:.3f}",
        f"space    {space.name}: {space.size:.3g} configurations, {percent(share)} within the budget",
        f"budget   {budget.text} = {budget.parameters:,} of {study.backbone.parameter_count:,} parameters "
        f"({percent(fraction)}); smallest possible {space.smallest_cost:,}",
        f"trial    {study.fidelity.steps} steps of {study.fidelity.batch_size} rows ({epochs:.3g} epochs), "
        f"at most {study.fidelity.max_length} tokens",
    ]


def percent(fraction: float) -> str:
    """A fraction for people: two significant digits or more, never ``0.00 %``."""
    return f"{fraction * 100:.3g} %"


def export(
    db: str | None,
    study: str | None,
    number: int,
    target: str,
    output: Path,
    overwrite: bool = False,
    lossy: bool = False,
) -> Path:
    """Writes a trial's files for ``target`` into ``output`` and returns the folder.

    Raises:
        NotFoundError: If the trial does not exist.
        ExportError: If the target cannot hold it, or the written files do not pass their verification.
    """
    from autopeft.export import export_trial

    url = database_url(db)
    with Store.open(url) as store:
        asked = store.study(study)
        trial = store.trial(asked.name, number)
        measurement = store.measurement(asked.name, number)
    return export_trial(asked, trial, measurement, artifact_root(url), target, output, overwrite=overwrite, lossy=lossy)


def training_plan(
    study: Study, configuration: Configuration, output: Path, epochs: float | None, seed: int
) -> dict[str, Any]:
    """The order for ``python -m workers train``: one configuration, trained in full and scored on the test split."""
    fidelity = study.fidelity
    if epochs is not None:
        rows = len(load_task(TaskSpec.from_json(study.task)).train)
        fidelity = replace(fidelity, steps=max(1, math.ceil(epochs * rows / fidelity.batch_size)))
    return {
        "study": replace(study, fidelity=fidelity).to_json(),
        "configuration": configuration.to_json(),
        "output": os.fspath(output),
        "seed": seed,
    }
