"""A worker that takes several orders at once: on the real store in this process, and as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autopeft.errors import LeaseLostError
from autopeft.store import Store
from autopeft.study import EXECUTION, PARAMETERS, Order, Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from workers.inside import Inside
from workers.loop import WorkerSettings, run_worker
from workers.pack.evaluate import PACK
from workers.pack.inside import PackInside
from workers.pack.working import PackWorker
from workers.stopping import Stop


@pytest.fixture
def plans(study):
    methods = [Lora(1, 2.0), Lora(4, 2.0), Mola(2, 1, 2.0), Ia3()]
    return [uniform(study.backbone, ("query",), method, 1e-2) for method in methods]


@pytest.fixture
def queued(study, tmp_path, plans):
    """A store with four queued trials of the study, one of which cannot be packed."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Store.open(url, create=True) as store:
        store.create_study(study)
        epoch = store.acquire_driver(study.name, "test")
        store.enqueue(study.name, epoch, [Proposal(plan, Origin.MODEL) for plan in plans])
        yield store, url


def work(url, study, evaluator, stop=None, **changes):
    settings = WorkerSettings("w", study.name, **{"pack": 8, "idle_seconds": 0.1, **changes})
    return run_worker(lambda: Store.open(url), settings, evaluator, stop, PackWorker)


def packed_with(store, study):
    found = {trial.number: store.measurement(study.name, trial.number) for trial in store.trials(study.name)}
    return {number: one.details[EXECUTION].get(PACK, 1) for number, one in found.items()}


def test_what_can_be_packed_is_and_the_rest_runs_alone(queued, study, tmp_path, caplog):
    store, url = queued
    assert work(url, study, PackInside("cpu", tmp_path)) == 4
    trials = store.trials(study.name)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert packed_with(store, study) == {0: 3, 1: 3, 2: 1, 3: 3}
    assert "trial 2 runs alone, and others like it: routers" in caplog.text
    for trial in trials:
        assert trial.values[PARAMETERS] == study.search_space.cost(trial.configuration)
        assert (tmp_path / store.measurement(study.name, trial.number).artifact / "configuration.json").is_file()


def test_no_more_than_were_asked_for(queued, study, tmp_path):
    store, url = queued
    assert work(url, study, PackInside("cpu", tmp_path), pack=2, max_trials=3) == 3
    assert store.counts(study.name)[TrialState.QUEUED] == 1


def test_a_cancelled_member_leaves_and_the_others_are_measured(queued, study, tmp_path, monkeypatch):
    store, url = queued
    monkeypatch.setattr("workers.heartbeat.time", SimpleNamespace(monotonic=lambda: 0.0))  # no lease is lost by time

    class Cancelling(PackInside):
        def evaluate_together(self, orders, check, tell):
            store.cancel(study.name, 1)

            def patient(order):
                deadline = time.monotonic() + 60
                while order.number == 1:  # until it is told of the cancel
                    assert time.monotonic() < deadline
                    check(order)
                    time.sleep(0.05)
                check(order)

            super().evaluate_together(orders, patient, tell)

    assert work(url, study, Cancelling("cpu", tmp_path), lease_seconds=0.2) == 4
    states = [trial.state for trial in store.trials(study.name)]
    assert states == [TrialState.COMPLETE, TrialState.CANCELLED, TrialState.COMPLETE, TrialState.COMPLETE]


def test_a_worker_that_is_asked_to_leave_hands_all_of_its_pack_back(queued, study, tmp_path):
    store, url = queued
    stop = Stop()

    class Interrupted(PackInside):
        def evaluate_together(self, orders, check, tell):
            stop.at_once = True
            super().evaluate_together(orders, check, tell)

    assert work(url, study, Interrupted("cpu", tmp_path), stop) == 3
    assert store.counts(study.name)[TrialState.QUEUED] == 4
    assert work(url, study, PackInside("cpu", tmp_path)) == 4
    assert store.counts(study.name)[TrialState.COMPLETE] == 4


