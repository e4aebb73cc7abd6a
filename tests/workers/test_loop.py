import errno
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest

from autopeft.errors import BackboneError, EvaluationError, LeaseLostError, SchemaError, StoreError
from autopeft.store import Failure
from autopeft.study import PARAMETERS, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers import inside, loop
from workers.failures import TrialFailure
from workers.inside import Inside
from workers.loop import WorkerSettings
from workers.stopping import Stop


class FakeStore:
    """A record in memory that keeps what workers tell it, and fails when it is told to."""

    def __init__(self, orders=()):
        self.orders = deque(orders)
        self.told = []
        self.beats = 0
        self.seen = 0
        self.reaps = 0
        self.opened = 0
        self.environment = None
        self.failing = {}
        self.cancelled = set()
        self.lost = set()

    def open(self):
        self.opened += 1
        return self

    def close(self):
        pass

    def _fail(self, verb):
        if self.failing.get(verb):
            raise self.failing[verb].pop(0)

    def register_worker(self, worker, host, device, pid, environment):
        self._fail("register_worker")
        self.environment = environment

    def worker_seen(self, worker):
        self.seen += 1

    def lease(self, worker, study, lease_seconds=60):
        self._fail("lease")
        return self.orders.popleft() if self.orders else None

    def beat(self, trial_id, attempt, lease_seconds=60):
        self._fail("beat")
        self.beats += 1
        if trial_id in self.lost:
            raise LeaseLostError("taken by another")
        return trial_id in self.cancelled

    def _tell(self, verb, *what):
        self._fail(verb)
        self.told.append((verb, *what))

    def report(self, trial_id, attempt, measurement, environment=None):
        self._tell("report", trial_id, measurement, environment)

    def report_and_lease(self, trial_id, attempt, measurement, environment, worker, study, lease_seconds=60):
        self.report(trial_id, attempt, measurement, environment)
        return self.orders.popleft() if self.orders else None

    def report_diverged(self, trial_id, attempt, reason):
        self._tell("diverged", trial_id, reason)

    def report_failure(self, trial_id, attempt, reason, traceback, failure="exception"):
        self._tell("failure", trial_id, reason, traceback, failure)
        return TrialState.QUEUED

    def report_lost(self, trial_id, attempt, reason, last_words=""):
        self._tell("lost", trial_id, reason, last_words)
        return TrialState.QUEUED

    def hand_back(self, trial_id, attempt, reason=None, failure="preempted", checkpoint=None):
        self._tell("hand_back", trial_id, reason, failure, checkpoint)

    def reap(self, study=None):
        self.reaps += 1
        return 0

    @property
    def verbs(self):
        return [(told[0], told[1]) for told in self.told]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits of milliseconds."""
    monkeypatch.setattr(loop, "IDLE_POLL_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(loop, "RETRY_SECONDS", (0.001, 0.01))
    monkeypatch.setattr("workers.heartbeat._RETRY_SECONDS", 0.01)


@pytest.fixture
def lasting(monkeypatch):
    """Leases that no time ends, so that no busy machine loses one."""
    monkeypatch.setattr("workers.heartbeat.time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.fixture
def orders(study, make_order):
    sizes = (1, 2, 4)
    plans = [uniform(study.backbone, ("query",), Lora(rank, 2.0), 1e-2) for rank in sizes]
    return [make_order(study, plan, number) for number, plan in enumerate(plans)]


@pytest.fixture
def settings():
    def make(**fields):
        return WorkerSettings(**{"worker": "w", "study": "rooms-1", "idle_seconds": 0.05} | fields)

    return make


@pytest.fixture
def run_worker(tmp_path):
    """The loop with everything in this process."""

    def run(open_store, settings, stop=None):
        return loop.run_worker(open_store, settings, Inside(settings.device, tmp_path), stop)

    return run


def evaluations(monkeypatch, *outcomes):
    """Makes evaluate do, order by order: raise an error, or call a function."""
    waiting = deque(outcomes)
    real = inside.evaluate

    def evaluate(order, resident, artifacts, between_steps):
        outcome = waiting.popleft() if waiting else None
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is not None:
            outcome(between_steps)
        return real(order, resident, artifacts, between_steps)

    monkeypatch.setattr(inside, "evaluate", evaluate)


def spin(until=lambda: False):
    """A trial that goes on step by step until something is so, or until it is ended."""

    def steps(between_steps):
        deadline = time.monotonic() + 60
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.005)
            between_steps(1)

    return steps


def test_a_worker_reports_every_order_and_ends_when_nothing_comes(orders, settings, run_worker):
    store = FakeStore(orders)
    assert run_worker(store.open, settings(environment={"torch": "2"})) == 3
    assert store.verbs == [("report", 100), ("report", 101), ("report", 102)]
    assert [told[2].values[PARAMETERS] for told in store.told] == [64, 128, 256]
    assert store.environment == {"torch": "2"}
    assert store.reaps >= 1


def test_a_worker_ends_after_so_many_trials(orders, settings, run_worker):
    store = FakeStore(orders)
    assert run_worker(store.open, settings(max_trials=2)) == 2
    assert len(store.orders) == 1


def test_what_came_with_a_report_is_handed_back_by_a_worker_that_was_asked_to_leave(orders, settings, run_worker):
    stop = loop.Stop()

    class Leaving(FakeStore):
        def report_and_lease(self, *told):
            order = super().report_and_lease(*told)
            stop.draining = True
            return order

    store = Leaving(orders)
    assert run_worker(store.open, settings(), stop) == 1
    assert store.verbs == [("report", 100), ("hand_back", 101)]


def test_a_trial_that_fails_is_told_with_its_traceback_and_the_next_is_taken(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders)
    evaluations(monkeypatch, EvaluationError("no gradient"), ZeroDivisionError("division by zero"))
    run_worker(store.open, settings())
    assert store.verbs == [("failure", 100), ("failure", 101), ("report", 102)]
    assert store.told[0][2] == "no gradient"
    assert store.told[1][2] == "ZeroDivisionError: division by zero"
    assert "Traceback" in store.told[1][3]


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("exception", "failure"),
        ("gpu memory", "failure"),
        ("hang", "failure"),
        ("lost", "lost"),
        ("diverged", "diverged"),
    ],
)
def test_each_kind_of_failure_is_told_as_what_it_is(orders, settings, monkeypatch, run_worker, kind, verb):
    store = FakeStore(orders[:2])
    evaluations(monkeypatch, TrialFailure(Failure(kind), "no", "Traceback"))
    assert run_worker(store.open, settings()) == 2
    assert store.verbs == [(verb, 100), ("report", 101)]


def test_a_full_disk_blames_the_worker_which_ends(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders)
    evaluations(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(EvaluationError, match=r"No space left on device .* free some space"):
        run_worker(store.open, settings())
    assert store.verbs == [("hand_back", 100)]
    assert store.told[0][3] == "disk"


def test_a_report_says_what_it_rests_on(orders, settings, run_worker, study):
    store = FakeStore(orders[:1])
    run_worker(store.open, settings())
    assert store.told[0][3]["backbone"] == study.model.sha256
    assert len(store.told[0][3]["data"]) == 64


def test_divergence_is_data(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders[:1])
    monkeypatch.setattr("workers.training.loss_of", lambda logits, *_: logits.sum() * float("nan"))
    run_worker(store.open, settings())
    assert store.verbs == [("diverged", 100)]
    assert "the training loss is nan" in store.told[0][2]


def test_a_worker_that_must_end_hands_its_trial_back_and_takes_no_other(orders, settings, monkeypatch, run_worker):
    store, stop = FakeStore(orders), Stop()

    def end(between_steps):
        stop.at_once = True
        between_steps(1)

    evaluations(monkeypatch, end)
    assert run_worker(store.open, settings(), stop) == 1
    assert store.verbs == [("hand_back", 100)]


def test_a_draining_worker_finishes_its_trial_first(orders, settings, monkeypatch, run_worker):
    store, stop = FakeStore(orders), Stop()

    def drain(_between_steps):
        stop.draining = True

    evaluations(monkeypatch, drain)
    run_worker(store.open, settings(), stop)
    assert store.verbs == [("report", 100)]


def test_a_worker_without_an_idle_limit_waits_until_it_is_asked_to_end(settings, run_worker):
    store, stop = FakeStore(), Stop()
    thread = threading.Thread(target=run_worker, args=(store.open, settings(idle_seconds=0.0), stop))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    stop.at_once = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.usefixtures("lasting")
def test_a_lost_lease_ends_the_trial_without_a_report(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders)
    store.lost.add(orders[0].trial_id)
    evaluations(monkeypatch, spin())
    run_worker(store.open, settings(lease_seconds=0.2, max_trials=2))
    assert store.verbs == [("report", 101)]


@pytest.mark.usefixtures("lasting")
def test_a_cancelled_trial_is_handed_back_and_the_next_is_taken(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders)
    store.cancelled.add(orders[0].trial_id)
    evaluations(monkeypatch, spin())
    run_worker(store.open, settings(lease_seconds=0.2, max_trials=2))
    assert store.verbs == [("hand_back", 100), ("report", 101)]


@pytest.mark.usefixtures("lasting")
def test_the_lease_is_renewed_while_a_trial_runs(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders[:1])
    evaluations(monkeypatch, spin(lambda: store.beats >= 4))
    run_worker(store.open, settings(lease_seconds=0.2))
    assert store.beats >= 4
    assert store.verbs == [("report", 100)]
    assert store.opened == 2


@pytest.mark.usefixtures("lasting")
def test_a_database_that_is_away_for_less_than_the_lease_costs_nothing(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders[:2])
    locked = [StoreError("database is locked") for _ in range(9)]
    store.failing = {"register_worker": locked[:1], "lease": locked[1:3], "beat": locked[3:5], "report": locked[5:]}
    evaluations(monkeypatch, spin(lambda: store.beats >= 1))
    assert run_worker(store.open, settings(lease_seconds=0.2, max_trials=2)) == 2
    assert not any(store.failing.values())
    assert store.verbs == [("report", 100), ("report", 101)]


def test_a_database_that_is_away_for_longer_than_the_lease_ends_the_trial(orders, settings, monkeypatch, run_worker):
    store = FakeStore(orders)
    store.failing = {"beat": [StoreError("away") for _ in range(1000)]}

    def back(_between_steps):
        store.failing.clear()

    evaluations(monkeypatch, spin(), back)
    run_worker(store.open, settings(lease_seconds=1.0, max_trials=2))
    assert store.verbs == [("report", 101)]


def test_a_report_that_the_database_refuses_as_late_is_let_go(orders, settings, run_worker):
    store = FakeStore(orders[:2])
    store.failing = {"report": [LeaseLostError("taken by another")]}
    assert run_worker(store.open, settings()) == 2
    assert store.verbs == [("report", 101)]


def test_a_report_is_given_up_when_the_lease_has_run_out(orders, settings, run_worker):
    store = FakeStore(orders[:1])
    away = [StoreError("away") for _ in range(10_000)]
    store.failing = {"report": away, "beat": away}
    assert run_worker(store.open, settings(lease_seconds=0.3)) == 1
    assert store.told == []


def test_a_model_that_cannot_be_loaded_ends_the_worker_and_blames_no_trial(orders, settings, monkeypatch, run_worker):
    def refuse(*_):
        raise BackboneError("no such model here")

    monkeypatch.setattr("workers.backbones.load_resident", refuse)
    store = FakeStore(orders)
    with pytest.raises(BackboneError, match="no such model here"):
        run_worker(store.open, settings())
    assert store.verbs == [("hand_back", 100)]


def test_a_database_of_another_version_ends_the_worker(settings, run_worker):
    store = FakeStore()
    store.failing = {"lease": [SchemaError("upgrade autopeft")]}
    with pytest.raises(SchemaError):
        run_worker(store.open, settings())


def test_a_device_that_is_not_there_ends_the_worker(settings, run_worker):
    with pytest.raises(EvaluationError, match="expected cpu or cuda"):
        run_worker(FakeStore().open, settings(device="abacus"))
