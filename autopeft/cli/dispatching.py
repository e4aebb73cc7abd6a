"""Commands that work on the queue: ``worker`` serves it, ``stop`` ends a study, ``retry`` and ``requeue`` refill it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document


def worker(
    study: Annotated[
        str | None, typer.Option("--study", "-s", help="Take only its trials (default: any study's).")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda:N (default: a GPU, if there is one).")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: all cores).")] = None,
    max_trials: Annotated[int | None, typer.Option("--max-trials", min=1, help="Leave after so many trials.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", min=0, help="Take no trial after so long.")
    ] = None,
    idle_seconds: Annotated[
        float, typer.Option("--idle-seconds", min=0, help="Leave after so long without a trial; 0: never.")
    ] = 0.0,
    artifacts: Annotated[
        Path | None, typer.Option("--artifacts", help="Root of adapters; a shared folder if workers share no host.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="off, fp32, fp16 or auto (default: the study's).")
    ] = None,
    pack: Annotated[int, typer.Option("--pack", min=1, max=1024, help="Most trials that are trained together.")] = 1,
    name: Annotated[
        str | None, typer.Option("--name", help="Unique in the database (default: host, process, time).")
    ] = None,
    db: Database = None,
) -> None:
    """Take trials from the queue and train them, on this machine, until asked to stop.

    SIGTERM and Ctrl-C hand the trial at hand back; SIGUSR1 finishes it first.
    """
    from autopeft.launch import WorkerPlan, child_environment, visible_gpus, worker_command
    from autopeft.settings import artifact_root, cache_mode, database_url

    url = database_url(db)
    chosen = device or ("cuda:0" if visible_gpus() else "cpu")
    plan = WorkerPlan(chosen, threads or len(os.sched_getaffinity(0)))
    root = artifact_root(url, artifacts)
    command = worker_command("run", "--device", chosen, "--threads", str(plan.threads), "--artifacts", str(root))
    given = {"--study": study, "--worker-id": name, "--max-trials": max_trials, "--max-seconds": max_seconds}
    given["--cache"] = None if cache is None else cache_mode(cache).value
    given["--pack"] = pack if pack > 1 else None
    for flag, value in {**given, "--idle-seconds": idle_seconds}.items():
        command += [flag, str(value)] if value is not None else []
    sys.stdout.flush()
    os.execve(command[0], command, child_environment(url, plan))


def stop(
    study: Annotated[str, typer.Argument(help="Name of the study.")], db: Database = None, as_json: Json = False
) -> None:
    """End a study: what waits is cancelled, what runs is asked to stop; ``autopeft resume`` opens it again."""
    from autopeft.settings import database_url
    from autopeft.store import Store

    with Store.open(database_url(db)) as store:
        count = store.stop(study)
    if as_json:
        document({"schema": "autopeft.stopped/1", "study": study, "trials": count})
    else:
        print(f"{study} is stopped; {count} open trial(s) cancelled or asked to stop")


def retry(study: StudyName = None, db: Database = None, as_json: Json = False) -> None:
    """Queue every trial that failed or was quarantined once more, with clean counters."""
    from autopeft.settings import database_url
    from autopeft.store import Store

    with Store.open(database_url(db)) as store:
        name = store.study(study).name
        numbers = store.retry(name)
    if as_json:
        document({"schema": "autopeft.queued/1", "study": name, "trials": numbers})
    elif numbers:
        print(f"queued again: {', '.join(map(str, numbers))}; autopeft resume {name} or autopeft worker trains them")
    else:
        print(f"no trial of {name} has failed")


def requeue(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Put one trial back into the queue, whatever became of it; a worker that runs it loses it."""
    from autopeft.settings import database_url
    from autopeft.store import Store

    with Store.open(database_url(db)) as store:
        name = store.study(study).name
        was = store.requeue(name, trial)
    if as_json:
        document({"schema": "autopeft.queued/1", "study": name, "trials": [trial], "was": was.value})
    else:
        print(f"trial {trial} of {name} was {was.value} and is queued again")


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    for command in (worker, stop, retry, requeue):
        app.command()(command)
