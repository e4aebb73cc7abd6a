"""``autopeft search``: settings in, live progress, the front at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import typer

from autopeft.cli import search_options as asked
from autopeft.cli.console import Database, Json, document, note, options
from autopeft.cli.ending import finish, shown

if TYPE_CHECKING:
    from autopeft.settings import SearchSettings
    from autopeft.study import Study


def search(
    model: asked.Model = None,
    proxy_model: asked.ProxyModel = None,
    task: asked.Task = None,
    space: asked.Space = None,
    metric: asked.Metric = None,
    pooling: asked.Pooling = None,
    prior: asked.Prior = None,
    proposer: asked.Proposer = None,
    objectives: asked.Objectives = None,
    budget: asked.Budget = None,
    max_memory: asked.MaxMemory = None,
    max_train_seconds: asked.MaxTrainSeconds = None,
    max_inference_seconds: asked.MaxInferenceSeconds = None,
    max_stored: asked.MaxStored = None,
    max_flops: asked.MaxFlops = None,
    trials: asked.Trials = None,
    hours: asked.Hours = None,
    gpu_hours: asked.GpuHours = None,
    price_per_gpu_hour: asked.PricePerGpuHour = None,
    confirm: asked.Confirm = None,
    control_rates: asked.ControlRates = None,
    references: asked.References = False,
    reference: asked.Reference = None,
    initial: asked.Initial = None,
    repeats: asked.Repeats = None,
    epochs: asked.Epochs = None,
    steps: asked.Steps = None,
    train_rows: asked.TrainRows = None,
    data_fraction: asked.DataFraction = None,
    validation_rows: asked.ValidationRows = None,
    batch_size: asked.BatchSize = None,
    max_length: asked.MaxLength = None,
    fidelity: asked.Fidelity = None,
    micro_batch: asked.MicroBatch = None,
    packing: asked.Packing = None,
    text: asked.TextColumn = None,
    text_pair: asked.TextPairColumn = None,
    label: asked.LabelColumn = None,
    chat_template: asked.ChatTemplate = None,
    max_new_tokens: asked.MaxNewTokens = None,
    load_in: asked.LoadIn = None,
    precision: asked.Precision = None,
    gradient_checkpointing: asked.GradientCheckpointing = None,
    gpus_per_worker: asked.GpusPerWorker = None,
    device_memory: asked.DeviceMemory = None,
    kernels: asked.Kernels = None,
    seed: asked.Seed = None,
    workers: asked.Workers = None,
    engine: asked.Engine = None,
    engine_address: asked.EngineAddress = None,
    artifacts: asked.Artifacts = None,
    cache: asked.Cache = None,
    pack: asked.Pack = None,
    study: asked.Study = None,
    db: Database = None,
    config: asked.Config = None,
    override: asked.Override = None,
    print_config: asked.PrintConfig = False,
    dry_run: asked.DryRun = False,
    as_json: Json = False,
) -> None:
    """Search for a Pareto front of configurations within a budget."""
    from autopeft.launch import require_startable
    from autopeft.settings import SearchSettings, database_url, merge

    given = dict(locals())
    flags = {field.name: given[field.name] for field in fields(SearchSettings)}
    flags["references"] = asked.reference_names(reference, everything=references)
    settings, origins = merge(flags, override, config)
    if print_config:
        _print_config(settings, origins, as_json)
        return
    require_startable(settings.engine, settings.workers, settings.gpus_per_worker)
    if dry_run:
        _dry_run(settings, database_url(db), as_json)
        return
    _search(settings, database_url(db), as_json)


def _search(settings: SearchSettings, url: str, as_json: bool) -> None:
    from autopeft.api import guided, prepare, record
    from autopeft.cli.progress import progress_display
    from autopeft.running import run
    from autopeft.store import Store

    with Store.open(url, create=True) as store:
        prepared = prepare(settings, store.study_names())
        for line in prepared.notes:
            note(line)
        study = record(store, guided(prepared.study, settings, store), named=settings.study is not None)
        note(f"study    {study.name} in {url}: {_plan(study)}")
        if study.guides:
            note(_prior(study))
        with progress_display(quiet=options.quiet) as display:
            outcome = run(store, url, study, display.show, display.interrupt, settings)
    finish(outcome, url, as_json)


def _prior(study: Study) -> str:
    return f"prior    {', '.join(f'{guide.name} ({guide.sha256[:12]}…)' for guide in study.guides)}"


def _plan(study: Study) -> str:
    from autopeft import control
    from autopeft.asking import reference_sweep
    from autopeft.study import UNLIMITED

    sweep, rates = len(control.planned(study)), control.rates(study)
    chosen = len(rates) > 1 and sweep
    choice = f" ({len(rates)} learning rates at one size, then the others with the best)" if chosen else ""
    limits = [] if study.trials >= UNLIMITED else [f"{study.trials} proposals"]
    limits += [] if study.hours is None else [f"{study.hours:g} h"]
    limits += [] if study.device_hours is None else [f"{study.device_hours:g} h of device time"]
    searched = f"{' or '.join(limits)} ({study.initial_count} initial, then {study.proposer})"
    again = f", then front and control again with {study.confirmations} fresh seed(s)" if study.confirmations else ""
    if study.references:
        counted = ", ".join(f"{len(plans) or 'no'} {name}" for name, plans in reference_sweep(study).items())
        again += f", and as references {counted}"
    return f"{searched}, {sweep} control trials{choice}, head alone{again}; seed {study.seed}"


def _dry_run(settings: SearchSettings, url: str, as_json: bool) -> None:
    from autopeft.api import as_guided, prepare
    from autopeft.estimating import estimate
    from autopeft.measurement import TRUNCATION, truncation_lines
    from autopeft.spending import cost_text

    prepared = prepare(settings, [])
    study = as_guided(prepared.study, settings, url)
    seconds, basis = estimate(study, settings.workers)
    if as_json:
        document({"schema": "autopeft.dry-run/1", "study": study.to_json(), "seconds": seconds, **basis})
        return
    for line in prepared.notes:
        print(line)
    for line in truncation_lines(basis[TRUNCATION]):
        print(f"rows     {line} (--max-length {prepared.study.fidelity.max_length})")
    if study.guides:
        print(_prior(study))
    print(f"search   {_plan(study)}")
    print(
        f"time     about {_duration(seconds)} on {basis['workers']} worker(s): {basis['trial_seconds']:.1f} s a trial "
        f"({basis['least_seconds']:.1f} to {basis['most_seconds']:.1f}), from steps measured on {basis['device']}"
    )
    print(f"cost     {cost_text(basis['device_seconds'], basis['device'], prepared.study.hour_price)}")
    print(f"record   {shown(url)}")
    print("nothing was written (--dry-run)")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_config(settings: SearchSettings, origins: dict[str, str], as_json: bool) -> None:
    values = asdict(settings)
    if as_json:
        document({"schema": "autopeft.settings/1", "settings": values, "origins": origins})
        return
    for key, value in values.items():
        print(f"{key}: {json.dumps(value, ensure_ascii=False):<24} # {origins[key]}")


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command()(search)
