"""Fault 12: the database's clock is set forward by an hour, and back behind where it was, while workers run."""

import time
from contextlib import closing

import pytest
from sqlalchemy import select

from autopeft.store import Store
from autopeft.store import database as databases
from autopeft.store.database import Database, Now
from autopeft.study import TrialState


@pytest.fixture
def clock(url, tools, tmp_path, monkeypatch):
    """An address with a clock that can be set, what workers need to see it, and what sets it."""
    if not url.startswith("sqlite"):
        import psycopg

        address, table = tools.of_a_server(url)

        def set_server(seconds):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"UPDATE {table} SET seconds = %s", [seconds])

        return address, None, set_server
    file = tmp_path / "clock"
    file.write_text("0")
    monkeypatch.setattr(databases, "_prepare_sqlite", databases._prepare_sqlite)
    tools.follow(file)

    def set_file(seconds):
        part = tmp_path / "clock.part"
        part.write_text(str(seconds))
        part.replace(file)

    return url, str(file), set_file


def now(url):
    with closing(Database(url)) as database, database.reading() as connection:
        return connection.scalar(select(Now()))


def test_12_a_step_of_the_databases_clock_ends_leases_early_and_nothing_else(
    clock, fleet, gate, tools, make_study, make_proposals
):
    url, file, set_clock = clock
    with Store.open(url, create=True) as store:
        store.create_study(make_study())
        store.enqueue("aspects", store.acquire_driver("aspects", tools.driver, 36_000), make_proposals(12))
        # the clock alone ends so long a lease, and none is renewed before that is seen
        more = {"lease": 60.0, "database_clock": file, "faults": {"0": gate.fault}}
        workers = fleet(on=url, steps=10, seconds=0.05, **more)
        workers.start(2)
        tools.wait_for(gate.reached)
        before = now(url)
        set_clock(3600)
        assert 3590 < now(url) - before < 3700
        tools.wait_for(lambda: tools.lost(store), what="a lease that ends early")
        gate.open()
        tools.wait_for(lambda: store.counts("aspects")[TrialState.COMPLETE] >= 4)
        set_clock(-3600)
        tools.until_final(store, workers, 2)
        tools.all_complete(store, 12)
        tools.verify_invariants(url)
        assert now(url) < time.time() - 3500
