"""What a person asks for, as functions: prepare a study, search, resume, estimate, export.

``autopeft.search(…)`` is public, and the command line a thin skin on these. The loop is ``autopeft.driver``; nothing
here trains.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autopeft import control
from autopeft.arranging import arranged
from autopeft.budget import parse_budget, parse_share
from autopeft.driver import Interrupt
from autopeft.errors import ConfigurationError, NotFoundError, StoreError
from autopeft.fidelity import ladder_of
from autopeft.launch import require_startable, visible_gpus
from autopeft.matching import matched
from autopeft.objectives import PERPLEXITY, asked_for, describe, measured, named_references
from autopeft.optimizer import make_proposer, require_able
from autopeft.price import drawn
from autopeft.priors import in_files, resolve
from autopeft.progress import Progress
from autopeft.promise import Promise, promised, same_plan
from autopeft.proxy import lines, require_fit
from autopeft.rungs import expected_share, require_unfinished
from autopeft.running import SearchOutcome, run
from autopeft.scales import require_feasible, with_boxes
from autopeft.settings import CacheMode, SearchSettings, artifact_root, cache_mode, database_url, merge
from autopeft.spending import device_seconds, require_device_time
from autopeft.store import Reader, Store
from autopeft.store.overlook import Overlook
from autopeft.study import PROTOCOL, UNLIMITED, Fidelity, ModelSpec, Objective, Proxy, Study
from autopeft.tasks import METRICS, Task, TaskSpec, TrainingDefaults, is_causal, load_task, training_defaults
from autopeft.tasks.metrics import ALIASES
from search_spaces import presets

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
    merged, _ = merge(settings, given="argument")
    require_startable(merged.engine, merged.workers, merged.gpus_per_worker)
    url = database_url(db)
    with Store.open(url, create=True) as store:
        prepared = prepare(merged, store.study_names())
        study = record(store, guided(prepared.study, merged, store), named=merged.study is not None)
        return run(store, url, study, show, interrupt or Interrupt(), merged)


def guided(study: Study, settings: SearchSettings, store: Store) -> Study:
    """``study`` with the prior that ``settings`` name; from here on it stands in the study.

    Raises:
        NotFoundError: If a probe does not exist.
        ConfigurationError: If what is named is no prior for this study.
    """
    return study if settings.prior is None else replace(study, guides=resolve(settings.prior, store, study))


def as_guided(study: Study, settings: SearchSettings, url: str) -> Study:
    """``guided`` for a look beforehand: a database is opened, and only read, where a prior is in one.

    Raises:
        StoreError: If there is no database, or no probe of that name in it.
        ConfigurationError: If what is named is no prior for this study.
    """
    if settings.prior is None:
        return study
    if in_files(settings.prior):
        return replace(study, guides=resolve(settings.prior, None, study))
    try:
        reader = Reader.open(url)
    except NotFoundError as error:
        raise NotFoundError(f"prior {settings.prior}: no file of that name, and {error}") from error
    with reader:
        return replace(study, guides=resolve(settings.prior, reader, study))


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


def reopen(
    store: Store, name: str | None, trials: int | None, hours: float | None, device_hours: float | None = None
) -> Study:
    """The stored study, with its targets set as asked; what is refused leaves them as they were.

    Raises:
        NotFoundError: If there is no such study.
        AutopeftError: If it has nothing left to do.
    """
    study = store.study(name)
    wanted = replace(study, trials=trials or study.trials, device_hours=device_hours or study.device_hours)
    require_unfinished(wanted, store.trials(study.name))
    require_device_time(wanted, device_seconds(study, sum(store.worker_seconds(study.name))))
    if (trials, hours, device_hours) != (None, None, None):
        store.set_target(study.name, wanted.trials, hours, wanted.device_hours)
    return store.study(study.name)


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
    task = _task(settings)
    objectives, limits = _traded(settings, task)
    defaults = training_defaults(task)
    backbone = backbone_shapes(settings.model, settings.load_in)
    budget = parse_budget(settings.budget, backbone.parameter_count)
    space = presets.build(settings.space, backbone, defaults.learning_rate)
    space.require_feasible(budget.parameters)
    fidelity = _fidelity(settings, task, defaults)
    model = model_spec(settings.model, settings.pooling, settings.load_in)
    require_readable(model, fidelity.max_length, task.kind)
    task = matched(task, model, backbone, fidelity)
    proxy = None if settings.proxy_model is None else _proxy(settings.proxy_model, model, fidelity, task)
    trials, initial_count = _proposal_counts(settings, objectives)
    study = Study(
        name=settings.study or _free_name(task.name, taken),
        model=model,
        backbone=backbone,
        task=task.spec.to_json(),
        task_name=task.name,
        metric=task.metric,
        quality_floor=task.quality_floor,
        space=space.definition,
        objectives=objectives,
        budget=budget,
        fidelity=fidelity,
        control_learning_rate=defaults.control_learning_rate,
        proposer=settings.proposer,
        initial_count=initial_count,
        trials=trials,
        hours=settings.hours,
        device_hours=settings.gpu_hours,
        hour_price=settings.price_per_gpu_hour,
        seed=settings.seed,
        environment={**_environment(), "data": task.data_sha256},
        limits=limits,
        cache=cache_mode(settings.cache or CacheMode.AUTO),
        repeats=settings.repeats,
        confirmations=settings.confirm,
        control_rates=settings.control_rates,
        references=named_references(settings.references),
        proxy=proxy,
    )
    study, computed = arranged(_settled(study), settings, task)
    return Prepared(study, (*task.notes, *_notes(study, task), *computed))


def _traded(settings: SearchSettings, task: Task) -> tuple[tuple[Objective, ...], dict[str, float]]:
    """Objectives and limits that ``settings`` ask for, as far as the task's metric allows."""
    objectives, limits = asked_for(settings, task.metric, {**{name: name for name in METRICS}, **ALIASES})
    if PERPLEXITY in measured(objectives) and not is_causal(task.metric):
        raise ConfigurationError(f"objective {PERPLEXITY}: {task.metric} is no metric of a language model; choose loss")
    return objectives, limits


