"""An open database: address, connections, the two kinds of transaction, its clock, and its failures in one line.

SQLite and PostgreSQL. A writing transaction on SQLite takes the write lock at once (``BEGIN IMMEDIATE``): a deferred
one that reads and then writes was measured to fail with SQLITE_BUSY in spite of any timeout. This module knows no
tables and does not migrate.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Double, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import FunctionElement

from autopeft.errors import ConfigurationError, NotFoundError, StoreError
from autopeft.store.disks import require_local

EXPECTED = "expected sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
BUSY_SECONDS = 30.0
"""How long SQLite waits for another writer; ``?timeout=`` in the address overrides it."""


REST_SECONDS = 1.0
"""A server's connection that was idle for longer is tried before it is used."""

_TURN = 0x4155544F50454654
"""Key of PostgreSQL's advisory lock: "AUTOPEFT" in ASCII."""


class Now(FunctionElement[float]):
    """The database's clock, in seconds since 1970: the only clock that decides about leases."""

    type = Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_sqlite(element: Now, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') is NULL before SQLite 3.42: a lease taken with it would never expire.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "postgresql")
def _now_postgresql(element: Now, compiler: Any, **options: Any) -> str:
    # statement_timestamp is stable, so an index on expires_at can be used; clock_timestamp is not.
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS DOUBLE PRECISION)"


class Database:
    """One database, opened for reading and writing or for reading only.

    Args:
        url: SQLAlchemy address.
        read_only: Refuse every write in the database itself.

    Raises:
        StoreError: If the driver is not installed.
        ConfigurationError: If the address is of no known kind or that of a folder, or it is SQLite on a network file
            system, and to be written.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = parse_url(url)
        if self.path and self.path.is_dir():
            raise ConfigurationError(f"database {self.path}: is a folder: name a file in it with --db")
        if self.path and not read_only:
            require_local(self.path)
        self._engine = _engine(self.url, read_only)
        self._writer = self._engine.execution_options(autopeft_writes=True)
        self._alone = self._writer if self.path else self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def path(self) -> Path | None:
        """The SQLite file, or None for a server."""
        return Path(str(self.url.database)) if self.url.get_backend_name() == "sqlite" else None

    def __str__(self) -> str:
        """The address without its password."""
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)

    def require_file(self) -> None:
        """Nothing, unless this is SQLite and the file is not there.

        Raises:
            NotFoundError: If so.
        """
        if self.path and not self.path.exists():
            raise NotFoundError(f"no database {self.path}: start one with 'autopeft search', or name another with --db")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the record; it never waits for writers on SQLite.

        Raises:
            StoreError: If the database cannot be read.
        """
        with self._explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is written whole or not at all.

        Raises:
            StoreError: If the database is locked, read-only, full or away.
        """
        with self._explained(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """For a verb that is one statement on a server: each is written by itself there; on SQLite as ``writing``.

        Raises:
            StoreError: If the database is locked, read-only, full or away.
        """
        with self._explained(), self._alone.begin() as connection:
            yield connection

    @contextmanager
    def closed_unless_sound(self) -> Iterator[None]:
        """Closes the database if what is done with it raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def wait_for_turn(self, connection: Connection) -> None:
        """Waits until no other transaction on ``connection``'s database has asked for its turn.

        For changes of the schema; on SQLite the write lock has done it already.
        """
        if self.path is None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(self._hidden(f"database {self}: {_explain(error)}")) from error
        except SQLAlchemyError as error:
            raise StoreError(self._hidden(f"database {self}: {_first_line(error)}")) from error

    def _hidden(self, message: str) -> str:
        password = str(self.url.password or "")
        return message.replace(password, "***") if password else message


def parse_url(url: str) -> URL:
    """The address, checked and with its driver named.

    Raises:
        ConfigurationError: If it is no address of SQLite or PostgreSQL; the message leaves passwords out.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        shown = "" if "@" in url else f" {url!r}"
        raise ConfigurationError(f"database address{shown} cannot be read: {EXPECTED}") from None
    backend = parsed.get_backend_name() if parsed.drivername.isascii() else ""
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigurationError(f"database address of kind {parsed.drivername!r}: {EXPECTED}")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("an in-memory SQLite database cannot be shared with workers: give sqlite:///FILE")
    return parsed


def _engine(url: URL, read_only: bool) -> Engine:
    text = partial(json.dumps, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(_sqlite_url(url, read_only), json_serializer=text)
        event.listen(engine, "connect", partial(_prepare_sqlite, read_only=read_only))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if read_only:
        options = f"{url.query.get('options', '')} -c default_transaction_read_only=on"
        url = url.update_query_dict({"options": options.strip()})
    try:
        # One connection a worker: hundreds of workers share a server whose connections are few.
        engine = create_engine(url, json_serializer=text, pool_size=1, max_overflow=4)
    except ImportError as error:
        raise StoreError("PostgreSQL needs the package psycopg: pip install 'psycopg[binary]'") from error
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_try_after_a_rest, engine))
    return engine


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _try_after_a_rest(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Tries a connection that was idle for a while, and replaces it if the server is gone: a round trip otherwise lost.

    Raises:
        DisconnectionError: If it is to be replaced.
    """
    if time.monotonic() - record.info.get("used", time.monotonic()) < REST_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise DisconnectionError from error


def _sqlite_url(url: URL, read_only: bool) -> URL:
    url = url.set(query={"timeout": str(BUSY_SECONDS), **url.query})
    if not read_only:
        return url
    path = Path(str(url.database)).absolute()
    mode = {"mode": "ro", "uri": "true"}
    log = path.with_name(path.name + "-wal")
    if not os.access(path.parent, os.W_OK) and not log.exists():
        # Without a log beside it and with no right to make one, SQLite opens a WAL file only as immutable.
        mode["immutable"] = "1"
    return url.set(database=f"file:{_quoted(path)}", query={**url.query, **mode})


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _prepare_sqlite(connection: sqlite3.Connection, record: object, *, read_only: bool) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
        return
    if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
        # Kept in the file: set once on a new one, so that a file of something else is not touched.
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("autopeft_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_SQLITE_REASONS = {
    "is locked": "locked by another process for longer than the timeout: wait for it, or stop it",
    "readonly": "the file or its folder cannot be written: check the permissions",
    "is full": "the disk is full: free some space, then resume",
    "not a database": "the file is not an SQLite database: name another with --db",
    "unable to open": "cannot be opened: the folder must exist and be accessible",
    "malformed": "the file is damaged: restore it from a backup",
}


def _explain(error: DBAPIError) -> str:
    text = _first_line(error.orig or error)
    for sign, reason in _SQLITE_REASONS.items():
        if isinstance(error.orig, sqlite3.Error) and sign in text:
            return reason
    return text


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
