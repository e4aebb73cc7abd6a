"""Seeded storms of kill -9: nothing lost, nothing twice, nothing healthy quarantined.

``CHAOS_SECONDS`` goes on with new seeds for so long; without it ten seeds a database are run.
"""

import os
import time

import pytest

SEEDS = 10
TRIALS = 60
KILLS = 11
SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_storm_of_kills_loses_nothing_and_quarantines_nobody(record, fleet, tools, seed):
    store, workers = record(TRIALS), fleet(seconds=0.015)
    tools.storm(store, workers, seed, KILLS)
    tools.all_complete(store, TRIALS)
    assert workers.kills >= KILLS - 1


@pytest.mark.skipif(not SECONDS, reason="CHAOS_SECONDS is not set: make chaos SECONDS=… storms as long as told")
def test_storms_go_on_for_as_long_as_told(make_study, make_proposals, url, fleet, tools):
    from autopeft.store import Store

    deadline, seed, workers = time.monotonic() + SECONDS / 2, 1000, fleet(seconds=0.015)
    with Store.open(url, create=True) as store:
        while time.monotonic() < deadline:
            if seed == 1000:
                store.create_study(make_study())
            epoch = store.acquire_driver("aspects", tools.driver, 3600)
            store.enqueue("aspects", epoch, make_proposals(TRIALS, start=TRIALS * (seed - 1000)))
            workers.kills = 0
            tools.storm(store, workers, seed, KILLS)
            tools.verify_invariants(url)
            seed += 1
        tools.all_complete(store, TRIALS * (seed - 1000))
