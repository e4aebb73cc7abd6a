"""The migrations make today's tables, and take them away with rows in them, on both databases."""

from contextlib import closing

import pytest
from sqlalchemy import event, func, inspect, select

from autopeft.probe import Probe, ProbeKind
from autopeft.store import Store, migrate, tables
from autopeft.store.database import Database
from autopeft.study import FrontRecord

PROBE = Probe(
    "p", ProbeKind.SELECTION, "tiny", "a" * 64, "rooms", "b" * 64, {}, {}, 0, 1, "c" * 64, {"query": [0.5]}, {}
)


@pytest.fixture
def database(url):
    with closing(Database(url)) as opened:
        yield opened


def alembic(database, verb, *arguments):
    from alembic import command

    with database.writing() as connection:
        getattr(command, verb)(migrate.configuration(connection), *arguments)


def describe(database):
    """Columns, keys, constraints and indexes of every table, in words that can be compared."""
    with database.reading() as connection:
        seen = inspect(connection)
        names = sorted(set(seen.get_table_names()) - {"alembic_version"})
        return {
            name: {
                "columns": [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in seen.get_columns(name)],
                "key": seen.get_pk_constraint(name),
                "foreign": sorted(map(str, seen.get_foreign_keys(name))),
                "unique": sorted(map(str, seen.get_unique_constraints(name))),
                "checks": sorted(map(str, seen.get_check_constraints(name))),
                "indexes": sorted(str(index | {"dialect_options": _where(index)}) for index in seen.get_indexes(name)),
            }
            for name in names
        }


def _where(index):
    options = index.get("dialect_options", {})
    return sorted(f"{key}={value}" for key, value in options.items() if key.endswith("where"))


@pytest.fixture
def full(url, make_study, make_proposals, measured):
    """A record with a row in every table."""
    with Store.open(url, create=True) as store:
        store.create_study(make_study())
        store.enqueue("aspects", store.acquire_driver("aspects", "driver"), make_proposals(3))
        store.register_worker("w", "host", "cpu", 1, {"torch": "2"})
        order = store.lease("w", None)
        store.report(order.trial_id, order.attempt, measured())
        store.lease("w", None)
        store.record_front("aspects", FrontRecord((0,), 0.5, 1, 2.0))
        store.record_probe(PROBE)


def test_a_full_record_goes_down_and_up_again(full, database):
    with database.reading() as connection:
        counts = {
            name: connection.scalar(select(func.count()).select_from(t)) for name, t in tables.metadata.tables.items()
        }
    assert all(counts.values()), counts
    before = describe(database)
    alembic(database, "downgrade", "base")
    assert describe(database) == {}
    alembic(database, "upgrade", "head")
    assert describe(database) == before


def test_alembic_finds_no_drift(full, database):
    alembic(database, "check")


def test_constraints_and_partial_indexes_are_those_of_todays_tables(full, database):
    migrated = describe(database)
    alembic(database, "downgrade", "base")
    with database.writing() as connection:
        tables.metadata.create_all(connection)
    assert describe(database) == migrated
    assert "QUEUED" in str(migrated["trial"]["indexes"])
    assert "running_is_leased" in str(migrated["trial"]["checks"])


def test_the_claim_and_the_expiry_use_their_indexes(sqlite_url, make_study):
    with Store.open(sqlite_url, create=True) as store:
        store.create_study(make_study())
        sent = []
        event.listen(store._database._engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2:4]))
        store.lease("w", None)
        store.lease("w", "aspects")
        store.reap()
        with store._database.reading() as reading:
            claims = [pair for pair in sent if pair[0].startswith("UPDATE trial")]
            [expiry] = [pair for pair in sent if "expires_at <=" in pair[0]]
            plans = [
                str(reading.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all())
                for statement, parameters in (*claims, expiry)
            ]
    assert ["ix_trial_claim" in plan for plan in plans] == [True, True, False]
    assert "TEMP B-TREE" not in plans[1]
    assert "ix_trial_expiry" in plans[2]
