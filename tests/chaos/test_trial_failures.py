"""Faults of trials: 13 disk full at a checkpoint, 15 out of memory, 16 NaN, 3's kin: planted exceptions."""

import pytest

from autopeft.store import Failure, systematic_failure
from autopeft.study import TrialState

LONG = 60.0
"""Seconds of a lease that nobody is to lose by time, however busy the machine is."""


@pytest.mark.parametrize(
    ("fault", "kind", "state"),
    [
        ("memory", Failure.GPU_MEMORY, TrialState.FAILED),
        ("host memory", Failure.HOST_MEMORY, TrialState.FAILED),
        ("fail", Failure.EXCEPTION, TrialState.FAILED),
        ("diverge", Failure.DIVERGED, TrialState.DIVERGED),
    ],
)
def test_15_and_16_a_failure_is_data_with_its_kind(record, fleet, tools, wait_no_longer, fault, kind, state):
    store, workers = record(3), fleet(steps=2, lease=LONG, faults={"1": fault})
    tools.until_final(store, workers, 1, each=wait_no_longer)
    assert [trial.state for trial in store.trials("aspects")] == [TrialState.COMPLETE, state, TrialState.COMPLETE]
    attempts = store.attempts("aspects", 1)
    assert {one.failure for one in attempts} == {kind}
    assert len(attempts) == (1 if state is TrialState.DIVERGED else 2)
    assert store.failures("aspects") == {kind: len(attempts)}


def test_13_a_full_disk_ends_the_worker_and_blames_no_trial(record, fleet, tools):
    store, workers = record(3), fleet(steps=2, lease=LONG, faults={"1": "full"})
    worker = workers.start()
    tools.wait_for(lambda: not tools.alive(worker), what="the end of the worker")
    assert [trial.state for trial in store.trials("aspects")] == [
        TrialState.COMPLETE,
        TrialState.QUEUED,
        TrialState.QUEUED,
    ]
    [attempt] = store.attempts("aspects", 1)
    assert (attempt.failure, "No space left on device" in attempt.reason) == (Failure.DISK, True)
    assert "free some space" in workers.said()
    workers.start(faults={})
    tools.until_final(store, workers, 1)


def test_a_systematic_failure_is_seen_after_three_trials(record, fleet, tools, wait_no_longer):
    store = record(6)
    workers = fleet(steps=1, seconds=0.0, lease=LONG, faults={str(number): "fail" for number in range(6)})
    workers.start()
    message = tools.wait_for(lambda: systematic_failure(store.trials("aspects")), what="the message")
    assert message.endswith("failed alike: ValueError: planted failure")
    store.stop("aspects")
