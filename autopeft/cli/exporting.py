"""``autopeft export``: a chosen trial becomes files for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli.console import Artifacts, Database, Json, StudyName, document


def export(
    trial: Annotated[int, typer.Argument(help="Number of the trial.", min=0)],
    to: Annotated[str, typer.Option("--to", help="peft, script, trl, vllm, axolotl, llamafactory or autopeft.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, or an archive NAME.zip.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")] = False,
    lossy: Annotated[bool, typer.Option("--lossy", help="Leave out what the target cannot hold, and say so.")] = False,
    study: StudyName = None,
    db: Database = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Write a trial's adapter for another tool, verified."""
    from autopeft.api import export as export_files
    from autopeft.export.archive import names_in

    folder = export_files(db, study, trial, to, output, overwrite, lossy, artifacts)
    inside = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = sorted(names_in(folder) if folder.is_file() else inside)
    if as_json:
        document({"schema": "autopeft.export/1", "folder": str(folder), "target": to, "files": files})
        return
    print(f"trial {trial} for {to} in {folder}, verified:")
    for name in files:
        print(f"  {name}")


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(export)
