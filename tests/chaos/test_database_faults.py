"""Faults of the record: 5, 6, 7, 8, 9, 10, 12, 14 and 21."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import event, select

from autopeft.errors import LeaseLostError, StoreError
from autopeft.store import Outcome, Store, upgrade
from autopeft.store.database import Database, Now
from autopeft.study import TrialState


def test_5_of_two_finishers_one_counts(record, url, measured):
    store = record(1)
    order = store.lease("w", None)
    barrier, errors = threading.Barrier(2), []

    def finish(accuracy):
        with Store.open(url) as mine:
            barrier.wait()
            try:
                mine.report(order.trial_id, order.attempt, measured(accuracy, artifact=None))
            except StoreError as error:
                errors.append(error)

    threads = [threading.Thread(target=finish, args=(accuracy,)) for accuracy in (0.25, 0.75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [one.kind for one in store.events("aspects")].count("reported") == 1


def test_6_a_reply_lost_after_commit_is_answered_by_sending_again(record, measured):
    store = record(2)
    order = store.lease("w", None)

    def lose(_connection):
        raise ConnectionResetError("the reply was lost")

    engine = store._database._engine
    event.listen(engine, "commit", lambda connection: connection.connection.commit())
    event.listen(engine, "commit", lose)
    with pytest.raises(ConnectionResetError):
        store.report(order.trial_id, order.attempt, measured(artifact=None))
    event.remove(engine, "commit", lose)
    assert store.trial("aspects", 0).state is TrialState.COMPLETE
    store.report(order.trial_id, order.attempt, measured(artifact=None))
    assert [one.kind for one in store.events("aspects")].count("reported") == 1


DRIVER = """
import json, sys
sys.path[:] = json.loads(sys.argv[4])
from autopeft.store import Store
from autopeft.study import Origin, Proposal
from search_spaces.configuration import Configuration
plans = [Configuration.from_json(one) for one in json.loads(sys.argv[3])]
with Store.open(sys.argv[1]) as store:
    epoch = store.acquire_driver("aspects", sys.argv[2], 3600)
    print("driving", flush=True)
    for plan in plans:
        store.enqueue("aspects", epoch, [Proposal(plan, Origin.MODEL)])
    print("done", flush=True)
