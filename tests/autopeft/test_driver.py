"""The loop against a real record and workers that measure nothing: an arithmetic score, reported at once."""

import socket
import subprocess
import threading
import time

import pytest

from autopeft.driver import Driver, Ending, Interrupt, require_unfinished
from autopeft.errors import AutopeftError, EvaluationError, LeaseLostError, StoreError
from autopeft.launch import WorkerPlan
from autopeft.store import Store
from autopeft.study import Measurement, Origin, TrialState
from search_spaces.cost import trainable_parameters


class ArithmeticWorkers:
    """An engine whose workers are threads; quality grows with the logarithm of the cost."""

    def __init__(self, url, study, fail=(), count=2, seconds=0.0):
        self.plans = [WorkerPlan("cpu", 1)] * count
        self._url, self._study, self._fail, self._seconds = url, study, fail, seconds
        self._leave = threading.Event()
        self._threads = []

    def start(self):
        self._threads = [threading.Thread(target=self._work, args=(f"w{i}",)) for i in range(len(self.plans))]
        for thread in self._threads:
            thread.start()

    def _work(self, name):
        with Store.open(self._url) as store:
            while not self._leave.is_set():
                order = store.lease(name, self._study)
                if order is None:
                    time.sleep(0.02)
                    continue
                time.sleep(self._seconds)
                if order.number in self._fail:
                    store.report_failure(order.trial_id, order.attempt, "planted failure", "Traceback: planted")
                    continue
                cost = trainable_parameters(order.configuration, order.study.backbone)
                values = {"accuracy": 0.5 + cost / 10_000, "trainable_parameters": cost}
                values |= {"loss": 0.5, "train_seconds": 0.1, "evaluate_seconds": 0.1}
                store.report(order.trial_id, order.attempt, Measurement(0, values))

    def ensure_alive(self):
        pass

    @property
    def alive_count(self):
        return sum(thread.is_alive() for thread in self._threads)

    def drain(self):
        self._leave.set()

    def stop(self):
        self._leave.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr("autopeft.driver.POLL_SECONDS", 0.02)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/record.db"


@pytest.fixture
def store(url):
    with Store.open(url, create=True) as opened:
        yield opened


def drive(store, url, study, interrupt=None, show=lambda progress: None, **engine):
    return Driver(store, study, ArithmeticWorkers(url, study.name, **engine), show, interrupt or Interrupt()).run()


def searched(trials):
    return [trial for trial in trials if trial.origin in (Origin.INITIAL, Origin.MODEL)]


@pytest.mark.parametrize("proposer", ["random", "closed-form"])
def test_a_search_ends_with_all_trials_the_control_and_the_reference(store, url, make_study, proposer):
    study = make_study(proposer=proposer, trials=6, initial_count=3)
    store.create_study(study)
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    assert len(searched(trials)) == 6
    assert [trial.label for trial in trials if trial.origin is Origin.REFERENCE] == ["head only"]
    assert len([trial for trial in trials if trial.origin is Origin.CONTROL]) == 6
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({(trial.digest, trial.replicate) for trial in trials}) == len(trials)
    assert all(trial.values["trainable_parameters"] <= 512 for trial in trials)
    history = store.fronts(study.name)
    assert 0 < history[0].hypervolume <= history[-1].hypervolume <= 1


def test_what_is_recorded_is_what_was_proposed(store, url, make_study):
    study = make_study(trials=5)
    store.create_study(study)
    drive(store, url, study)
    for trial in store.trials(study.name):
        assert trial.configuration.digest == trial.digest
        assert trial.values["trainable_parameters"] == trainable_parameters(trial.configuration, study.backbone)
    for trial in searched(store.trials(study.name)):
        study.search_space.encode(trial.configuration)


