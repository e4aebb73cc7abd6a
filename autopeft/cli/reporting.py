"""``autopeft report``: a study as one static HTML file, readable without server and network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli.console import Database, Json, StudyName, document
from autopeft.errors import ConfigurationError

if TYPE_CHECKING:
    from autopeft.html_report import Contents
    from autopeft.store.overlook import Overlook


def report(
    study: Annotated[str | None, typer.Argument(help="Name of the study (default: the only or latest).")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write (default: STUDY.html); an earlier report is replaced."),
    ] = None,
    named: StudyName = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Write a study as one HTML file: front, score sheets, verdict, provenance."""
    from autopeft.html_report import html_report
    from autopeft.settings import database_url
    from autopeft.store.overlook import Overlook

    if study and named and study != named:
        raise ConfigurationError(f"two studies are named, {study!r} and {named!r}: give one")
    with Overlook.open(database_url(db)) as reader:
        contents = _contents(reader, study or named)
    file = output or Path(f"{contents.study.name}.html")
    write_page(file, html_report(contents))
    if as_json:
        document({"schema": "autopeft.report/1", "study": contents.study.name, "file": str(file)})
    else:
        print(f"{contents.study.name} in {file}")


def _contents(reader: Overlook, name: str | None) -> Contents:
    """Everything that the report shows, in a few reads."""
    from autopeft import __version__
    from autopeft.candidates import candidates, repeat_numbers
    from autopeft.confirming import confirmed, numbers
    from autopeft.html_report import Contents
    from autopeft.ruling import judgement
    from autopeft.standing import standing
    from autopeft.study import Origin

    study = reader.study(name)
    trials = reader.glances(study.name)
    now = standing(study, trials)
    members = [trial.number for trial in now.front]
    complete = [trial for trial in trials if trial.values and trial.state.value == "COMPLETE"]
    shown = [*now.front, *now.beside, *(trial for trial in complete if trial.origin is Origin.CONTROL)]
    found = candidates(study, trials, shown, reader.marks(study.name, repeat_numbers(trials, shown)))
    again = confirmed(study, trials, now, reader.marks(study.name, numbers(trials)))
    return Contents(
        study=study,
        trials=trials,
        standing=now,
        known={candidate.number: candidate for candidate in found},
        plans=reader.configurations(study.name, members),
        details=reader.details(study.name, members),
        volumes=[(one.completed, one.hypervolume) for one in reader.volumes(study.name)],
        verdict=judgement(study, trials, now, again),
        environments=reader.environments(study.name, members),
        version=__version__,
        labels={trial.number: trial.label or "" for trial in (*now.beside, *now.control)},
        fresh={one.number: one for one in (*again.front, *again.control)},
    )


def write_page(file: Path, text: str) -> None:
    """Puts ``text`` in the place of ``file``, whole or not at all.

    Raises:
        ConfigurationError: If ``file`` exists and is no HTML file, so that nothing else is ever replaced, or cannot be
            written.
    """
    if file.exists() and (not file.is_file() or not file.read_bytes()[:15].lower().startswith(b"<!doctype html>")):
        raise ConfigurationError(f"output {file}: exists and is no HTML file; name another with -o")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as error:
        raise ConfigurationError(f"output {file}: cannot be written: {error.strerror}; name another with -o") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(report)
