"""Whether a database's schema is the one that this version expects, to the last constraint.

``alembic check`` sees columns and plain indexes, and misses a changed CHECK, a partial index's condition and a trigger.
Here a schema is described whole, as the database itself tells it, and compared with one made from today's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine.reflection import Inspector

from autopeft.store.tables import metadata

TRIGGERS = {
    "sqlite": {"event_is_append_only_update", "event_is_append_only_delete"},
    "postgresql": {"event_is_append_only"},
}


def description(connection: Connection, schema: str | None = None) -> set[str]:
    """Every table, column, constraint and index of a schema, one line each; of the current one, if none is named."""
    inspector = inspect(connection)
    names = inspector.get_table_names(schema) if schema is None else inspector.get_temp_table_names()
    tables = sorted(set(names) - {"alembic_version"})
    return {f"{table}: {line}" for table in tables for line in _lines(inspector, table, schema)}


def _lines(inspector: Inspector, table: str, schema: str | None) -> Iterator[str]:
    for column in inspector.get_columns(table, schema):
        yield f"column {column['name']} {column['type']}{'' if column['nullable'] else ' NOT NULL'}"
    key: Any = inspector.get_pk_constraint(table, schema)
    yield f"primary key {key['name']} ({', '.join(key['constrained_columns'])})"
    for unique in inspector.get_unique_constraints(table, schema):
        yield f"unique {unique['name']} ({', '.join(unique['column_names'])})"
    for foreign in inspector.get_foreign_keys(table, schema):
        target = f"{foreign['referred_table']} ({', '.join(foreign['referred_columns'])})"
        yield f"foreign key {foreign['name']} ({', '.join(foreign['constrained_columns'])}) to {target}"
    for check in inspector.get_check_constraints(table, schema):
        yield f"check {check['name']} {_plain(check['sqltext'])}"
    for index in inspector.get_indexes(table, schema):
        if not index.get("duplicates_constraint"):
            yield f"index {index['name']} {_columns(index)}{_condition(index)}"


def _columns(index: Any) -> str:
    names = index.get("expressions") or index["column_names"]
    orders = index.get("column_sorting", {})
    return ", ".join(f"{name} {' '.join(orders.get(name, ()))}".strip() for name in names)


def _condition(index: Any) -> str:
    options = index.get("dialect_options", {})
    where = options.get("sqlite_where", options.get("postgresql_where"))
    return "" if where is None else f" where {_plain(str(where))}"


def _plain(condition: str) -> str:
    """A condition without what databases add to it: parentheses, casts, quotes, spaces."""
    return re.sub(r"::[a-z ]+(\[\])?|[()\"\s]", "", condition)


def differences(connection: Connection) -> list[str]:
    """What the database has that it should not have, and what it lacks.

    On a server the expected tables are made as temporary ones, on a connection beside this one, and rolled back.
    """
    has, triggers = description(connection), _triggers(connection)
    should = _expected() if connection.dialect.name == "sqlite" else _expected_on_server(connection)
    found = [f"schema: {line} is missing" for line in sorted(should - has)]
    found += [f"schema: {line} should not be there" for line in sorted(has - should)]
    missing = TRIGGERS[connection.dialect.name] - triggers
    return found + [f"schema: trigger {name} is missing" for name in sorted(missing)]


def _expected() -> set[str]:
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            return description(connection)
    finally:
        engine.dispose()


def _expected_on_server(connection: Connection) -> set[str]:
    with connection.engine.connect() as other:
        other.exec_driver_sql("SET TRANSACTION READ WRITE")
        other.exec_driver_sql("SET LOCAL search_path TO pg_temp")
        metadata.create_all(other, checkfirst=False)
        schema = other.scalar(text("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()"))
        return description(other, schema)


def _triggers(connection: Connection) -> set[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = to_regclass('event')"
    return set(connection.scalars(text(query)))


def damage(connection: Connection) -> list[str]:
    """What SQLite finds wrong with its own file."""
    if connection.dialect.name != "sqlite":
        return []
    pages = [line for line in connection.scalars(text("PRAGMA integrity_check(10)")) if line != "ok"]
    rows = [
        f"{row[0]} row {row[1]} refers to no {row[2]}" for row in connection.execute(text("PRAGMA foreign_key_check"))
    ]
    return [f"file: {line}" for line in pages + rows]