"""


def drive(url, owner, proposals):
    plans = json.dumps([proposal.configuration.to_json() for proposal in proposals])
    command = [sys.executable, "-c", DRIVER, url, owner, plans, json.dumps(sys.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_7_a_driver_killed_between_insert_and_report_numbers_on_without_a_gap(
    record, url, make_proposals, fleet, tools, seed
):
    store, proposals = record(0), make_proposals(40)
    with drive(url, tools.driver, proposals) as first:
        assert first.stdout.readline() == "driving\n"
        time.sleep(0.01 * seed)
        first.send_signal(signal.SIGKILL)
    tools.verify_invariants(url)
    with drive(url, tools.driver, proposals) as second:
        assert second.stdout.read() == "driving\ndone\n"
    assert [trial.number for trial in store.trials("aspects")] == list(range(40))
    tools.until_final(store, fleet(steps=1, seconds=0.0), 2)
    tools.all_complete(store, 40)


def test_8_of_two_drivers_one_numbers(record, url, make_proposals, tools):
    store = record(1)
    with pytest.raises(StoreError, match=f"driven by {tools.driver}"):
        store.acquire_driver("aspects", "host:2")
    old = store.acquire_driver("aspects", tools.driver, lease_seconds=-1)
    with Store.open(url) as other:
        new = other.acquire_driver("aspects", "host:2", 3600)
        with pytest.raises(LeaseLostError):
            store.enqueue("aspects", old, make_proposals(2, start=50))
        assert other.enqueue("aspects", new, make_proposals(2, start=50)) == [1, 2]


def test_9_a_killed_postmaster_costs_no_trial(make_study, make_proposals, tools, fleet):
    pytest.importorskip("psycopg", reason="PostgreSQL: psycopg is not installed")
    with tools.own_server() as (url, kill, start), Store.open(url, create=True) as store:
        store.create_study(make_study())
        store.enqueue("aspects", store.acquire_driver("aspects", tools.driver, 3600), make_proposals(20))
        workers = fleet(on=url, steps=10, seconds=0.02, lease=5.0)
        workers.start(2)
        for _ in range(2):
            tools.wait_for(lambda: store.counts("aspects")[TrialState.COMPLETE] >= 2)
            kill()
            time.sleep(0.3)
            start()
            tools.wait_for(lambda: _answers(store), 20, "the database")
        tools.until_final(store, workers, 2)
        tools.all_complete(store, 20)
        tools.verify_invariants(url)


def _answers(store):
    try:
        return store.counts("aspects")
    except StoreError:
        return None


def test_9_connections_that_are_cut_again_and_again_cost_no_trial(record, fleet, tools, url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no connections to cut")
    import psycopg

    store, workers, due = record(20), fleet(steps=5, seconds=0.02, lease=5.0), [0.0]

    def cut():
        if time.monotonic() >= due[0]:
            due[0] = time.monotonic() + 0.5
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )

    tools.until_final(store, workers, 3, each=cut)
    tools.wait_for(lambda: _answers(store))
    tools.all_complete(store, 20)


def test_10_a_database_away_for_longer_than_the_lease_loses_the_attempt_and_not_the_trial(record, fleet, tools, url):
    if not url.startswith("sqlite"):
        pytest.skip("on PostgreSQL this is the killed postmaster")
    store, workers = record(2), fleet(steps=60, seconds=0.02, lease=0.5)
    worker = workers.start(url=f"{url}?timeout=0.05")
    tools.wait_for(lambda: store.counts("aspects")[TrialState.RUNNING])
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(2.5)
    tools.until_final(store, workers, 1)
    tools.all_complete(store, 2)
    assert tools.alive(worker)


def test_12_a_step_of_the_databases_clock_ends_leases_early_and_nothing_else(record, fleet, tools, run_sql):
    store, workers = record(6), fleet(steps=10, seconds=0.03)
    workers.start(2)
    tools.wait_for(lambda: store.counts("aspects")[TrialState.RUNNING])
    run_sql("UPDATE trial SET expires_at = expires_at - 3600 WHERE state = 'RUNNING'")
    assert store.reap() >= 1
    tools.until_final(store, workers, 2)
    tools.all_complete(store, 6)


def test_14_a_full_disk_under_the_record_is_waited_out(record, url, measured, tools):
    if not url.startswith("sqlite"):
        pytest.skip("the server's disk is the server's")
    store = record(2)
    order = store.lease("w", None)
    engine = store._database._engine

    def no_more_pages(connection):
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    event.listen(engine, "begin", no_more_pages)
    big = measured(artifact="x" * 100_000)
    with pytest.raises(StoreError, match="the disk is full"):
        store.report(order.trial_id, order.attempt, big)
    tools.verify_invariants(url)
    event.remove(engine, "begin", no_more_pages)
    engine.dispose()
    store.report(order.trial_id, order.attempt, big)


def test_21_an_upgrade_while_workers_run_is_refused_to_none_and_breaks_nothing(record, fleet, tools, url):
    store, workers = record(10), fleet(steps=5, seconds=0.02)
    workers.start(2)
    tools.wait_for(lambda: store.counts("aspects")[TrialState.COMPLETE])
    for _ in range(3):
        upgrade(url)
    tools.until_final(store, workers, 2)
    tools.all_complete(store, 10)
    assert all(store.attempts("aspects", number)[-1].outcome is Outcome.COMPLETE for number in range(10))


def test_a_lease_on_an_old_sqlite_never_lives_for_ever(record, url):
    store = record(1)
    order = store.lease("w", None, lease_seconds=0.05)
    time.sleep(0.1)
    assert store.reap() == 1
    with pytest.raises(LeaseLostError):
        store.beat(order.trial_id, order.attempt)
    with closing(Database(url, read_only=True)) as database, database.reading() as connection:
        assert connection.scalar(select(Now())) > 1.7e9
