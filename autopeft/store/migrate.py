"""Which revision a database has, which this version needs, and the way from one to the other.

The scripts are ``alembic/`` of a checkout, or ``autopeft/_migrations`` of a wheel. A revision is the number that its
file begins with, so that checking one does not import alembic. SQLite is backed up before it is changed; a server's
backups are its keeper's.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from autopeft.errors import SchemaError, StoreError
from autopeft.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "_migrations", _PACKAGE.parent / "alembic")


def script_location() -> Path:
    """The folder of the migration scripts.

    Raises:
        SchemaError: If the installation lacks it.
    """
    for place in _PLACES:
        if (place / "env.py").is_file():
            return place
    raise SchemaError(f"no migration scripts in {' or '.join(map(str, _PLACES))}: install autopeft again")


def revisions() -> tuple[str, ...]:
    """All revisions that this version knows, oldest first."""
    return tuple(sorted(file.stem.partition("_")[0] for file in (script_location() / "versions").glob("[0-9]*_*.py")))


def head_revision() -> str:
    """The revision that this version reads and writes."""
    return revisions()[-1]


def current_revision(url: str) -> str | None:
    """The revision of the database at ``url``; None if it has no tables yet.

    Raises:
        NotFoundError: If the SQLite file does not exist.
        SchemaError: If it holds tables of something else.
        StoreError: If it cannot be read.
    """
    database = Database(url, read_only=True)
    database.require_file()
    try:
        with database.reading() as connection:
            return _revision(connection, str(database))
    finally:
        database.close()


def upgrade(url: str) -> str:
    """Brings the database at ``url`` to the head revision, in one transaction, and returns that revision.

    An older SQLite database is copied first, to the file that ``backup`` names.

    Raises:
        SchemaError: If it is newer than this version, or holds tables of something else.
        StoreError: If it cannot be written.
    """
    database = Database(url)
    try:
        if database.path and database.path.exists():
            with database.reading() as connection:
                current = _revision(connection, str(database))
            if current is not None and current in revisions()[:-1]:
                backup(url)
        _upgrade(database)
    finally:
        database.close()
    return head_revision()


def backup(url: str, to: Path | None = None) -> Path:
    """Copies an SQLite database as it is at one moment, also while it is in use, and returns the copy's path.

    Args:
        url: Database.
        to: The copy; ``<file>.revision-<its revision>-<UTC time>`` beside the database, if not given.

    Raises:
        NotFoundError: If the SQLite file does not exist.
        StoreError: If it is no SQLite, cannot be read, or the copy exists or cannot be written.
    """
    database = Database(url, read_only=True)
    database.require_file()
    try:
        if database.path is None:
            raise StoreError(f"database {database} is a server's: back it up with pg_dump")
        with database.reading() as connection:
            revision = _revision(connection, str(database))
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        copy = to or database.path.with_name(f"{database.path.name}.revision-{revision or 'none'}-{stamp}")
        if copy.exists():
            raise StoreError(f"backup {copy} exists already: name another file")
        _copy(database.path, copy)
        return copy
    finally:
        database.close()


def _copy(path: Path, copy: Path) -> None:
    """Through SQLite, so that what stands in its log comes along; the copy is whole or not there."""
    partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(copy)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"backup {copy}: cannot be written: {error}") from error


def problems(url: str, artifacts: Path | None = None) -> list[str]:
    """One line for each thing wrong with the database: damage, drift of its schema, broken invariants; empty if sound.

    Args:
        url: Database.
        artifacts: Root folder of artifacts; None leaves out whether the files are there.

    Raises:
        NotFoundError: If the SQLite file does not exist.
        SchemaError: If it is of another revision.
        StoreError: If it cannot be read.
    """
    from autopeft.store import drift, invariants

    database = Database(url, read_only=True)
    database.require_file()
    try:
        require_current(database)
        with database.reading() as connection:
            found = drift.damage(connection) + drift.differences(connection)
            return found + invariants.violations(connection, artifacts)
    finally:
        database.close()


def ensure_current(url: str, create: bool) -> None:
    """Nothing, if the database is of the head revision; with ``create`` an empty or missing one is made so.

    Raises:
        NotFoundError: If the SQLite file does not exist and ``create`` is false.
        SchemaError: If it is older or newer.
        StoreError: If it cannot be read or written.
    """
    database = Database(url)
    try:
        if not create:
            database.require_file()
        make_current(database, create)
    finally:
        database.close()


def make_current(database: Database, create: bool) -> None:
    """As ``ensure_current``, for an open database."""
    if create:
        with database.reading() as connection:
            is_new = _revision(connection, str(database)) is None
        if is_new:
            _upgrade(database)
    require_current(database)


def require_current(database: Database) -> None:
    """Nothing, if the database is of the head revision.

    Raises:
        SchemaError: If it is older, newer or empty; the message says what to run.
    """
    with database.reading() as connection:
        current = _revision(connection, str(database))
    if current == head_revision():
        return
    if current is None:
        raise SchemaError(f"database {database} is empty: run 'autopeft db upgrade'")
    _refuse_newer(database, current)
    raise SchemaError(
        f"database {database} has revision {current}, older than {head_revision()}: run 'autopeft db upgrade'"
    )


def require_same(connection: Connection, name: str) -> None:
    """Nothing, if the database ``name`` still is of the revision that it had when it was opened.

    Raises:
        SchemaError: If somebody has upgraded it since.
    """
    current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current != head_revision():
        raise SchemaError(
            f"database {name} was upgraded to revision {current} and this process knows {head_revision()}: "
            "start it again with the version of autopeft that did so"
        )


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, for scripts that run on ``connection`` inside its transaction."""
    from alembic.config import Config

    config = Config(stdout=sys.stdout)  # its default is what stdout was when alembic was imported
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(database: Database) -> None:
    from alembic import command

    with database.writing() as connection:
        # Read again once nobody else can write: another process may have upgraded in between.
        database.wait_for_turn(connection)
        current = _revision(connection, str(database))
        if current is not None:
            _refuse_newer(database, current)
        command.upgrade(configuration(connection), "head")


def _refuse_newer(database: Database, current: str) -> None:
    if current not in revisions():
        raise SchemaError(
            f"database {database} has revision {current}, this version knows up to {head_revision()}: upgrade autopeft"
        )


def _revision(connection: Connection, name: str) -> str | None:
    present = set(inspect(connection).get_table_names())
    if "alembic_version" in present:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        if found is not None or present == {"alembic_version"}:
            return found
    if present:
        shown = ", ".join(sorted(present)[:3])
        raise SchemaError(f"database {name} holds tables of something else ({shown}): name another with --db")
    return None
