"""``autopeft search`` and ``autopeft resume``: settings in, live progress, the front at the end."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli.console import Database, Json, document, note, options
from autopeft.errors import BudgetError

if TYPE_CHECKING:
    from autopeft.api import SearchOutcome
    from autopeft.settings import SearchSettings
    from autopeft.study import Study

Text = str | None
Number = int | None


def _option(*names: str, help: str, panel: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


_WHAT, _LIMITS, _DATA, _RUN = "What", "Limits", "Data and training", "Running"


def search(
    model: Annotated[
        Text, _option("--model", "-m", help="minilm (embedded), a folder, or a hub id.", panel=_WHAT)
    ] = None,
    task: Annotated[
        Text,
        _option(
            "--task", "-t", help="aspects, a file or folder of rows, .txt or images, or hf:NAME/CONFIG.", panel=_WHAT
        ),
    ] = None,
    space: Annotated[Text, _option("--space", help="layerwise, autopeft, or a YAML file.", panel=_WHAT)] = None,
    metric: Annotated[
        Text,
        _option(
            "--metric",
            help="accuracy, macro_f1, matthews, pearson, option_accuracy, exact_match, likelihood, …",
            panel=_WHAT,
        ),
    ] = None,
    pooling: Annotated[
        Text, _option("--pooling", help="mean or stock [as the checkpoint declares].", panel=_WHAT)
    ] = None,
    proposer: Annotated[
        Text, _option("--proposer", help="closed-form, or a peer: sobol, random, tpe, nsga2, …", panel=_WHAT)
    ] = None,
    budget: Annotated[
        Text, _option("--budget", "-b", help="Trainable parameters: 0.5%, 0.005, 110k.", panel=_LIMITS)
    ] = None,
    trials: Annotated[Number, _option("--trials", "-n", help="Configurations to propose.", panel=_LIMITS)] = None,
    hours: Annotated[float | None, _option("--hours", help="Wall-clock limit.", panel=_LIMITS)] = None,
    initial: Annotated[
        Number, _option("--initial", help="Proposals before the model takes over.", panel=_LIMITS)
    ] = None,
    epochs: Annotated[float | None, _option("--epochs", help="Passes over the rows in a trial.", panel=_DATA)] = None,
    steps: Annotated[Number, _option("--steps", help="Optimiser steps, instead of epochs.", panel=_DATA)] = None,
    train_rows: Annotated[Number, _option("--train-rows", help="Most training rows.", panel=_DATA)] = None,
    validation_rows: Annotated[Number, _option("--validation-rows", help="Most validation rows.", panel=_DATA)] = None,
    batch_size: Annotated[Number, _option("--batch-size", help="Rows a step.", panel=_DATA)] = None,
    max_length: Annotated[Number, _option("--max-length", help="Most tokens of a row.", panel=_DATA)] = None,
    text: Annotated[Text, _option("--text-column", help="Column of the text, prompt or image.", panel=_DATA)] = None,
    text_pair: Annotated[Text, _option("--text-pair-column", help="Column of the second text.", panel=_DATA)] = None,
    label: Annotated[Text, _option("--label-column", help="Column of the label or answer.", panel=_DATA)] = None,
    seed: Annotated[Number, _option("--seed", help="Design, data order, initialisations.", panel=_RUN)] = None,
    workers: Annotated[Text, _option("--workers", "-w", help="A number, or auto.", panel=_RUN)] = None,
    engine: Annotated[Text, _option("--engine", help="What starts workers: local, ray or slurm.", panel=_RUN)] = None,
    engine_address: Annotated[
        Text, _option("--engine-address", help="Of a Ray cluster, or submitit's cluster.", panel=_RUN)
    ] = None,
    study: Annotated[Text, _option("--study", "-s", help="Name of the new study.", panel=_RUN)] = None,
    db: Database = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of settings.", rich_help_panel=_RUN)
    ] = None,
    override: Annotated[list[str] | None, typer.Option("-o", help="key=value", rich_help_panel=_RUN)] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Settings and their origins.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what and how long; write nothing.", rich_help_panel=_RUN)
    ] = False,
    as_json: Json = False,
) -> None:
    """Search for a Pareto front of configurations within a budget."""
    from autopeft.settings import database_url, merge

    given = dict(locals())
    flags = {key: given[key] for key in _KEYS}
    settings, origins = merge(flags, override, config)
    if print_config:
        _print_config(settings, origins, as_json)
        return
    if dry_run:
        _dry_run(settings, database_url(db), as_json)
        return
    _search(settings, database_url(db), as_json)


_KEYS = [
    "model",
    "task",
    "space",
    "metric",
    "pooling",
    "proposer",
    "budget",
    "trials",
    "hours",
    "initial",
    "epochs",
    "steps",
    "train_rows",
    "validation_rows",
    "batch_size",
    "max_length",
    "text",
    "text_pair",
    "label",
    "seed",
    "workers",
    "engine",
    "engine_address",
    "study",
]


def resume(
    study: Annotated[str | None, typer.Argument(help="Name of the study [the only or latest].")] = None,
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="New number of proposals.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.0, help="New wall-clock limit, from now.")] = None,
    workers: Annotated[str | None, typer.Option("--workers", "-w", help="A number, or auto.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="local, ray or slurm.")] = None,
    engine_address: Annotated[str | None, typer.Option("--engine-address", help="Of a Ray cluster.")] = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Go on with a study to its stored target, after an interruption or a crash."""
    from autopeft.api import reopen, run
    from autopeft.cli.progress import progress_display
    from autopeft.settings import database_url, merge
    from autopeft.store import Store

    url = database_url(db)
    settings, _ = merge({"workers": workers, "engine": engine, "engine_address": engine_address})
    with Store.open(url) as store:
        stored = reopen(store, study, trials, hours)
        note(f"resuming {stored.name}: target {stored.trials} proposals")
        with progress_display(quiet=options.quiet) as display:
            outcome = run(store, url, stored, display.show, display.interrupt, settings)
    _finish(outcome, url, as_json)


