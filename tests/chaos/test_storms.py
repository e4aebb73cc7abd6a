"""Seeded storms of kill -9: nothing lost, nothing twice, nothing healthy quarantined.

``CHAOS_SECONDS`` goes on with new seeds for so long; without it ten seeds a database are run.
"""

import os
import time

import pytest

from autopeft.study import TrialState

SEEDS = 10
TRIALS = 60
KILLS = 11
SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))


@pytest.fixture
def more(make_proposals, tools):
    """Queues further trials in a record."""

    def queue(store):
        epoch, start = store.acquire_driver("aspects", tools.driver, 3600), len(store.trials("aspects"))
        store.enqueue("aspects", epoch, make_proposals(TRIALS, start=start))

    return queue


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_storm_of_kills_loses_nothing_and_quarantines_nobody(record, fleet, tools, more, seed):
    store, workers = record(TRIALS), fleet(seconds=0.015)
    tools.storm(store, workers, seed, KILLS, lambda: more(store))
    trials = store.trials("aspects")
    tools.all_complete(store, len(trials))
    assert workers.kills == KILLS
    assert sum(trial.attempt for trial in trials) > len(trials) >= TRIALS, "no kill hit a trial"


def test_a_dense_storm_that_hits_every_trial_again_and_again_quarantines_nobody(
    record, fleet, gate, tools, wait_no_longer
):
    """No trial ends before the storm does, however much quicker the workers are than their killer.

    Who was killed least is killed next: no trial comes to the ten losses that are poison whatever befalls the others.
    """
    store = record(5)
    workers = fleet(steps=10, seconds=0.03, faults={str(number): gate.fault for number in range(5)})

    def most_attempts():
        return max(len(store.attempts("aspects", number)) for number in range(5))

    def strike():
        wait_no_longer()
        busy = [trial for trial in store.trials("aspects") if trial.state is TrialState.RUNNING]
        busy.sort(key=lambda trial: trial.attempt)
        victims = [child for trial in busy for child in tools.children(workers.named[trial.owner])]
        if workers.kills >= 20 and most_attempts() > 3:
            gate.open()
        elif victims:
            workers.kill(victims[0])

    tools.until_final(store, workers, 3, each=strike)
    tools.all_complete(store, 5)
    assert most_attempts() > 3


@pytest.mark.skipif(not SECONDS, reason="CHAOS_SECONDS is not set: make chaos SECONDS=… storms as long as told")
def test_storms_go_on_for_as_long_as_told(make_study, url, fleet, tools, more):
    from autopeft.store import Store

    deadline, seed, workers = time.monotonic() + SECONDS / 2, 1000, fleet(seconds=0.015)
    with Store.open(url, create=True) as store:
        while time.monotonic() < deadline:
            if seed == 1000:
                store.create_study(make_study())
            more(store)
            workers.kills = 0
            tools.storm(store, workers, seed, KILLS, lambda: more(store))
            tools.verify_invariants(url)
            seed += 1
        tools.all_complete(store, len(store.trials("aspects")))
