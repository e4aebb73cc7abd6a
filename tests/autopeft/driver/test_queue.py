"""How many proposals wait, and how many are asked for at once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from autopeft.driver_lease import DriverLease
from autopeft.optimizer import make_proposer
from autopeft.queueing import Queue
from autopeft.study import TrialState


@pytest.mark.parametrize(("workers", "spent", "depth"), [(1, 9.0, 1), (4, 0.1, 4), (4, 1.0, 7), (4, 9.0, 16)])
def test_the_queue_is_as_deep_as_the_proposer_is_slow(
    store, url, make_study, make_trial, workers, spent, depth, arithmetic_workers
):
    study = make_study()
    proposer = make_proposer("random", study.initial_count, study.seed)
    queue = Queue(study, DriverLease(store, study.name, 1), arithmetic_workers(url, "tiny-1", count=workers), proposer)
    queue.proposing_seconds = spent
    assert queue.depth([]) == workers
    values = {"accuracy": 0.7, "trainable_parameters": 64, "train_seconds": 1.5, "evaluate_seconds": 0.5}
    assert queue.depth([make_trial(values=values, state=TrialState.COMPLETE, rung=1)]) == depth


def test_a_queue_holds_a_pack_for_each_worker(store, url, make_study, make_trial, arithmetic_workers):
    study, engine = make_study(), arithmetic_workers(url, "tiny-1", count=2)
    engine.plans = [replace(plan, pack=8) for plan in engine.plans]
    proposer = make_proposer("random", study.initial_count, study.seed)
    queue = Queue(study, DriverLease(store, study.name, 1), engine, proposer)
    values = {"accuracy": 0.7, "trainable_parameters": 64, "train_seconds": 1.5, "evaluate_seconds": 0.5}
    done = make_trial(values=values, state=TrialState.COMPLETE, rung=1)
    assert [queue.depth([]), queue.depth([done])] == [16, 16]


@pytest.mark.parametrize(("workers", "batches"), [(4, [4, 2]), (1, [1, 1, 1, 1])])
def test_a_slow_proposer_is_asked_for_half_a_queue_at_least(
    store, url, make_study, monkeypatch, workers, batches, arithmetic_workers
):
    study = make_study(trials=40, initial_count=1)
    store.create_study(study)
    proposer, asked = make_proposer("random", study.initial_count, study.seed), []
    lease = DriverLease.acquire(store, study.name)
    queue = Queue(study, lease, arithmetic_workers(url, "tiny-1", count=workers), proposer)
    propose = type(proposer).propose
    passed = [0.0]
    monkeypatch.setattr("autopeft.queueing.time", SimpleNamespace(monotonic=lambda: passed[0]))

    def slowly(*given):
        passed[0] += 0.3
        return propose(*given)

    monkeypatch.setattr(type(proposer), "propose", slowly)
    for _ in range(4):
        before = len(store.trials(study.name))
        queue.fill(store.trials(study.name), None)
        asked += [added] if (added := len(store.trials(study.name)) - before) else []
        passed[0] += 0.1
        store.lease("w", study.name)  # one of the queue is taken between two looks
    assert asked == batches
