"""Faults of the record: 5, 6, 7, 8, 9 and 10."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, select

from autopeft.errors import LeaseLostError, StoreError
from autopeft.store import Store
from autopeft.store.database import Database, Now
from autopeft.study import TrialState

FINISHER = """
import importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[2])
from autopeft.errors import LeaseLostError
from autopeft.store import Store
from autopeft.study import Measurement
spec = importlib.util.spec_from_file_location("mutants", sys.argv[3])
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)
mutants.apply()
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    for line in sys.stdin:
        trial_id, attempt, accuracy = json.loads(line)
        try:
            store.report(trial_id, attempt, Measurement(0, {"accuracy": accuracy}))
            print("counted", flush=True)
        except LeaseLostError:
            print("refused", flush=True)
"""


@pytest.fixture
def finishers(url, record):
    """Two processes that report what they are told to, and the record."""
    store = record(8)
    mutants = str(Path(__file__).with_name("mutants.py"))
    command, pipe = [sys.executable, "-c", FINISHER, url, json.dumps(sys.path), mutants], subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    assert [one.stdout.readline() for one in started] == ["ready\n"] * 2
    yield store, started
    for one in started:
        one.communicate()


def tell(finisher, order, accuracy):
    finisher.stdin.write(json.dumps([order.trial_id, order.attempt, accuracy]) + "\n")
    finisher.stdin.flush()


def test_5_of_two_finishers_the_one_that_holds_the_trial_counts(finishers, wait_no_longer):
    store, (zombies, heirs) = finishers
    for number in range(8):
        lost = store.lease("zombie", "aspects", lease_seconds=-1)
        store.reap()
        wait_no_longer()
        order = store.lease("heir", "aspects", lease_seconds=60)
        assert (lost.number, order.number, order.attempt) == (number, number, 2)
        first, second = ((zombies, lost), (heirs, order))[:: 1 if number % 2 else -1]
        tell(*first, 0.9 if first[0] is heirs else 0.1)
        tell(*second, 0.9 if second[0] is heirs else 0.1)
        assert (zombies.stdout.readline(), heirs.stdout.readline()) == ("refused\n", "counted\n")
    assert [trial.values for trial in store.trials("aspects")] == [{"accuracy": 0.9}] * 8


def test_5_what_is_reported_twice_by_its_attempt_counts_once(finishers):
    store, (one, other) = finishers
    order = store.lease("w", "aspects")
    tell(one, order, 0.25)
    tell(other, order, 0.75)
    assert (one.stdout.readline(), other.stdout.readline()) == ("counted\n", "counted\n")
    assert store.trial("aspects", 0).values["accuracy"] in (0.25, 0.75)
    assert [seen.kind for seen in store.events("aspects")].count("reported") == 1


@pytest.mark.parametrize("verb", ["report", "report_and_lease"])
def test_6_a_reply_lost_after_commit_is_answered_by_sending_again(record, url, measured, verb):
    store = record(2)
    order = store.lease("w", None)
    told = (order.trial_id, order.attempt, measured(artifact=None), *((None, "w", None) if "lease" in verb else ()))
    engine = store._database._engine

    def commit(connection):
        connection.connection.commit()
        raise ConnectionResetError("the reply was lost")

    def answer(_connection, _cursor, statement, *_):
        if "INSERT INTO measurement" in statement:  # one statement, and with its answer it is committed
            raise ConnectionResetError("the reply was lost")

    fault = ("commit", commit) if url.startswith("sqlite") else ("after_cursor_execute", answer)
    event.listen(engine, *fault)
    with pytest.raises(ConnectionResetError):
        getattr(store, verb)(*told)
    event.remove(engine, *fault)
    assert store.trial("aspects", 0).state is TrialState.COMPLETE
    following = getattr(store, verb)(*told)
    assert (following is None) == (verb == "report")
    assert store.counts("aspects")[TrialState.RUNNING] == (verb == "report_and_lease")
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
        tools.wait_for(lambda: store.counts("aspects")[TrialState.QUEUED] >= 5 * seed)
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
        for count in (2, 6):
            tools.wait_for(lambda count=count: store.counts("aspects")[TrialState.COMPLETE] >= count)
            kill()
            time.sleep(0.3)
            start()
            tools.wait_for(lambda: _answers(store), what="the database")
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


def test_a_lease_on_an_old_sqlite_never_lives_for_ever(record, url):
    store = record(1)
    order = store.lease("w", None, lease_seconds=0.05)
    time.sleep(0.1)
    assert store.reap() == 1
    with pytest.raises(LeaseLostError):
        store.beat(order.trial_id, order.attempt)
    with closing(Database(url, read_only=True)) as database, database.reading() as connection:
        assert connection.scalar(select(Now())) > 1.7e9
