"""Many processes at one queue: every trial once, and nobody is turned away by a lock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from autopeft.errors import StoreError
from autopeft.store import Store

WORKER = """
import importlib.util, json, sys, time
sys.path[:] = json.loads(sys.argv[3])
from autopeft.errors import StoreError
from autopeft.store import Store
from autopeft.study import Measurement
spec = importlib.util.spec_from_file_location("mutants", sys.argv[4])
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)
mutants.apply()
done, turned_away = [], 0
with Store.open(sys.argv[1]) as store:
    sys.stdin.readline()
    while True:
        try:
            store.worker_seen("nobody")
            store.renew_driver("aspects", 1, 3600)
            if (order := store.lease(sys.argv[2], "aspects")) is None:
                break
            store.report(order.trial_id, order.attempt, Measurement(0, {"accuracy": order.number / 1000}))
            done.append(order.number)
        except StoreError:
            turned_away += 1
print(json.dumps([done, turned_away]))
"""


def test_eight_processes_share_a_queue_and_none_is_turned_away(record, url):
    store = record(200)
    mutants = str(Path(__file__).with_name("mutants.py"))
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, f"w{index}", json.dumps(sys.path), mutants],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for index in range(8)
    ]
    results = [json.loads(worker.communicate("go\n", timeout=400)[0]) for worker in workers]
    assert sorted(number for done, _ in results for number in done) == list(range(200))
    assert sum(turned_away for _, turned_away in results) == 0
    assert all(trial.values == {"accuracy": trial.number / 1000} for trial in store.trials("aspects"))


def test_what_a_lease_has_read_nobody_changes_before_it_has_written(record, url):
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL locks rows, not the file")
    store, late = record(1), []
    other = Store.open(f"{url}?timeout=0.05")

    def come_between(connection, cursor, statement, *_):
        if statement.startswith("UPDATE trial"):
            try:
                other.cancel("aspects", 0)
            except StoreError:
                late.append(statement)

    event.listen(store._database._engine, "before_cursor_execute", come_between)
    order = store.lease("w", "aspects")
    other.close()
    assert len(late) == 1
    assert order.number == 0
