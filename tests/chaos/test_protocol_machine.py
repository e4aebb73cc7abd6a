"""Fault 23: any order of lease, beat, report, failure, hand-back, reap, cancel, requeue and passing time."""

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
from autopeft.study import Measurement, TrialState

TRIALS = 4


class Protocol(RuleBasedStateMachine):
    """Holders of attempts do what they like; only the latest attempt of a running trial may change anything."""

    orders = Bundle("orders")

    def __init__(self):
        super().__init__()
        self.url = self.make_url()
        self.store = Store.open(self.url, create=True)
        self.store.create_study(self.study)
        epoch = self.store.acquire_driver("aspects", f"{socket.gethostname()}:1", 3600)
        self.store.enqueue("aspects", epoch, self.proposals)
        self.holder = {}
        self.complete = {}

    def sql(self, statement):
        with closing(Database(self.url)) as database, database.writing() as connection:
            connection.execute(text(statement))

    @rule(target=orders, worker=st.sampled_from("ab"))
    def lease(self, worker):
        order = self.store.lease(worker, "aspects", 100.0)
        if order is None:
            return None
        assert order.number not in self.holder
        assert order.number not in self.complete
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
        if self.by_holder(order, lambda *key: self.store.report(*key, Measurement(0, {"accuracy": value}))):
            self.complete[order.number] = value
            del self.holder[order.number]

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
        if self.by_holder(order, self.store.hand_back):
            del self.holder[order.number]

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
            if trial.number in self.complete:
                assert trial.values == {"accuracy": self.complete[trial.number]}

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
    machine = machine_of(make, make_study(), make_proposals(TRIALS), tools.verify_invariants)
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