def _settled(study: Study) -> Study:
    """``study`` with the boxes of its objectives, if something can be searched: within its limits, on its sibling."""
    require_feasible(study)
    require_fit(study, [*drawn(study), *control.sizes(study).values()])
    return with_boxes(study)


def _task_spec(settings: SearchSettings) -> TaskSpec:
    return TaskSpec(
        source=settings.task,
        text=settings.text,
        text_pair=settings.text_pair,
        label=settings.label,
        chat_template=settings.chat_template,
        max_new_tokens=settings.max_new_tokens,
        metric=settings.metric,
        train_rows=settings.train_rows,
        validation_rows=settings.validation_rows,
        seed=settings.seed,
    )


def _task(settings: SearchSettings) -> Task:
    """The task, or the part of its training rows that trials are to train on; validation stays whole."""
    share = None if settings.data_fraction is None else parse_share(settings.data_fraction, "data fraction")
    task = load_task(_task_spec(settings))
    if share is None:
        return task
    return load_task(replace(task.spec, train_rows=max(1, round(share * len(task.train)))))


def _proxy(source: str, model: ModelSpec, fidelity: Fidelity, task: Task) -> Proxy:
    """The sibling at ``source``, with a head like the model's."""
    from autopeft.adapters.models import backbone_shapes, model_spec, require_readable

    spec, backbone = model_spec(source, model.pooling, model.load_in), backbone_shapes(source, model.load_in)
    require_readable(spec, fidelity.max_length, task.kind)
    matched(task, spec, backbone, fidelity)
    return Proxy(spec, backbone)


def _fidelity(settings: SearchSettings, task: Task, defaults: TrainingDefaults) -> Fidelity:
    batch = settings.batch_size or defaults.batch_size
    epochs = settings.epochs or defaults.epochs
    steps = settings.steps or max(1, math.ceil(epochs * len(task.train) / batch))
    length = settings.max_length or defaults.max_length
    return Fidelity(steps, batch, length, ladder_of(settings.fidelity, steps), settings.micro_batch, settings.packing)


def _proposal_counts(settings: SearchSettings, objectives: Sequence[Objective]) -> tuple[int, int]:
    """Proposals in all, where nobody says as many as time allows if that is limited, and those of the initial design.

    A proposer that does not exist, or that cannot do what is asked, is refused.
    """
    is_timed = (settings.hours, settings.gpu_hours) != (None, None)
    trials = settings.trials or (UNLIMITED if is_timed else DEFAULT_TRIALS)
    initial_count = settings.initial or _initial_count(trials)
    require_able(settings.proposer, measured(objectives), settings.repeats)
    make_proposer(settings.proposer, initial_count, settings.seed)
    return trials, initial_count


def _initial_count(trials: int) -> int:
    """A third of the proposals, between 4 and 12; a longer start costs hypervolume (docs/experiments.md)."""
    return max(min(4, trials), min(12, trials // 3))


def _free_name(stem: str, taken: Sequence[str]) -> str:
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine(), "protocol": PROTOCOL}
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
        f"at most {study.fidelity.max_length} tokens{_ladder_note(study)}",
        *lines(study),
        *describe(study),
    ]


def _ladder_note(study: Study) -> str:
    """Where trials are looked at on the way, and what that is expected to leave of the training."""
    fidelity = study.fidelity
    if not fidelity.top:
        return ""
    steps = " and ".join(map(str, fidelity.ladder))
    return f"; at {steps} steps the better half goes on: {percent(expected_share(fidelity))} of the training"


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
    artifacts: Path | None = None,
) -> Path:
    """Writes a trial's files for ``target`` into ``output`` and returns the folder.

    ``artifacts`` is the root of adapters, as in the search; None: as ``artifact_root`` says.

    Raises:
        NotFoundError: If the trial does not exist.
        ExportError: If the target cannot hold it, or the written files do not pass their verification.
    """
    from autopeft.export import export_trial

    url = database_url(db)
    with Overlook.open(url) as reader:
        asked = reader.study(study)
        trial = reader.trial(asked.name, number)
        measurement = reader.measurement(asked.name, number)
        promise = promise_of(reader, asked, number)
    root = artifact_root(url, artifacts)
    return export_trial(
        asked, trial, measurement, root, target, output, overwrite=overwrite, lossy=lossy, promise=promise
    )


def promise_of(reader: Overlook, study: Study, number: int) -> Promise | None:
    """What the record promises of trial ``number``; None if no run of its configuration is complete."""
    trials = reader.glances(study.name)
    runs, _ = same_plan(trials, number)
    return promised(study, trials, number, reader.marks(study.name, [one.number for one in runs]))
