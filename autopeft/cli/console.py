"""How commands speak: results on stdout, notes and progress on stderr, JSON only where it was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Database = Annotated[
    str | None,
    typer.Option("--db", "-d", help="Database URL or SQLite file (default: AUTOPEFT_DB, else autopeft.db here)."),
]
StudyName = Annotated[
    str | None, typer.Option("--study", "-s", help="Name of the study (default: the only or latest).")
]
Artifacts = Annotated[Path | None, typer.Option("--artifacts", help="Root of adapters, as in the search.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@dataclass(slots=True)
class Options:
    """Flags of the root command."""

    verbose: bool = False
    quiet: bool = False


options = Options()


def note(text: str) -> None:
    """A line for people, on stderr."""
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)


def fail(text: str, code: int) -> int:
    """Prints an error and returns the exit code."""
    print(f"error: {text}", file=sys.stderr, flush=True)
    return code


def document(data: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, ensure_ascii=False, allow_nan=False))
