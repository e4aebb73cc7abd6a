"""A database clock that can be set, for all processes at one record: the only clock that decides about leases."""

import time
from pathlib import Path

from autopeft.store import database


def follow(file):
    """Makes SQLite's clock in this process as many seconds wrong as ``file`` says, at any moment."""
    prepare = database._prepare_sqlite

    def prepare_with_clock(connection, record, *, read_only):
        prepare(connection, record, read_only=read_only)
        connection.create_function("julianday", 1, lambda _: _julian_day(Path(file)))

    database._prepare_sqlite = prepare_with_clock
    return prepare


def _julian_day(file):
    return (time.time() + float(file.read_text() or 0)) / 86400 + 2440587.5


def of_a_server(url):
    """The address whose sessions see the settable clock of a schema beside the record's, and the table that sets it."""
    import psycopg

    schema = url.rpartition("%3D")[2]
    clock, table = f"{schema}_clock", f"{schema}_wrong.step"  # not beside the record's tables, which are looked at
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {clock}")
        connection.execute(f"CREATE SCHEMA {schema}_wrong")
        connection.execute(f"CREATE TABLE {table} (seconds DOUBLE PRECISION)")
        connection.execute(f"INSERT INTO {table} VALUES (0)")
        connection.execute(
            f"CREATE FUNCTION {clock}.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT"
            f" pg_catalog.statement_timestamp() + (SELECT seconds FROM {table}) * interval '1 second' $$"
        )
    return f"{url}%2C{clock}%2Cpg_catalog", table
