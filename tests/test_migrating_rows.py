"""Migrations with rows in every table, on both databases; drift to the last constraint; backups."""

import os
import re
import sqlite3
from contextlib import closing, suppress
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, func, insert, inspect, select, text, update

from autopeft.errors import ConfigurationError, NotFoundError, SchemaError, StoreError
from autopeft.store import (
    Failure,
    Reader,
    Store,
    backup,
    current_revision,
    disks,
    drift,
    head_revision,
    migrate,
    problems,
    upgrade,
)
from autopeft.store import database as databases
from autopeft.store.database import Database
from autopeft.store.tables import metadata
from autopeft.study import TrialState

OLD = Path(__file__).parent / "databases"
KEPT = sorted(file.stem.removeprefix("revision_") for file in OLD.glob("revision_*.sql"))
"""Revisions whose database is kept as it was. ``WRITE_DATABASES=1 pytest tests/test_migrating_rows.py -k kept`` keeps
those that are not yet: before a release. Any other is made from the last one kept, by the scripts alone."""


def _store_fixtures():
    spec = spec_from_file_location("store_fixtures", Path(__file__).parent / "autopeft" / "store" / "conftest.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fixtures = _store_fixtures()
postgresql_server = _fixtures.postgresql_server
postgresql_url = _fixtures.postgresql_url
sqlite_url = _fixtures.sqlite_url
url = _fixtures.url


def sqlite_of(revision, path):
    """The database of that revision: as it was kept, or the last kept before it, brought there by its scripts."""
    kept = max(one for one in KEPT if one <= revision)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD / f"revision_{kept}.sql").read_text())
    made = f"sqlite:///{path}"
    if kept != revision:
        migrate_to(made, revision)
        fill(made)
    return made


SAMPLES = {int: 1, float: 1.0, str: "kept", bool: True, dict: {"kept": 1}, object: {"kept": 1}}


def fill(url):
    """A row in every table that has none, a value in every column that holds none, as far as constraints let."""
    with closing(Database(url)) as database:
        with database.reading() as connection:
            tables = reflected(connection)
        for table in tables:
            with database.writing() as connection:
                if connection.execute(select(table)).first() is None:
                    connection.execute(insert(table).values({c.name: _sample(connection, c) for c in table.c}))
            for column in table.c:
                with suppress(StoreError), database.writing() as connection:
                    if connection.execute(select(table).where(column.is_not(None))).first() is None:
                        connection.execute(update(table).values({column.name: _sample(connection, column)}))


def _sample(connection, column):
    for key in column.foreign_keys:
        return connection.scalar(select(func.min(key.column)))
    for check in inspect(connection).get_check_constraints(column.table.name):
        if one := re.match(rf"(.* OR )?{column.name} IN \('([^']+)'", check["sqltext"]):
            return one[2]
    return SAMPLES[column.type.python_type]


@pytest.fixture(params=migrate.revisions()[:-1])
def old(request, url, tmp_path):
    """An old database with its rows, once for each dialect and revision."""
    kept = sqlite_of(request.param, tmp_path / "kept.db")
    if url.startswith("sqlite"):
        return kept
    migrate_to(url, request.param)
    rows = rows_of(kept)
    with closing(Database(url)) as database, database.writing() as connection:
        for table in (table for table in reflected(connection) if table.name in rows):
            connection.execute(insert(table), rows[table.name])
            if "id" in table.c:
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}")
                )
    return url


def migrate_to(url, revision):
    from alembic import command

    with closing(Database(url)) as database, database.writing() as connection:
        here = current_of(connection)
        go = command.upgrade if here is None or (revision != "base" and here < revision) else command.downgrade
        go(migrate.configuration(connection), revision)


def current_of(connection):
    return migrate._revision(connection, "")


def reflected(connection):
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def rows_of(url):
    with closing(Database(url)) as database, database.reading() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(_in_order(table)).mappings()]
            for table in reflected(connection)
        }


def _in_order(table):
    return select(table).order_by(*table.primary_key.columns)


@pytest.mark.skipif(not os.environ.get("WRITE_DATABASES"), reason="WRITE_DATABASES is not set: writes what is not kept")
def test_every_revision_is_kept(tmp_path):
    for revision in (one for one in migrate.revisions() if one not in KEPT):
        made = tmp_path / f"{revision}.db"
        sqlite_of(revision, made)
        said = f"-- A record of revision {revision} with rows in every table, as sqlite3's iterdump wrote it.\n"
        with closing(sqlite3.connect(made)) as connection:
            (OLD / f"revision_{revision}.sql").write_text(said + "\n".join(connection.iterdump()) + "\n")


