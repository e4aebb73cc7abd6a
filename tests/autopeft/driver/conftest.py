"""Searches whose workers are threads that compute a quality, in a record of their own."""

import threading
import time

import pytest

from autopeft.driver import Driver, Interrupt
from autopeft.launch import WorkerPlan
from autopeft.store import Store
from autopeft.study import Measurement, Origin
from search_spaces.cost import trainable_parameters


class ArithmeticWorkers:
    """An engine whose workers are threads; quality grows with the logarithm of the cost."""

    def __init__(self, url, study, fail=(), count=2, seconds=0.0, artifacts=None, until_queued=(), until_drained=()):
        self.plans = [WorkerPlan("cpu", 1)] * count
        self.orders, self._artifacts = [], artifacts
        self._url, self._study, self._fail, self._seconds = url, study, fail, seconds
        self._until_queued, self._until_drained = until_queued, until_drained
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
                if order.number in self._until_queued:
                    self._await_more(store, order.number)
                if order.number in self._until_drained:
                    self._leave.wait(120.0)
                if order.number in self._fail:
                    store.report_failure(order.trial_id, order.attempt, "planted failure", "Traceback: planted")
                    continue
                cost = trainable_parameters(order.configuration, order.study.backbone)
                values = {"accuracy": 0.5 + cost / 10_000, "trainable_parameters": cost}
                values |= {"loss": 1 - cost / 10_000, "train_seconds": 0.1, "evaluate_seconds": 0.1}
                store.report(order.trial_id, order.attempt, self._measured(order, values))

    def _await_more(self, store, number, seconds=120.0):
        """Returns when a later trial stands in the record, or after a time that no healthy driver takes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and max(one.number for one in store.trials(self._study)) <= number:
            time.sleep(0.01)

    def _measured(self, order, values):
        self.orders.append((order.number, order.rung))
        if self._artifacts is None:
            return Measurement(order.rung, values)
        folder = f"{order.study.name}/trial-{order.number}/attempt-{order.attempt}"
        (self._artifacts / folder).mkdir(parents=True)
        return Measurement(order.rung, values, artifact=folder, sha256="a" * 64)

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
    for module in ("driver", "driver_lease", "queueing"):
        monkeypatch.setattr(f"autopeft.{module}.POLL_SECONDS", 0.02)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/record.db"


@pytest.fixture
def store(url):
    with Store.open(url, create=True) as opened:
        yield opened


@pytest.fixture
def arithmetic_workers():
    return ArithmeticWorkers


@pytest.fixture
def drive():
    def driven(store, url, study, interrupt=None, show=lambda progress: None, **engine):
        workers = ArithmeticWorkers(url, study.name, **engine)
        return Driver(store, study, workers, show, interrupt or Interrupt()).run()

    return driven


@pytest.fixture
def searched():
    """Of some trials, those that the search itself proposed."""
    return lambda trials: [trial for trial in trials if trial.origin in (Origin.INITIAL, Origin.MODEL)]
