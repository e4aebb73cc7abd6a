"""Migrations with rows in every table, on both databases; drift to the last constraint; backups."""

import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, insert, inspect, select, text

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
RELEASED = sorted(file.stem.removeprefix("revision_") for file in OLD.glob("revision_*.sql"))


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
    """The database of that revision, as it was kept."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD / f"revision_{revision}.sql").read_text())
    return f"sqlite:///{path}"


@pytest.fixture(params=RELEASED)
def old(request, url, tmp_path):
    """An old database with its rows, once for each dialect and released revision."""
    kept = sqlite_of(request.param, tmp_path / "kept.db")
    if url.startswith("sqlite"):
        return sqlite_of(request.param, tmp_path / "record.db")
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


def test_every_revision_but_the_newest_is_kept_as_a_database():
    assert list(migrate.revisions()[:-1]) == RELEASED


def test_a_kept_database_has_rows_in_every_table(old):
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
    before = rows_of(old)
    upgrade(old)
    migrate_to(old, migrate.revisions()[0])
    assert rows_of(old) == before
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


DRIFTS = [
    ("DROP INDEX ix_trial_claim", "index ix_trial_claim"),
    ("DROP INDEX ix_trial_expiry; CREATE INDEX ix_trial_expiry ON trial (expires_at)", "where state='RUNNING'"),
    ("DROP TRIGGER event_is_append_only_update", "trigger event_is_append_only_update is missing"),
    ("ALTER TABLE worker ADD COLUMN mood TEXT", "column mood TEXT should not be there"),
    (
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '''CANCELLED''', '''LOST''')"
        " WHERE name = 'trial'",
        "check ck_trial_state",
    ),
]


@pytest.mark.parametrize(("statements", "said"), DRIFTS)
def test_drift_that_alembic_does_not_see_is_found(sqlite_url, statements, said):
    upgrade(sqlite_url)
    assert problems(sqlite_url) == []
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.executescript(statements)
    assert any(said in problem for problem in problems(sqlite_url))


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