@pytest.mark.parametrize("revision", KEPT)
def test_the_scripts_still_make_what_was_kept(tmp_path, revision):
    kept, made = sqlite_of(revision, tmp_path / "kept.db"), f"sqlite:///{tmp_path / 'made.db'}"
    migrate_to(made, revision)
    assert description_of(kept) == description_of(made)


def description_of(url):
    with closing(Database(url)) as database, database.reading() as connection:
        return drift.description(connection)


def test_an_old_database_has_rows_in_every_table(old):
    assert all(rows_of(old).values())


def test_an_old_database_is_upgraded_and_read(old):
    assert upgrade(old) == current_revision(old) == head_revision()
    with Reader.open(old) as reader:
        states = [trial.state for trial in reader.trials("aspects")]
        assert states[:3] == [TrialState.COMPLETE, TrialState.DIVERGED, TrialState.QUEUED]
        assert reader.measurement("aspects", 0).values["accuracy"] == 0.75
        assert reader.fronts("aspects")[0].trials == (0,)
        kinds = [[one.failure for one in reader.attempts("aspects", number)] for number in range(4)]
        assert kinds == [[None], [Failure.DIVERGED], [Failure.EXCEPTION], [Failure.LOST, Failure.PREEMPTED, None]]
    assert problems(old) == []
    with Store.open(old) as store:
        assert store.lease("w", "aspects").number == 2


def test_down_and_up_again_keeps_every_row(old):
    before, revision = rows_of(old), current_revision(old)
    upgrade(old)
    migrate_to(old, revision)
    assert rows_of(old) == before
    migrate_to(old, migrate.revisions()[0])
    assert all(rows_of(old).values())
    migrate_to(old, "head")
    assert problems(old) == []


def test_down_to_nothing_leaves_nothing(url):
    upgrade(url)
    migrate_to(url, "base")
    with closing(Database(url)) as database, database.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}


def test_the_migrations_and_todays_tables_agree_to_the_last_constraint(url, tmp_path, request):
    upgrade(url)
    if url.startswith("sqlite"):
        other = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    else:
        fresh = re.sub(r"record_\w+", "fresh", url).replace("postgresql://", "postgresql+psycopg://")
        other = create_engine(fresh)
        with other.begin() as connection:
            connection.execute(text("DROP SCHEMA IF EXISTS fresh CASCADE"))
            connection.execute(text("CREATE SCHEMA fresh"))
    with other.begin() as connection:
        metadata.create_all(connection)
        expected = drift.description(connection)
    other.dispose()
    with closing(Database(url)) as database, database.reading() as connection:
        assert drift.description(connection) == expected


DRIFTS = {
    "index": ("DROP INDEX ix_trial_claim", "index ix_trial_claim"),
    "condition": (
        "DROP INDEX ix_trial_expiry; CREATE INDEX ix_trial_expiry ON trial (expires_at)",
        "where state='RUNNING'",
    ),
    "column": ("ALTER TABLE worker ADD COLUMN mood TEXT", "column mood TEXT should not be there"),
    "trigger": ("DROP TRIGGER event_is_append_only_update", "trigger event_is_append_only_update is missing"),
    "check": (
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '''CANCELLED''', '''LOST''')"
        " WHERE name = 'trial'",
        "check ck_trial_state",
    ),
}
ON_A_SERVER = {
    "trigger": ("DROP TRIGGER event_is_append_only ON event", "trigger event_is_append_only is missing"),
    "check": (
        "ALTER TABLE trial DROP CONSTRAINT ck_trial_state,"
        " ADD CONSTRAINT ck_trial_state CHECK (state IN ('QUEUED', 'RUNNING'))",
        "check ck_trial_state",
    ),
    "foreign key": ("ALTER TABLE event DROP CONSTRAINT fk_event_trial_id", "foreign key fk_event_trial_id"),
}


