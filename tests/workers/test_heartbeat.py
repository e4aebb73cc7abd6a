import time
from types import SimpleNamespace

import pytest

from autopeft.errors import LeaseLostError, StoreError
from workers.heartbeat import Heartbeat
from workers.stopping import Preempted

LEASE = 0.2
"""Seconds; four beats."""


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """The time by which leases run out, in seconds: it stands until it is set, so that no busy machine loses one."""
    time_ = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("workers.heartbeat.time", SimpleNamespace(monotonic=lambda: time_.seconds))
    return time_


class Beats:
    """A store that answers beats as it is told."""

    def __init__(self):
        self.answer = False
        self.orders = []
        self.seen = 0
        self.closed = False

    def open(self):
        return self

    def beat(self, trial_id, attempt, lease_seconds=60):
        self.orders.append((trial_id, attempt))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def worker_seen(self, worker):
        self.seen += 1

    def close(self):
        self.closed = True


@pytest.fixture
def order(study, make_order):
    return make_order(study, number=7, attempt=3)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def wait_for_beats(store, count):
    """Waits for so many beats of a worker that holds nothing."""
    seen = store.seen
    wait_for(lambda: store.seen >= seen + count)


def test_it_beats_for_the_order_it_holds_and_only_then(order):
    store = Beats()
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        wait_for(lambda: store.seen > 0)
        assert store.orders == []
        heartbeat.hold(order)
        wait_for(lambda: len(store.orders) > 2)
        heartbeat.check()
        heartbeat.release()
        wait_for_beats(store, 1)  # one may have been on its way
        count = len(store.orders)
        wait_for_beats(store, 2)
        assert len(store.orders) == count
    assert set(store.orders) == {(107, 3)}
    assert store.closed


def test_a_lost_lease_is_told_and_no_longer_beaten_for(order):
    store = Beats()
    store.answer = LeaseLostError("taken")
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        heartbeat.hold(order)
        wait_for(lambda: not heartbeat.alive)
        wait_for_beats(store, 2)
        assert len(store.orders) == 1
        with pytest.raises(LeaseLostError):
            heartbeat.check()


def test_a_late_answer_says_nothing_about_the_next_order(order, make_order, study):
    store = Beats()
    following = make_order(study, number=8)
    with Heartbeat(store.open, "w", LEASE) as heartbeat:

        def lose_late(trial_id, attempt, lease_seconds=60):
            if trial_id == order.trial_id:
                heartbeat.hold(following)
                raise LeaseLostError("taken")
            store.orders.append(trial_id)
            return False

        store.beat = lose_late
        heartbeat.hold(order)
        wait_for(lambda: len(store.orders) >= 2)
        heartbeat.check()
    assert set(store.orders) == {following.trial_id}


def test_a_cancel_is_told(order):
    store = Beats()
    store.answer = True
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        heartbeat.hold(order)
        wait_for(lambda: len(store.orders) > 1)  # the first answer is noted before the second beat
        with pytest.raises(Preempted, match="cancelled"):
            heartbeat.check()


def test_a_lease_that_could_not_be_renewed_in_time_counts_as_lost(order, monkeypatch, now):
    monkeypatch.setattr("workers.heartbeat._RETRY_SECONDS", 0.01)
    store = Beats()
    store.answer = StoreError("away")
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        heartbeat.hold(order)
        wait_for(lambda: len(store.orders) >= 3)
        now.seconds = LEASE - 0.01
        heartbeat.check()
        now.seconds = LEASE
        assert not heartbeat.alive
        with pytest.raises(LeaseLostError):
            heartbeat.check()


def test_every_beat_renews_the_lease(order, now):
    store = Beats()
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        heartbeat.hold(order)
        for _ in range(3):
            now.seconds += LEASE - 0.01
            beats = len(store.orders)
            wait_for(lambda beats=beats: len(store.orders) > beats + 1)  # the first may have been on its way
            heartbeat.check()


def test_a_database_that_cannot_be_opened_at_first_is_opened_later(order, monkeypatch):
    monkeypatch.setattr("workers.heartbeat._RETRY_SECONDS", 0.01)
    store, refusals = Beats(), [StoreError("away")] * 2

    def open_store():
        if refusals:
            raise refusals.pop()
        return store

    with Heartbeat(open_store, "w", LEASE) as heartbeat:
        heartbeat.hold(order)
        wait_for(lambda: store.orders)
        assert heartbeat.alive


def test_of_several_orders_each_has_a_lease_of_its_own(order, make_order, study):
    store, others = Beats(), [make_order(study, number=number) for number in (8, 9)]

    def beat(trial_id, attempt, lease_seconds=60):
        store.orders.append(trial_id)
        if trial_id == others[0].trial_id:
            raise LeaseLostError("taken")
        return trial_id == others[1].trial_id

    store.beat = beat
    with Heartbeat(store.open, "w", LEASE) as heartbeat:
        heartbeat.hold(order, *others)
        wait_for(lambda: store.orders.count(others[1].trial_id) > 1)
        heartbeat.check(order)
        assert heartbeat.keeps(order)
        assert not heartbeat.alive
        with pytest.raises(LeaseLostError):
            heartbeat.check(others[0])
        with pytest.raises(Preempted, match="cancelled"):
            heartbeat.check(others[1])
        heartbeat.let_go(others[1])
        count = store.orders.count(others[1].trial_id)
        wait_for(lambda: store.orders.count(order.trial_id) > count + 1)
        assert store.orders.count(others[1].trial_id) <= count + 1
        assert not heartbeat.keeps(others[1])
    assert store.orders.count(others[0].trial_id) == 1
