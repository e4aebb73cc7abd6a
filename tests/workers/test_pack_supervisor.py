"""The supervisor of packs against a child that trains nothing and misbehaves as it is told."""

from functools import partial

import pytest

from autopeft.errors import BackboneError, LeaseLostError
from autopeft.store import Failure
from workers.failures import Unusable
from workers.pack import supervisor
from workers.pack.supervisor import PackSupervised
from workers.stopping import Preempted


@pytest.fixture
def supervise(stub_supervisors):
    return partial(stub_supervisors, PackSupervised)


@pytest.fixture
def orders(study, make_order):
    return [make_order(study, number=number) for number in range(3)]


def told_of(supervised, orders, check=lambda _order: None):
    told = {}
    supervised.evaluate_together(orders, check, lambda order, outcome: told.update({order.number: outcome}))
    return told


def accuracies(told):
    return {number: found[0].values["accuracy"] for number, found in told.items() if isinstance(found, tuple)}


def test_each_is_told_of_as_it_ends_and_the_child_stays(supervise, orders):
    one = supervise()
    assert accuracies(told_of(one, orders)) == {0: 0.5, 1: 0.501, 2: 0.502}
    child = one._child._process.pid
    assert accuracies(told_of(one, orders[1:])) == {1: 0.501, 2: 0.502}
    assert one.evaluate(orders[0], lambda: None)[0].values["accuracy"] == 0.5
    assert one._child._process.pid == child


def test_a_failure_of_one_is_its_own(supervise, orders):
    told = told_of(supervise(trial_0="diverge", trial_1="fail"), orders)
    assert (told[0].kind, told[1].kind) == (Failure.DIVERGED, Failure.EXCEPTION)
    assert "planted failure" in told[1].trace
    assert accuracies(told) == {2: 0.502}


def test_what_kills_the_child_is_told_of_all_that_had_not_ended(supervise, orders):
    one = supervise(steps=4, trial_0="diverge", trial_2="die")
    told = told_of(one, orders)
    assert told[0].kind is Failure.DIVERGED
    assert [told[number].kind for number in (1, 2)] == [Failure.LOST] * 2
    assert accuracies(told_of(one, orders[:1])) == {}  # a new child, with the same fault planted
    assert one._child is not None


def test_a_pack_that_hangs_is_killed(supervise, orders):
    told = told_of(supervise(hang_seconds=0.6, trial_1="hang"), orders)
    assert {found.kind for found in told.values()} == {Failure.HANG}


def test_what_cannot_be_used_is_told_of_each(supervise, orders):
    told = told_of(supervise(trial_1="unusable"), orders)
    assert isinstance(told[1], Unusable)
    assert isinstance(told[1].cause, BackboneError)
    assert accuracies(told) == {0: 0.5, 2: 0.502}


def test_who_is_given_up_leaves_with_where_it_stands_and_the_others_go_on(supervise, orders):
    def check(order):
        if order.number == 1:
            raise Preempted("the trial was cancelled", keep=True)
        if order.number == 2:
            raise LeaseLostError("the lease was lost")

    told = told_of(supervise(trial_0="last", trial_1="endless", trial_2="endless"), orders, check)
    assert told[1].checkpoint.path == "trial-1"
    assert isinstance(told[2], LeaseLostError)
    assert accuracies(told) == {0: 0.5}


def test_a_pack_that_does_not_listen_is_killed_when_all_of_it_was_given_up(supervise, orders, monkeypatch):
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.3)

    def check(_order):
        raise Preempted("the worker was asked to stop", keep=True)

    one = supervise(steps=6000, trial_0="stubborn", trial_1="stubborn", trial_2="stubborn")  # a minute
    told = told_of(one, orders, check)
    assert [type(found) for found in told.values()] == [Preempted] * 3
    assert one._child is None


def test_one_that_does_not_listen_is_waited_for_while_others_train(supervise, orders, monkeypatch):
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.1)

    def check(order):
        if order.number == 0:
            raise Preempted("the trial was cancelled")

    told = told_of(supervise(steps=6, seconds=0.1, trial_0="stubborn"), orders, check)
    assert {number: str(found) for number, found in told.items() if isinstance(found, Exception)} == {}
    assert accuracies(told) == {0: 0.5, 1: 0.501, 2: 0.502}
