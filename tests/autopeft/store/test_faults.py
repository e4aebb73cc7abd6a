"""Processes that die, come back late or come at the same time: nothing is lost, nothing counts twice."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import and_, literal

from autopeft.errors import LeaseLostError
from autopeft.store import Outcome, Store, statements, tables, whole
from autopeft.study import TrialState

WORKER = """
import json, sys
from autopeft.store import Store
from autopeft.study import Measurement
url, name = sys.argv[1:]
done = []
with Store.open(url) as store:
    sys.stdin.readline()
    while order := store.lease(name, "aspects"):
        store.beat(order.trial_id, order.attempt)
        store.report(order.trial_id, order.attempt, Measurement(0, {"accuracy": order.number / 100}))
        done.append(order.number)
print(json.dumps(done))
"""

HOLDER = """
import sys, time
from autopeft.store import Store
store = Store.open(sys.argv[1])
order = store.lease("victim", "aspects", lease_seconds=0.5)
print(order.number, flush=True)
time.sleep(60)
"""

CREATOR = """
import sys
from autopeft.store import Store
sys.stdin.readline()
with Store.open(sys.argv[1], create=True) as store:
    print(store.study_names())
"""


def start(script, *arguments):
    command = [sys.executable, "-P", "-W", "error", "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_four_processes_share_forty_trials_and_none_is_done_twice(store, url, make_study, make_proposals):
    store.create_study(make_study())
    store.enqueue("aspects", store.acquire_driver("aspects", "driver"), make_proposals(40))
    workers = [start(WORKER, url, f"worker-{index}") for index in range(4)]
    done = [json.loads(worker.communicate("go\n", timeout=400)[0]) for worker in workers]
    assert sorted(number for numbers in done for number in numbers) == list(range(40))
    trials = store.trials("aspects")
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.values == {"accuracy": trial.number / 100} for trial in trials)


def test_a_killed_worker_loses_only_time(filled, url, measured):
    victim = start(HOLDER, url)
    assert victim.stdout.readline().strip() == "0"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    deadline = time.monotonic() + 60
    while not (reaped := filled.reap()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reaped == 1
    for number in range(3):
        order = filled.lease("survivor", "aspects")
        assert order.number == number
        filled.report(order.trial_id, order.attempt, measured())
    assert filled.counts("aspects")[TrialState.COMPLETE] == 3
    assert [attempt.outcome for attempt in filled.attempts("aspects", 0)] == [Outcome.LOST, Outcome.COMPLETE]


def test_of_two_finishers_one_counts(filled, url, measured):
    order = filled.lease("w", None)
    barrier = threading.Barrier(2)

    def finish(accuracy):
        with Store.open(url) as store:
            barrier.wait()
            store.report(order.trial_id, order.attempt, measured(accuracy))

    threads = [threading.Thread(target=finish, args=(accuracy,)) for accuracy in (0.25, 0.75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert filled.trial("aspects", 0).values["accuracy"] in (0.25, 0.75)
    assert [event.kind for event in filled.events("aspects")].count("reported") == 1


def test_a_zombie_report_after_reaping_is_refused(filled, measured):
    zombie = filled.lease("slow", None, lease_seconds=-1)
    filled.reap()
    second = filled.lease("quick", None)
    assert second.trial_id == zombie.trial_id
    with pytest.raises(LeaseLostError):
        filled.report(zombie.trial_id, zombie.attempt, measured(0.1))
    filled.report(second.trial_id, second.attempt, measured(0.9))
    with pytest.raises(LeaseLostError):
        filled.report(zombie.trial_id, zombie.attempt, measured(0.1))
    assert filled.trial("aspects", 0).values["accuracy"] == 0.9


def test_without_the_attempt_in_the_fence_a_zombie_would_win(filled, measured, monkeypatch):
    zombie = filled.lease("slow", None, lease_seconds=-1)
    filled.reap()
    filled.lease("quick", None)
    with pytest.raises(LeaseLostError):
        filled.beat(zombie.trial_id, zombie.attempt)
    monkeypatch.setattr(statements, "held_by", _by_id_alone)
    monkeypatch.setattr(statements, "BEAT", statements.Prepared(statements.BEAT.of))
    monkeypatch.setattr(whole, "BEAT", statements.Prepared(whole.BEAT.of))
    assert filled.beat(zombie.trial_id, zombie.attempt) is False


def _by_id_alone(trial_id, number):
    # the number stays bound, for it is handed over
    return and_(tables.trial.c.id == trial_id, tables.is_running, literal(0) < number + literal(1))


def test_a_lease_is_counted_by_the_databases_clock_alone(filled, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    filled.lease("w", None, lease_seconds=30)
    assert filled.reap() == 0


def test_of_two_drivers_of_one_study_one_numbers(filled, url, make_proposals, run_sql):
    run_sql("UPDATE study SET driver_expires_at = 0")
    with Store.open(url) as other:
        epoch = other.acquire_driver("aspects", "other")
        with pytest.raises(LeaseLostError):
            filled.enqueue("aspects", epoch - 1, make_proposals(2, start=50))
        assert other.enqueue("aspects", epoch, make_proposals(2, start=50)) == [3, 4]


def test_four_processes_may_make_the_same_new_database(url):
    creators = [start(CREATOR, url) for _ in range(4)]
    for creator in creators:
        creator.stdin.write("go\n")
        creator.stdin.flush()
    assert [creator.communicate(timeout=400)[0].strip() for creator in creators] == ["[]"] * 4


def test_a_heartbeat_thread_may_share_the_store(filled, measured):
    order = filled.lease("w", None)
    stop, errors = threading.Event(), []

    def beat():
        while not stop.is_set():
            try:
                filled.beat(order.trial_id, order.attempt)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=beat)
    thread.start()
    for number in range(20):
        filled.register_worker(f"w{number}", "host", "cpu", 1, {})
        filled.trials("aspects")
    stop.set()
    thread.join()
    filled.report(order.trial_id, order.attempt, measured())
    assert errors == []
