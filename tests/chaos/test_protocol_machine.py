"""Fault 23: any order of lease, beat, report, promotion, failure, hand-back, reap, cancel, requeue and passing time."""

import os
import socket
import uuid
from contextlib import closing

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from autopeft.errors import LeaseLostError, StoreError
from autopeft.store import Store
from autopeft.store.database import Database
from autopeft.study import Checkpoint, Fidelity, Measurement, TrialState

TRIALS = 4
LADDER = Fidelity(8, 4, 16, (3,))


class Protocol(RuleBasedStateMachine):
    """Holders of attempts do what they like; only the latest attempt of a running trial may change anything."""

    orders = Bundle("orders")

    def __init__(self):
        super().__init__()
        self.url = self.make_url()
        self.store = Store.open(self.url, create=True)
        self.store.create_study(self.study)
        self.epoch = self.store.acquire_driver("aspects", f"{socket.gethostname()}:1", 3600)
        self.store.enqueue("aspects", self.epoch, self.proposals)
        self.holder = {}
        self.complete = {}
        self.measured = {number: {} for number in range(TRIALS)}
        self.kept = {number: {} for number in range(TRIALS)}

    def sql(self, statement):
        with closing(Database(self.url)) as database, database.writing() as connection:
            connection.execute(text(statement))

    @rule(target=orders, worker=st.sampled_from("ab"))
    def lease(self, worker):
        order = self.store.lease(worker, "aspects", 100.0)
        return None if order is None else self.taken(order)

    def taken(self, order):
        """The order, of which nobody else may hold the trial."""
        assert order.number not in self.holder
        assert order.number not in self.complete
        assert order.rung == len(self.measured[order.number])
        assert {checkpoint.rung: checkpoint.path for checkpoint in order.checkpoints} == self.kept[order.number]
        self.holder[order.number] = order.attempt
        return order

    def by_holder(self, order, verb):
        """Whether ``verb`` was let through; it must be, exactly if the order's attempt holds the trial."""
        if order is None:
            return False
        holds = self.holder.get(order.number) == order.attempt
        try:
            verb(order.trial_id, order.attempt)
        except LeaseLostError:
            assert not holds
            return False
        return holds

    @rule(order=orders)
    def beat(self, order):
        if self.by_holder(order, lambda *key: self.store.beat(*key, 100.0)):
            assert self.holder[order.number] == order.attempt

    @rule(order=orders, value=st.floats(0, 1))
    def report(self, order, value):
        if order is None:
            return
        path = f"aspects/trial-{order.number}/attempt-{order.attempt}"
        measurement = Measurement(order.rung, {"accuracy": value}, artifact=path, sha256="a" * 64)
        if self.by_holder(order, lambda *key: self.store.report(*key, measurement)):
            self.reported(order, value, path)

    def reported(self, order, value, path):
        self.measured[order.number][order.rung] = value
        self.kept[order.number][order.rung] = path
        del self.holder[order.number]
        if order.rung == LADDER.top:
            self.complete[order.number] = value

    @rule(target=orders, order=orders, value=st.floats(0, 1), worker=st.sampled_from("ab"))
    def report_and_lease(self, order, value, worker):
        if order is None:
            return None
        path, following = f"aspects/trial-{order.number}/attempt-{order.attempt}", []
        measurement = Measurement(order.rung, {"accuracy": value}, artifact=path, sha256="a" * 64)
        asked = (measurement, None, worker, "aspects", 100.0)
        held = self.by_holder(order, lambda *key: following.append(self.store.report_and_lease(*key, *asked)))
        if held:
            self.reported(order, value, path)
        if following in ([], [None]):
            return None
        if not held and self.holder.get(following[0].number) == following[0].attempt:
            return following[0]  # sent again, it gives what the worker has
        return self.taken(following[0])

    @rule(number=st.integers(0, TRIALS - 1))
    def promote(self, number):
        was = self.store.trial("aspects", number).state
        promoted = self.store.promote("aspects", self.epoch, [number])
        assert promoted == ([number] if was is TrialState.PAUSED else [])

    @rule(paused=st.booleans())
    def forget(self, paused):
        remaining = self.store.forget_checkpoints("aspects", self.epoch, paused=paused)
        for number, paths in remaining.items():
            if number in self.complete:
                assert paths == [self.kept[number][LADDER.top]]
            else:
                assert paths == []
                self.kept[number] = {}

    @rule(order=orders)
    def fail(self, order):
        if self.by_holder(order, lambda *key: self.store.report_failure(*key, "no", "")):
            del self.holder[order.number]

    @rule(order=orders)
    def lose(self, order):
        if self.by_holder(order, lambda *key: self.store.report_lost(*key, "died")):
            del self.holder[order.number]

    @rule(order=orders)
    def hand_back(self, order):
        if order is None:
            return
        path = f"aspects/trial-{order.number}/attempt-{order.attempt}"
        middle = Checkpoint(order.rung, path, "b" * 64)
        if self.by_holder(order, lambda *key: self.store.hand_back(*key, checkpoint=middle)):
            del self.holder[order.number]
            self.kept[order.number][order.rung] = path

    @rule(seconds=st.sampled_from([50, 150]))
    def time_passes(self, seconds):
        self.sql(f"UPDATE trial SET expires_at = expires_at - {seconds}, not_before = not_before - {seconds}")

    @rule()
    def reap(self):
        self.store.reap()
        for trial in self.store.trials("aspects"):
            if trial.state is not TrialState.RUNNING:
                self.holder.pop(trial.number, None)

    @rule(number=st.integers(0, TRIALS - 1))
    def cancel(self, number):
        self.store.cancel("aspects", number)

    @rule(number=st.integers(0, TRIALS - 1))
    def requeue(self, number):
        try:
            self.store.requeue("aspects", number)
        except StoreError:
            assert number in self.complete
        else:
            self.holder.pop(number, None)

    @invariant()
    def the_record_is_sound(self):
        self.verify(self.url)
        for trial in self.store.trials("aspects"):
            assert (trial.state is TrialState.RUNNING) == (trial.number in self.holder)
            assert (trial.state is TrialState.COMPLETE) == (trial.number in self.complete)
            for rung, value in self.measured[trial.number].items():
                assert trial.values_at(rung) == {"accuracy": value}

    def teardown(self):
        self.store.close()


def machine_of(make_url, study, proposals, verify):
    """The machine for records that ``make_url`` makes."""
    given = {"make_url": staticmethod(make_url), "study": study, "proposals": proposals, "verify": staticmethod(verify)}
    return type("ProtocolOfRecord", (Protocol,), given)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_23_no_order_of_events_breaks_the_record(request, tmp_path, make_study, make_proposals, tools, dialect):
    if dialect == "sqlite":
        make = lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"  # noqa: E731
    else:
        pytest.importorskip("psycopg", reason="PostgreSQL: psycopg is not installed")
        server = request.getfixturevalue("postgresql_server")
        make = lambda: _schema(server)  # noqa: E731
    machine = machine_of(make, make_study(fidelity=LADDER), make_proposals(TRIALS), tools.verify_invariants)
    examples = settings(
        max_examples=100 if "CHAOS_MUTANT" in os.environ else 20 if dialect == "sqlite" else 6,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=examples)


def _schema(server):
    import psycopg

    name = f"record_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server}&options=-csearch_path%3D{name}"
