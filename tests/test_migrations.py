"""Which databases this version takes, where its migrations lie, and that old ones stand on their own."""

import ast
import os
import shutil
import sqlite3
import subprocess
import sys
import tomllib
import zipfile
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from autopeft.errors import NotFoundError, SchemaError
from autopeft.store import Reader, Store, current_revision, ensure_current, head_revision, migrate, upgrade

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "alembic"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'record.db'}"


def change(url, *statements):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_new_database_is_made_at_the_head(url):
    ensure_current(url, create=True)
    assert current_revision(url) == head_revision()
    ensure_current(url, create=False)


def test_upgrading_twice_changes_nothing(url):
    assert [upgrade(url), upgrade(url)] == [head_revision()] * 2


def test_a_missing_database_has_no_revision(url):
    for ask in (lambda: current_revision(url), lambda: ensure_current(url, create=False)):
        with pytest.raises(NotFoundError):
            ask()


@pytest.mark.parametrize("opener", [Store.open, Reader.open, upgrade, lambda url: ensure_current(url, create=True)])
def test_a_newer_database_is_refused(url, opener):
    upgrade(url)
    change(url, "UPDATE alembic_version SET version_num = '9999'")
    known = f"has revision 9999, this version knows up to {head_revision()}: upgrade autopeft"
    with pytest.raises(SchemaError, match=known):
        opener(url)


@pytest.mark.parametrize("opener", [Store.open, Reader.open, lambda url: ensure_current(url, create=True)])
def test_an_older_database_is_refused_with_the_command_to_run(url, opener, monkeypatch):
    here = upgrade(url)
    monkeypatch.setattr(migrate, "revisions", lambda: (here, "9998"))
    with pytest.raises(SchemaError, match=f"revision {here}, older than 9998: run 'autopeft db upgrade'"):
        opener(url)


@pytest.mark.parametrize("opener", [upgrade, current_revision, lambda url: Store.open(url, create=True)])
def test_a_database_of_something_else_is_left_alone(url, opener):
    change(url, "CREATE TABLE songs (title TEXT)")
    with pytest.raises(SchemaError, match=r"tables of something else \(songs\)"):
        opener(url)


def test_a_failing_migration_leaves_nothing_behind(url, tmp_path, monkeypatch):
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts)
    here = head_revision()
    text = (
        f'"""Fails."""\nrevision = "9998"\ndown_revision = "{here}"\n\n\ndef upgrade():\n    raise RuntimeError("no")\n'
    )
    (scripts / "versions" / "9998_fails.py").write_text(text)
    monkeypatch.setattr(migrate, "_PLACES", (scripts,))
    with pytest.raises(RuntimeError, match="no"):
        upgrade(url)
    assert current_revision(url) is None


def test_revisions_read_from_file_names_are_alembics():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migrate.configuration())
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(migrate.revisions()))
    assert scripts.get_heads() == [head_revision()]


def test_the_scripts_are_no_package():
    assert not list(SCRIPTS.rglob("__init__.py"))


def test_old_migrations_never_import_todays_code():
    ours = {"autopeft", "search_spaces", "workers", "dashboard"}
    for file in (SCRIPTS / "versions").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not ours & {name.partition(".")[0] for name in names}, file.name


def test_the_alembic_command_finds_no_drift_from_the_root(url):
    upgrade(url)
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "check"],
        cwd=ROOT,
        env={**os.environ, "AUTOPEFT_DB": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "No new upgrade operations detected" in done.stdout


def test_the_wheel_takes_the_scripts_along():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"alembic": "autopeft/_migrations"}


def test_an_unpacked_wheel_migrates_from_any_folder(tmp_path, url):
    _unpack_by_hand(tmp_path / "site")
    _make_a_database_with(tmp_path, url)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: the wheel cannot be built")
def test_the_built_wheel_migrates_from_any_folder(tmp_path, url):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    _make_a_database_with(tmp_path, url)


def _unpack_by_hand(site):
    skip = shutil.ignore_patterns("__pycache__")
    for package in ("autopeft", "search_spaces"):
        shutil.copytree(ROOT / package, site / package, ignore=skip)
    shutil.copytree(SCRIPTS, site / "autopeft" / "_migrations", ignore=skip)


def _make_a_database_with(folder, url):
    script = (
        f"import sys; sys.path.insert(0, {str(folder / 'site')!r})\n"
        f"from autopeft.store import Store, migrate\nStore.open({url!r}, create=True)\nprint(migrate.script_location())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(folder / "site" / "autopeft" / "_migrations"), done.stderr
    assert current_revision(url) == head_revision()
