"""A record to test on, once for each database, and the invariants that must hold after every test."""

import shutil
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import select, text

from autopeft.store import Store, tables
from autopeft.store.database import Database
from autopeft.store.invariants import violations
from autopeft.study import PARAMETERS, Measurement, Origin, Proposal, Study
from search_spaces.backbone import Backbone
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

DIALECTS = ["sqlite", *(["postgresql"] if find_spec("psycopg") and find_spec("pgserver") else [])]
"""PostgreSQL only where it can be reached, so that one skip says so and not each test (``test_postgresql.py``)."""


@pytest.fixture
def make_study(make_study: Callable[..., Study]) -> Callable[..., Study]:
    """As everywhere, with a name of its own."""
    return lambda name="aspects", **fields: make_study(name=name, **fields)


@pytest.fixture
def make_proposals(tiny_backbone: Backbone) -> Callable[..., list[Proposal]]:
    def make(count: int, start: int = 0, **changes: object) -> list[Proposal]:
        rates = [round(1e-3 + 1e-6 * index, 6) for index in range(start, start + count)]
        plans = [uniform(tiny_backbone, ("query",), Lora(1, 2.0), rate) for rate in rates]
        return [Proposal(plan, **{"origin": Origin.MODEL, **changes}) for plan in plans]

    return make


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    def make(accuracy: float = 0.5, rung: int = 0, artifact: str | None = "aspects/trial-0/attempt-1") -> Measurement:
        values = {"accuracy": accuracy, "loss": 1.25, PARAMETERS: 32, "train_seconds": 1.5, "evaluate_seconds": 0.5}
        sha256 = "a" * 64 if artifact else None
        details = {"importance": [0.5, -0.25]}
        return Measurement(rung, values, ((1, 2.5), (10, 1.25)), (1, 0, 1), artifact, sha256, details)

    return make


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Address of a PostgreSQL of our own, or a skip with its reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pgserver", reason="PostgreSQL: pgserver is not installed")
        folder = tempfile.mkdtemp(prefix="autopeft-pg-")
        try:
            server = pgserver.get_server(folder)
        except Exception as error:
            pytest.skip(f"PostgreSQL cannot start here: {error}")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'record.db'}"


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """Address of a new, empty schema (a database each would take half a second)."""
    import psycopg

    name = f"record_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgresql_server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty record; the invariants are checked when the test is done with it."""
    with Store.open(url, create=True) as opened:
        yield opened
    verify_invariants(url)


@pytest.fixture
def filled(store: Store, make_study: Callable[..., Study], make_proposals: Callable[..., list[Proposal]]) -> Store:
    """A record with the study ``aspects`` and three queued trials."""
    store.create_study(make_study())
    store.enqueue("aspects", store.acquire_driver("aspects", "driver"), make_proposals(3))
    return store


@pytest.fixture
def run_sql(url: str) -> Callable[..., None]:
    def run(statement: str, **values: object) -> None:
        with closing(Database(url)) as database, database.writing() as connection:
            connection.execute(text(statement), values)

    return run


@pytest.fixture
def wait_no_longer(run_sql: Callable[..., None]) -> Callable[[], None]:
    """Makes every queued trial due, whatever its back-off."""
    return lambda: run_sql("UPDATE trial SET not_before = 0")


def verify_invariants(url: str) -> None:
    """No row lost; running ⇔ leased; attempts contiguous; at most one complete; each finished rung once."""
    with closing(Database(url, read_only=True)) as database, database.reading() as connection:
        assert violations(connection) == []
        for study in connection.execute(select(tables.study)).all():
            trials = connection.execute(select(tables.trial).where(tables.trial.c.study_id == study.id)).all()
            assert sorted(trial.number for trial in trials) == list(range(study.next_number))
            for trial in trials:
                attempts = connection.execute(
                    select(tables.attempt)
                    .where(tables.attempt.c.trial_id == trial.id)
                    .order_by(tables.attempt.c.number)
                ).all()
                outcomes = [attempt.outcome for attempt in attempts]
                assert [attempt.number for attempt in attempts] == list(range(1, trial.attempt + 1))
                assert (trial.state == "RUNNING") == (trial.owner is not None) == (trial.expires_at is not None)
                assert outcomes.count(None) == (1 if trial.state == "RUNNING" else 0)
                assert outcomes.count("COMPLETE") == (1 if trial.state == "COMPLETE" else 0)
                rungs = connection.scalars(
                    select(tables.measurement.c.rung).where(tables.measurement.c.trial_id == trial.id)
                ).all()
                assert sorted(rungs) == list(range(trial.rung - len(rungs), trial.rung))
                assert (trial.state in ("COMPLETE", "PAUSED")) <= (trial.rung > 0)


@pytest.fixture
def sqlite_file(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def write_lock(sqlite_file: Path) -> Callable[[], sqlite3.Connection]:
    """Takes SQLite's write lock and keeps it until the returned connection is closed."""

    def take() -> sqlite3.Connection:
        connection = sqlite3.connect(sqlite_file, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    return take