@pytest.mark.parametrize("drifted", sorted({**DRIFTS, **ON_A_SERVER}))
def test_drift_that_alembic_does_not_see_is_found(url, drifted):
    on_sqlite = url.startswith("sqlite")
    if (change := (DRIFTS if on_sqlite else DRIFTS | ON_A_SERVER).get(drifted)) is None:
        pytest.skip("SQLite drops no constraint of a table")
    statements, said = change
    upgrade(url)
    assert problems(url) == []
    if on_sqlite:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.executescript(statements)
    else:
        with closing(Database(url)) as database, database.writing() as connection:
            connection.exec_driver_sql(statements)
    assert any(said in problem for problem in problems(url))
    assert rows_of(url)["event"] == []  # looking leaves nothing behind


def test_an_old_sqlite_database_is_copied_before_it_is_upgraded(tmp_path):
    record = sqlite_of("0001", tmp_path / "record.db")
    before = rows_of(record)
    upgrade(record)
    [copy] = tmp_path.glob("record.db.revision-0001-*")
    assert current_revision(f"sqlite:///{copy}") == "0001"
    assert rows_of(f"sqlite:///{copy}") == before
    upgrade(record)
    assert len(list(tmp_path.glob("record.db.revision-*"))) == 1


def test_a_backup_is_made_while_the_record_is_in_use(tmp_path):
    record = sqlite_of("0001", tmp_path / "record.db")
    upgrade(record)
    with Store.open(record) as store:
        store.cancel("aspects", 5)
        copy = backup(record, tmp_path / "copy.db")
    with Reader.open(f"sqlite:///{copy}") as reader:
        assert len(reader.trials("aspects")) == 7
    with pytest.raises(StoreError, match="exists already"):
        backup(record, copy)
    with pytest.raises(NotFoundError):
        backup(f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(find_spec("psycopg") is None, reason="psycopg is not installed")
def test_a_server_is_backed_up_with_its_own_tool():
    with pytest.raises(StoreError, match="pg_dump"):
        backup("postgresql://user:secret@nowhere.invalid/db")


def test_files_that_are_gone_are_found(tmp_path):
    record = sqlite_of("0001", tmp_path / "record.db")
    with pytest.raises(SchemaError):
        problems(record)
    upgrade(record)
    [missing] = problems(record, tmp_path)
    assert missing == f"checkpoint aspects/trial-0/attempt-1 is not in {tmp_path}"
    (tmp_path / "aspects" / "trial-0" / "attempt-1").mkdir(parents=True)
    assert problems(record, tmp_path) == []


class TestNetworkFileSystems:
    @pytest.fixture
    def mounted(self, tmp_path, monkeypatch):
        def mount(kind, point):
            table = tmp_path / "mounts"
            table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {point} {kind} rw 0 0\n")
            monkeypatch.setattr(disks, "MOUNTS", table)

        return mount

    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre"])
    def test_sqlite_is_refused_there_and_a_server_named(self, mounted, tmp_path, kind):
        mounted(kind, tmp_path)
        with pytest.raises(ConfigurationError, match=rf"network file system \({kind}\).*--db postgresql://"):
            Store.open(f"sqlite:///{tmp_path}/record.db", create=True)

    def test_sqlite_beside_one_is_fine(self, mounted, tmp_path):
        mounted("nfs4", f"{tmp_path}/shared")
        databases.Database(f"sqlite:///{tmp_path}/record.db").close()
        databases.Database(f"sqlite:///{tmp_path}/shared2/record.db").close()

    def test_where_it_cannot_be_told_nothing_is_refused(self, monkeypatch, tmp_path):
        monkeypatch.setattr(disks, "MOUNTS", tmp_path / "none")
        assert disks.file_system(tmp_path) is None


class TestHosts:
    def test_a_worker_of_another_host_is_refused_on_sqlite_and_welcome_on_a_server(self, url, make_study):
        with Store.open(url, create=True) as store:
            store.create_study(make_study())
            store.register_worker("w1", "one", "cpu", 1, {})
            store.register_worker("w2", "one", "cpu", 2, {})
            if url.startswith("sqlite"):
                with pytest.raises(
                    ConfigurationError, match=r"in use on host one, and this is two: .*--db postgresql://"
                ):
                    store.register_worker("w3", "two", "cpu", 3, {})
            else:
                store.register_worker("w3", "two", "cpu", 3, {})

    def test_so_is_one_that_is_not_where_the_driver_is(self, sqlite_url, make_study):
        with Store.open(sqlite_url, create=True) as store:
            store.create_study(make_study())
            store.acquire_driver("tiny-1", "one:77")
            with pytest.raises(ConfigurationError, match="in use on host one"):
                store.register_worker("w", "two", "cpu", 3, {})
