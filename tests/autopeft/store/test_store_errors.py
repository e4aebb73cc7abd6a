"""What can be wrong with a database gives one clear line, without its password."""

import os
import subprocess
import sys

import pytest
from sqlalchemy import event

from autopeft.errors import ConfigurationError, NotFoundError, SchemaError, StoreError
from autopeft.store import Reader, Store


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("opener", [Store, Reader])
def test_a_missing_file_is_not_made(opener, sqlite_url, sqlite_file):
    with pytest.raises(NotFoundError, match="no database") as error:
        opener.open(sqlite_url)
    assert str(sqlite_file) in _one_line(error)
    assert not sqlite_file.exists()


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(StoreError, match="the folder must exist") as error:
        Store.open(f"sqlite:///{tmp_path}/none/record.db", create=True)
    _one_line(error)


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_in_its_place_is_said(sqlite_url, sqlite_file, create):
    sqlite_file.mkdir()
    with pytest.raises(ConfigurationError, match="is a folder: name a file in it") as error:
        Store.open(sqlite_url, create=create)
    _one_line(error)
    with pytest.raises(ConfigurationError, match="is a folder: name a file in it"):
        Reader.open(sqlite_url)


@pytest.mark.parametrize("create", [True, False])
def test_a_file_of_another_kind_is_not_touched(sqlite_url, sqlite_file, create):
    content = b"accuracy,parameters\n" * 500
    sqlite_file.write_bytes(content)
    with pytest.raises(StoreError, match="not an SQLite database") as error:
        Store.open(sqlite_url, create=create)
    _one_line(error)
    assert sqlite_file.read_bytes() == content


def test_a_locked_database_is_said_after_the_timeout(sqlite_url, make_study, write_lock):
    Store.open(sqlite_url, create=True).close()
    other = write_lock()
    with Store.open(f"{sqlite_url}?timeout=0.1") as store:
        with pytest.raises(StoreError, match="locked by another process") as error:
            store.create_study(make_study())
        assert store.study_names() == []
    other.close()
    _one_line(error)


def test_a_full_disk_is_said_and_nothing_is_half_written(sqlite_url, make_study, make_proposals):
    with Store.open(sqlite_url, create=True) as store:
        store.create_study(make_study())
        epoch = store.acquire_driver("aspects", "driver")
        event.listen(store._database._engine, "begin", _no_more_pages)
        with pytest.raises(StoreError, match="the disk is full") as error:
            store.enqueue("aspects", epoch, make_proposals(500))
        assert store.trials("aspects") == []
    _one_line(error)


def _no_more_pages(connection):
    connection.exec_driver_sql("PRAGMA max_page_count = 1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_is_said(sqlite_url, sqlite_file, make_study):
    Store.open(sqlite_url, create=True).close()
    sqlite_file.chmod(0o444)
    with Store.open(sqlite_url) as store, pytest.raises(StoreError, match="cannot be written"):
        store.create_study(make_study())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("record.db", "cannot be read: expected sqlite:///FILE or postgresql"),
        ("mysql://user:secret@host/db", "of kind 'mysql': expected sqlite:///FILE"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("postgresql://user:secret@host:port/db", "cannot be read"),
    ],
)
def test_an_address_of_no_use_is_refused_without_its_password(url, reason):
    with pytest.raises(ConfigurationError, match=reason) as error:
        Store.open(url, create=True)
    assert "secret" not in _one_line(error)


def test_a_server_that_is_away_is_said_without_the_password():
    pytest.importorskip("psycopg", reason="PostgreSQL: the driver psycopg is not installed")
    with pytest.raises(StoreError, match="connection") as error:
        Store.open("postgresql://user:secret@127.0.0.1:9/db", create=True)
    assert "secret" not in _one_line(error)


@pytest.mark.parametrize("opener", [Store, Reader])
def test_an_empty_database_is_not_filled_by_looking(opener, sqlite_url, sqlite_file):
    sqlite_file.touch()
    with pytest.raises(SchemaError, match="is empty: run 'autopeft db upgrade'"):
        opener.open(sqlite_url)


def test_a_path_with_odd_characters_is_a_path(tmp_path, make_study):
    url = f"sqlite:///{tmp_path}/50% #1 ä.db"
    path = tmp_path / "50% #1 ä.db"
    with Store.open(url, create=True) as store:
        store.create_study(make_study())
    assert path.exists()
    with Reader.open(url) as reader:
        assert reader.study_names() == ["aspects"]


def test_importing_the_store_loads_neither_torch_nor_alembic():
    heavy = {"torch", "transformers", "botorch", "gpytorch", "alembic", "streamlit", "peft"}
    script = f"import sys, autopeft.store; print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_record_in_a_folder_that_cannot_be_written_is_read(sqlite_url, sqlite_file, make_study, monkeypatch):
    with Store.open(sqlite_url, create=True) as store:
        store.create_study(make_study())
    assert {path.name for path in sqlite_file.parent.iterdir()} == {sqlite_file.name}
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Reader.open(sqlite_url) as reader:
        assert reader.study() == make_study()
        assert {path.name for path in sqlite_file.parent.iterdir()} == {sqlite_file.name}