def test_a_report_of_a_member_whose_lease_was_lost_changes_nothing(queued, study, tmp_path):
    store, url = queued

    class Robbed(PackInside):
        def evaluate_together(self, orders, check, tell):
            if orders[0].number == 0:
                store.requeue(study.name, 1)
            super().evaluate_together(orders, check, tell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.heartbeat.Heartbeat.check", lambda *_: None)  # nobody notices before the report
        assert work(url, study, Robbed("cpu", tmp_path), max_trials=3) == 3
    assert [trial.state for trial in store.trials(study.name)][:2] == [TrialState.COMPLETE, TrialState.QUEUED]


def test_a_trial_that_was_lost_before_runs_alone(queued, study, tmp_path, monkeypatch):
    store, url = queued
    monkeypatch.setattr("autopeft.store.blame.wait_seconds", lambda _count: 0.0)
    first = store.lease("gone", study.name)
    store.report_lost(first.trial_id, first.attempt, "died")
    assert work(url, study, PackInside("cpu", tmp_path)) == 4
    assert packed_with(store, study) == {0: 1, 1: 2, 2: 1, 3: 2}


def start(url, artifacts, *more):
    command = [sys.executable, "-P", "-m", "workers", "run", "--study", "rooms-1", "--artifacts", str(artifacts)]
    command += ["--threads", "1", "--parent", str(os.getpid()), "--pack", "4", *more]
    return subprocess.Popen(command, env={**os.environ, "AUTOPEFT_DB": url}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_packed_worker_that_is_killed_loses_nothing(make_study, plans, tmp_path):
    """All of its leases run out, and another worker trains every one of its trials."""
    study = make_study(fidelity=replace(make_study().fidelity, steps=100_000))
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with Store.open(url, create=True) as store:
        store.create_study(study)
        packable = [Proposal(plan, Origin.MODEL) for number, plan in enumerate(plans) if number != 2]
        store.enqueue(study.name, store.acquire_driver(study.name, "test"), packable)
        with start(url, tmp_path, "--worker-id", "w1", "--lease-seconds", "3") as process:
            deadline = time.monotonic() + 300
            while store.counts(study.name).get(TrialState.RUNNING) != 3:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
        freed = 0
        while freed < 3:  # each has a lease of its own, which ends a moment before or after the others
            assert time.monotonic() < deadline
            freed += store.reap(study.name)
            time.sleep(0.2)
        trials = store.trials(study.name)
        assert [trial.state for trial in trials] == [TrialState.QUEUED] * 3
        assert [store.attempts(study.name, number)[0].outcome for number in range(3)] == ["LOST"] * 3


@pytest.mark.slow
def test_a_packed_worker_process_works_quietly_and_measures_what_a_lone_one_does(queued, study, tmp_path):
    store, url = queued
    with start(url, tmp_path, "--worker-id", "w1", "--idle-seconds", "0.5") as process:
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0
    assert [line for line in said.splitlines() if "runs alone" not in line] == []
    assert store.counts(study.name)[TrialState.COMPLETE] == 4
    assert packed_with(store, study) == {0: 3, 1: 3, 2: 1, 3: 3}
    lone = Inside("cpu", tmp_path / "lone")
    for trial in store.trials(study.name):
        order = Order(trial.number, 1, trial.number, study, trial.configuration, trial.replicate, 0)
        measured, _ = lone.measure(order, lambda _: None)
        assert trial.values["accuracy"] == measured.values["accuracy"]
        assert trial.values["loss"] == pytest.approx(measured.values["loss"], abs=1e-4)


def test_the_worker_of_packs_loads_no_torch():
    code = "import sys, workers.pack.working, workers.pack.supervisor; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_leases_that_are_gone_before_company_comes_are_found_out_by_the_work(queued, study, tmp_path):
    store, url = queued

    class Forgetful(Store):
        def lease_beside(self, *_arguments, **_named):
            raise LeaseLostError("gone")

    settings = WorkerSettings("w", study.name, idle_seconds=0.1, pack=8)
    assert run_worker(lambda: Forgetful.open(url), settings, PackInside("cpu", tmp_path), None, PackWorker) == 4
    assert set(packed_with(store, study).values()) == {1}