def test_a_failed_trial_is_data_and_the_search_goes_on(store, url, make_study):
    study = make_study(trials=4)
    store.create_study(study)
    assert drive(store, url, study, fail={8}) is Ending.TARGET
    failed = store.trial(study.name, 8)
    assert failed.state is TrialState.FAILED
    assert "planted failure" in failed.error
    assert len(searched(store.trials(study.name))) == 4


def test_an_interrupted_search_is_resumed_to_its_target(store, url, make_study):
    study = make_study(trials=8)
    store.create_study(study)
    interrupt = Interrupt()

    def stop_soon(progress):
        if sum(trial.state is TrialState.COMPLETE for trial in progress.trials) >= 3:
            interrupt.request()

    assert drive(store, url, study, interrupt, stop_soon, seconds=0.05) is Ending.INTERRUPTED
    assert len(searched(store.trials(study.name))) < 8
    require_unfinished(study, store.trials(study.name))
    assert drive(store, url, study) is Ending.TARGET
    trials = store.trials(study.name)
    assert len(searched(trials)) == 8
    assert len({(trial.digest, trial.replicate) for trial in trials}) == len(trials)
    with pytest.raises(AutopeftError, match="reached its target"):
        require_unfinished(study, trials)


def test_a_time_limit_ends_the_search(store, url, make_study):
    study = make_study(trials=1000, hours=1.5 / 3600)
    store.create_study(study)
    assert drive(store, url, study, seconds=0.1) is Ending.HOURS
    assert store.counts(study.name)[TrialState.RUNNING] == 0
    require_unfinished(study, store.trials(study.name))


def test_two_drivers_cannot_run_one_study(store, url, make_study):
    study = make_study()
    store.create_study(study)
    store.acquire_driver(study.name, "another host")
    with pytest.raises(StoreError, match="another host"):
        drive(store, url, study)


def test_a_dead_driver_of_this_host_is_waited_out(store, url, make_study, monkeypatch):
    study = make_study(trials=2)
    store.create_study(study)
    gone = subprocess.Popen(["true"])
    gone.wait()
    store.acquire_driver(study.name, f"{socket.gethostname()}:{gone.pid}", lease_seconds=1.0)
    assert drive(store, url, study) is Ending.TARGET


def test_a_driver_that_lost_its_lease_enqueues_nothing(store, url, make_study):
    study = make_study()
    store.create_study(study)
    epoch = store.acquire_driver(study.name, "first", lease_seconds=0.01)
    time.sleep(0.05)
    store.acquire_driver(study.name, "second")
    with pytest.raises(LeaseLostError):
        store.renew_driver(study.name, epoch)
    with pytest.raises(LeaseLostError):
        store.enqueue(study.name, epoch, [])


def test_a_small_space_is_searched_until_it_is_exhausted(store, url, make_study, tiny_backbone):
    from search_spaces.space import ModuleGroup, SpaceDefinition

    space = SpaceDefinition("two", (ModuleGroup(("query",), (0, 1)),), ((0,), (1,)), 2.0, (1e-3, 1e-3))
    study = make_study(space=space, trials=50)
    store.create_study(study)
    assert drive(store, url, study) is Ending.EXHAUSTED
    assert len(searched(store.trials(study.name))) == 3


def test_a_search_whose_first_trials_all_fail_alike_ends_with_that_message(store, url, make_study):
    study = make_study(trials=50)
    store.create_study(study)
    with pytest.raises(EvaluationError, match=r"failed alike: planted failure"):
        drive(store, url, study, fail=set(range(100)))
    assert len(searched(store.trials(study.name))) < 50


def test_a_study_that_is_stopped_from_outside_ends_the_search(store, url, make_study):
    study = make_study(trials=1000)
    store.create_study(study)

    def stop_soon(progress):
        if len(searched(progress.trials)) >= 3:
            store.stop(study.name)

    assert drive(store, url, study, show=stop_soon, seconds=0.02) is Ending.STOPPED
    assert len(searched(store.trials(study.name))) < 1000
