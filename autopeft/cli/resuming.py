"""``autopeft resume``, ``autopeft confirm`` and ``autopeft references``: more of a study that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, note, options
from autopeft.cli.ending import finish
from autopeft.cli.search_options import reference_names
from autopeft.errors import ConfigurationError

Named = Annotated[str | None, typer.Argument(help="Name of the study (default: the only or latest).")]
Workers = Annotated[str | None, typer.Option("--workers", "-w", help="A number, or auto.")]
Engine = Annotated[str | None, typer.Option("--engine", help="local, ray or slurm.")]
EngineAddress = Annotated[str | None, typer.Option("--engine-address", help="Of a Ray cluster.")]
Artifacts = Annotated[str | None, typer.Option("--artifacts", help="Root of adapters, as in the search.")]


def resume(
    study: Named = None,
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="New number of proposals.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.0, help="New wall-clock limit, from now.")] = None,
    gpu_hours: Annotated[
        float | None, typer.Option("--gpu-hours", min=0.0, help="New limit on device time, with what was used.")
    ] = None,
    workers: Workers = None,
    engine: Engine = None,
    engine_address: EngineAddress = None,
    artifacts: Artifacts = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="off, fp32, fp16 or auto, for local workers (default: the study's).")
    ] = None,
    pack: Annotated[
        str | None,
        typer.Option("--pack", help="Trials that a worker trains together: a number, auto or off (default)."),
    ] = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Go on with a study to its stored target, after an interruption or a crash."""
    from autopeft.api import reopen
    from autopeft.arranging import asked_pack
    from autopeft.cli.progress import progress_display
    from autopeft.launch import require_startable
    from autopeft.running import run
    from autopeft.settings import cache_mode, database_url, merge
    from autopeft.spending import target_text
    from autopeft.store import Store

    url = database_url(db)
    if cache is not None and cache_mode(cache) and engine not in (None, "local"):
        raise ConfigurationError(f"--cache {cache}: with engine {engine} it is the study's; give it to the search")
    given = {"workers": workers, "engine": engine, "engine_address": engine_address, "artifacts": artifacts}
    settings, _ = merge({**given, "cache": cache, "pack": pack})
    asked_pack(settings)
    require_startable(settings.engine, settings.workers)
    with Store.open(url) as store:
        stored = reopen(store, study, trials, hours, gpu_hours)
        note(f"resuming {stored.name}: target {target_text(stored)}")
        with progress_display(quiet=options.quiet) as display:
            outcome = run(store, url, stored, display.show, display.interrupt, settings)
    finish(outcome, url, as_json)


def confirm(
    study: Named = None,
    seeds: Annotated[int, typer.Option("--seeds", "-n", min=1, help="Fresh seeds of each configuration.")] = 1,
    workers: Workers = None,
    engine: Engine = None,
    engine_address: EngineAddress = None,
    artifacts: Artifacts = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Train the front and the control again with fresh seeds: honest values, and the verdict between them."""
    from autopeft.cli.progress import progress_display
    from autopeft.launch import require_startable
    from autopeft.running import confirm as confirmed
    from autopeft.settings import database_url, merge
    from autopeft.store import Store

    url = database_url(db)
    given = {"workers": workers, "engine": engine, "engine_address": engine_address, "artifacts": artifacts}
    settings, _ = merge(given)
    require_startable(settings.engine, settings.workers)
    with Store.open(url) as store, progress_display(quiet=options.quiet) as display:
        outcome = confirmed(store, url, study, seeds, display.show, display.interrupt, settings)
    finish(outcome, url, as_json)


def references(
    study: Named = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference", help="serial, parallel, prefix, ia3, mola or full; may be repeated (default: all but full)."
        ),
    ] = None,
    workers: Workers = None,
    engine: Engine = None,
    engine_address: EngineAddress = None,
    artifacts: Artifacts = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Train other methods at one size in every layer, or full fine-tuning, to be shown beside front and control."""
    from autopeft.cli.progress import progress_display
    from autopeft.launch import require_startable
    from autopeft.objectives import named_references
    from autopeft.running import compare_with
    from autopeft.settings import database_url, merge
    from autopeft.store import Store

    url = database_url(db)
    names = named_references(reference_names(reference, everything=not reference))
    given = {"workers": workers, "engine": engine, "engine_address": engine_address, "artifacts": artifacts}
    settings, _ = merge(given)
    require_startable(settings.engine, settings.workers)
    with Store.open(url) as store, progress_display(quiet=options.quiet) as display:
        outcome = compare_with(store, url, study, names, display.show, display.interrupt, settings)
    finish(outcome, url, as_json)


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command()(resume)
    app.command()(confirm)
    app.command()(references)
