"""Faults of processes: 1 and 2 killed, 4 stopped and continued, 17 poison, 18 hang, 19 drain, 11 a wrong clock."""

import signal

import pytest

from autopeft.store import Failure, Outcome
from autopeft.study import TrialState

LONG = 60.0
"""Seconds of a lease that nobody is to lose by time, however busy the machine is."""


def running(store, count=1):
    return store.counts("aspects")[TrialState.RUNNING] >= count


def test_1_a_child_killed_in_mid_trial_costs_one_attempt_and_the_supervisor_goes_on(record, fleet, gate, tools):
    store, workers = record(4), fleet(lease=LONG, faults={"0": gate.fault})
    worker = workers.start()
    tools.wait_for(gate.reached)
    [child] = tools.children(worker)
    workers.kill(child)
    gate.open()
    tools.until_final(store, workers, 1)
    tools.all_complete(store, 4)
    lost = [one for number in range(4) for one in store.attempts("aspects", number) if one.outcome is Outcome.LOST]
    assert [one.failure for one in lost] == [Failure.LOST]
    assert lost[0].reason == "the training process died (killed by SIGKILL)"
    assert workers.workers == [worker]


def test_2_a_killed_supervisor_takes_its_child_along_and_another_goes_on(record, fleet, gate, tools):
    store, workers = record(4), fleet(faults={"0": gate.fault})
    worker = workers.start()
    tools.wait_for(gate.reached)
    [child] = tools.children(worker)
    workers.kill(worker)
    tools.wait_for(lambda: not tools.alive(child), what="the end of the orphan")
    gate.open()
    tools.until_final(store, workers, 1)
    tools.all_complete(store, 4)


def test_4_a_worker_stopped_past_its_lease_reports_nothing_when_it_wakes(record, fleet, gate, tools):
    store, workers = record(1), fleet(lease=0.6, faults={"0": gate.fault})
    sleeper = workers.start()
    tools.wait_for(gate.reached)
    for process in (sleeper, *tools.children(sleeper)):
        workers.kill(process, signal.SIGSTOP)
    tools.wait_for(store.reap, what="the end of the lease")
    other = workers.start()
    for process in (sleeper, *tools.children(sleeper)):
        workers.kill(process, signal.SIGCONT)
    gate.open()
    tools.until_final(store, workers, 2)
    tools.all_complete(store, 1)
    assert tools.alive(other)
    lost, done = store.attempts("aspects", 0)[0], store.attempts("aspects", 0)[-1]
    assert (lost.outcome, done.outcome) == (Outcome.LOST, Outcome.COMPLETE)


def test_4_a_zombie_that_does_not_look_at_the_time_is_refused(record, fleet, make_gate, tools, wait_no_longer):
    store, workers, first, second = record(1), fleet(), make_gate("first"), make_gate("second")
    workers.start(blind=True, lease=0.3, faults={"0": first.fault})
    tools.wait_for(first.reached)
    tools.wait_for(lambda: tools.lost(store), what="the end of the lease")
    wait_no_longer()
    workers.start(lease=60.0, faults={"0": second.fault})
    tools.wait_for(second.reached, what="the second attempt")
    first.open()
    refusal = "the lease was lost before its report"
    tools.wait_for(lambda: refusal in workers.said() or not running(store), what="the end of the zombie")
    assert refusal in workers.said()
    second.open()
    tools.wait_for(lambda: not running(store), what="the heir's report")
    tools.all_complete(store, 1)
    assert [(one.worker, one.outcome) for one in store.attempts("aspects", 0)] == [
        ("worker-1", Outcome.LOST),
        ("worker-2", Outcome.COMPLETE),
    ]


def test_11_a_worker_whose_clock_is_off_by_an_hour_keeps_and_loses_leases_as_ever(record, fleet, tools):
    store, workers = record(6), fleet(lease=LONG, clock=3600.0)
    workers.start(clock=-3600.0)
    tools.until_final(store, workers, 2)
    tools.all_complete(store, 6)
    assert all(len(store.attempts("aspects", number)) == 1 for number in range(6))
    assert all(abs(worker.age_seconds) < 600 for worker in store.workers())


@pytest.mark.parametrize("workers_count", [1, 2])
def test_17_poison_is_quarantined_and_the_queue_drains(record, fleet, tools, wait_no_longer, workers_count):
    store, workers = record(12), fleet(steps=2, seconds=0.005, lease=LONG, faults={"3": "die"})
    tools.until_final(store, workers, workers_count, each=wait_no_longer)
    trials = store.trials("aspects")
    assert [trial.number for trial in trials if trial.state is TrialState.QUARANTINED] == [3]
    assert sum(trial.state is TrialState.COMPLETE for trial in trials) == 11
    assert 3 <= trials[3].attempt <= 17  # a lone worker may lose it so often before anybody ends anything else
    assert "killed by SIGKILL" in trials[3].error


def test_18_a_hang_is_killed_told_with_where_it_stood_and_blamed(record, fleet, tools, wait_no_longer):
    store, workers = record(3), fleet(steps=2, seconds=0.01, lease=LONG, faults={"1": "hang"}, hang=3.0)
    tools.until_final(store, workers, 1, each=wait_no_longer)
    states = [trial.state for trial in store.trials("aspects")]
    assert states == [TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE]
    attempts = store.attempts("aspects", 1)
    assert [one.failure for one in attempts] == [Failure.HANG] * 2
    assert "misbehave" in attempts[0].traceback


@pytest.mark.parametrize(("number", "done"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 1)])
def test_19_a_worker_that_is_asked_to_leave_blames_nobody_and_leaves_nothing(record, fleet, gate, tools, number, done):
    store, workers = record(3), fleet(lease=LONG, faults={"0": gate.fault})
    worker = workers.start()
    tools.wait_for(gate.reached)
    [child] = tools.children(worker)
    workers.kill(worker, number)
    if done:
        gate.open()
    tools.wait_for(lambda: not tools.alive(worker), what="its end")
    assert not tools.alive(child)
    counts = store.counts("aspects")
    assert (counts[TrialState.COMPLETE], counts[TrialState.QUEUED], counts[TrialState.RUNNING]) == (done, 3 - done, 0)
    [attempt] = store.attempts("aspects", 0)
    assert attempt.failure is (None if done else Failure.PREEMPTED)
    assert store.trial("aspects", 0).error is None


def test_a_cancelled_trial_is_given_up_and_its_child_kept(record, fleet, tools):
    store, workers = record(2), fleet(steps=400, seconds=0.03, lease=0.4)
    worker = workers.start()
    tools.wait_for(lambda: running(store) and tools.children(worker))
    child = tools.children(worker)
    store.cancel("aspects", 0)
    tools.wait_for(lambda: store.trial("aspects", 0).state is TrialState.CANCELLED, what="the cancel")
    tools.wait_for(lambda: store.trial("aspects", 1).state is TrialState.RUNNING)
    assert tools.children(worker) == child
    store.stop("aspects")
    tools.wait_for(lambda: store.trial("aspects", 1).state is TrialState.CANCELLED, what="the stop")


def test_a_trial_requeued_by_hand_is_lost_to_whoever_runs_it(record, fleet, gate, tools):
    store, workers = record(1), fleet(lease=LONG, faults={"0": gate.fault})
    workers.start()
    tools.wait_for(gate.reached)
    assert store.requeue("aspects", 0) is TrialState.RUNNING
    gate.open()
    tools.until_final(store, workers, 1)
    tools.all_complete(store, 1)
    assert len(store.attempts("aspects", 0)) == 2
