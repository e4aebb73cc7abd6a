"""``autopeft finalize``: all members of front and control trained in full and scored on the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document, note
from autopeft.cli.reporting import write_page
from autopeft.cli.training import (
    Cache,
    CheckpointSteps,
    Epochs,
    FirstSeed,
    FullData,
    LmEval,
    LmEvalLimit,
    MicroBatch,
    ModelHere,
    PrecisionName,
    Processes,
    Seeds,
    TaskHere,
    Threads,
    TrackerName,
    final_settings,
    harness_tasks,
)
from autopeft.errors import ConfigurationError


def finalize(
    study: Annotated[str | None, typer.Argument(help="Name of the study (default: the only or latest).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder (default: runs/STUDY-final).")] = None,
    seeds: Seeds = 5,
    seed: FirstSeed = None,
    epochs: Epochs = None,
    full_data: FullData = False,
    micro_batch: MicroBatch = None,
    precision: PrecisionName = None,
    cache: Cache = None,
    tracker: TrackerName = None,
    checkpoint_steps: CheckpointSteps = None,
    lm_eval: LmEval = None,
    lm_eval_limit: LmEvalLimit = None,
    processes: Processes = 1,
    threads: Threads = None,
    task: TaskHere = None,
    model: ModelHere = None,
    named: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Train all front members in full and show the final front on the test split; the same command goes on."""
    from autopeft.final_front import final_document, final_lines
    from autopeft.finishing import Machine, finalized, front_order
    from autopeft.html_report.final import final_page
    from autopeft.settings import database_url
    from autopeft.store.overlook import Overlook

    if study and named and study != named:
        raise ConfigurationError(f"two studies are named, {study!r} and {named!r}: give one")
    settings = final_settings(seeds, seed, epochs, full_data, micro_batch, precision, cache, tracker, checkpoint_steps)
    settings = replace(settings, lm_eval=harness_tasks(lm_eval), lm_eval_limit=lm_eval_limit)
    with Overlook.open(database_url(db)) as reader:
        folder = (output or Path("runs") / f"{reader.study(study or named).name}-final").absolute()
        order = front_order(reader, study or named, folder, settings, Machine(processes, threads), task, model)
    note(f"training front and control with {seeds} seed(s) each, into {folder}")
    front = finalized(order, folder)
    found = final_document(front)
    write_page(folder / "final.html", final_page(front))
    (folder / "final.json").write_text(_text(found), encoding="utf-8")
    if as_json:
        document({**found, "folder": str(folder)})
    else:
        print("\n".join(final_lines(front)))
        print(f"adapters, metrics and cards in {folder}/trial-…, picture and table in {folder / 'final.html'}")


def _text(found: dict[str, object]) -> str:
    import json

    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(finalize)
