"""``autopeft export`` and ``autopeft train``: a chosen trial becomes files, or a full training run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli.console import Database, Json, StudyName, document, note
from autopeft.errors import ConfigurationError, EvaluationError, NotFoundError

if TYPE_CHECKING:
    from autopeft.study import Study
    from search_spaces.configuration import Configuration


def export(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    to: Annotated[str, typer.Option("--to", help="peft, script, trl, vllm, axolotl, llamafactory or autopeft.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")] = False,
    lossy: Annotated[bool, typer.Option("--lossy", help="Leave out what the target cannot hold, and say so.")] = False,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Write a trial's adapter for another tool, verified."""
    from autopeft.api import export as export_files

    folder = export_files(db, study, trial, to, output, overwrite, lossy)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if as_json:
        document({"schema": "autopeft.export/1", "folder": str(folder), "target": to, "files": files})
        return
    print(f"trial {trial} for {to} in {folder}, verified:")
    for name in files:
        print(f"  {name}")


def train(
    what: Annotated[str, typer.Argument(metavar="TRIAL|DIR", help="Number of a trial, or an exported folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write [runs/…].")] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", min=0.01, help="Passes over the rows [as searched].")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the training run.")] = 0,
    study: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Train a chosen configuration in full, score it once on the test split, save the adapter."""
    from autopeft.api import training_plan
    from autopeft.launch import child_environment, plan_workers, worker_command

    asked, configuration, name = _chosen(what, study, db)
    folder = (output or Path("runs") / name).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"output {folder}: exists and is not an empty folder; name another with -o")
    worker = plan_workers("1")[0]
    plan = training_plan(asked, configuration, folder, epochs, seed)
    plan |= {"device": worker.device, "threads": worker.threads}
    note(f"training {name}: {plan['study']['fidelity']['steps']} steps, seed {seed}, into {folder}")
    command = worker_command("train", "--plan", "-")
    environment = child_environment("", worker)
    done = subprocess.run(
        command, input=json.dumps(plan), text=True, env=environment, stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise EvaluationError(f"training ended with exit code {done.returncode}; its messages stand above")
    _report(folder, as_json)


def _report(folder: Path, as_json: bool) -> None:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if as_json:
        document({"schema": "autopeft.training/1", "folder": str(folder), **metrics})
        return
    for key, value in metrics.items():
        print(f"{key:<24} {value}")
    print(f"adapter and head in {folder}")


def _chosen(what: str, study: str | None, db: str | None) -> tuple[Study, Configuration, str]:
    """(study, configuration, name) of a trial number or an exported folder."""
    from autopeft.settings import database_url
    from autopeft.store.reader import Reader
    from autopeft.study import Study
    from search_spaces.configuration import Configuration

    if what.isdigit():
        with Reader.open(database_url(db)) as reader:
            asked = reader.study(study)
            return asked, reader.trial(asked.name, int(what)).configuration, f"{asked.name}-{what}"
    folder = Path(what)
    if not folder.is_dir():
        raise NotFoundError(f"{what!r}: neither the number of a trial nor a folder that exists")
    texts = {}
    for file in ("study.json", "configuration.json"):
        try:
            texts[file] = json.loads((folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NotFoundError(f"{folder} holds no {file}: give a folder that autopeft export wrote") from error
        except ValueError as error:
            raise ConfigurationError(f"{folder / file}: not JSON: {error}") from error
    return Study.from_json(texts["study.json"]), Configuration.from_json(texts["configuration.json"]), folder.name


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command()(export)
    app.command()(train)