def _search(settings: SearchSettings, url: str, as_json: bool) -> None:
    from autopeft.api import prepare, record, run
    from autopeft.cli.progress import progress_display
    from autopeft.launch import plan_workers
    from autopeft.store import Store

    plan_workers(settings.workers)  # a wrong number of workers is said before anything is written
    with Store.open(url, create=True) as store:
        prepared = prepare(settings, store.study_names())
        for line in prepared.notes:
            note(line)
        study = record(store, prepared.study, named=settings.study is not None)
        note(f"study    {study.name} in {url}: {_plan(study)}")
        with progress_display(quiet=options.quiet) as display:
            outcome = run(store, url, study, display.show, display.interrupt, settings)
    _finish(outcome, url, as_json)


def _plan(study: Study) -> str:
    from search_spaces.presets import control

    sweep = len(control(study.backbone, study.budget.parameters, study.control_learning_rate))
    limit = f"{study.trials} proposals" if study.hours is None else f"{study.hours:g} h"
    searched = f"{limit} ({study.initial_count} initial, then {study.proposer})"
    return f"{searched}, {sweep} control trials, head alone; seed {study.seed}"


def _finish(outcome: SearchOutcome, url: str, as_json: bool) -> None:
    from autopeft.driver import Ending
    from autopeft.report import first_line, front_document, front_text

    study, standing = outcome.study, outcome.standing
    if as_json:
        document(front_document(study, standing))
    else:
        print(front_text(study, standing))
    flag = "" if url == "sqlite:///autopeft.db" else f" --db {_shown(url)}"
    if outcome.ending is Ending.INTERRUPTED:
        note(f"interrupted; nothing is lost: autopeft resume {study.name}{flag}")
        raise typer.Exit(130)
    if not standing.front:
        failed = next((trial for trial in outcome.trials if trial.error), None)
        reason = f"; trial {failed.number}: {first_line(failed.error)}" if failed else ""
        raise BudgetError(f"{outcome.ending.value}, but the front is empty{reason} (autopeft status{flag} shows more)")
    best = standing.front[-1]
    note(f"{outcome.ending.value}. next: autopeft show {best.number} --layers{flag}")
    note(f"      autopeft export {best.number} --to peft -o runs/{best.number}{flag} | autopeft dashboard{flag}")


def _shown(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@")


def _dry_run(settings: SearchSettings, url: str, as_json: bool) -> None:
    from autopeft.api import estimate, prepare

    prepared = prepare(settings, [])
    seconds, basis = estimate(prepared.study, settings.workers)
    if as_json:
        document({"schema": "autopeft.dry-run/1", "study": prepared.study.to_json(), "seconds": seconds, **basis})
        return
    for line in prepared.notes:
        print(line)
    print(f"search   {_plan(prepared.study)}")
    print(
        f"time     about {_duration(seconds)} on {basis['workers']} worker(s): {basis['trial_seconds']:.1f} s a trial, "
        f"from a measured {basis['step_seconds'] * 1000:.0f} ms a step on {basis['device']}"
    )
    print(f"record   {_shown(url)}")
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
    app.command()(resume)
