"""The story of a pack, in this process: what each trial is told, against the same trials alone."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from autopeft.adapters.saving import ADAPTER_FILE
from autopeft.errors import DivergedError, LeaseLostError, OutOfMemoryError
from autopeft.fidelity import Fidelity
from autopeft.objectives import PARAMETERS
from autopeft.settings import CacheMode
from autopeft.study import EXECUTION, Checkpoint, Measurement
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lora import Lora
from search_spaces.methods.prefix import Prefix
from workers.inside import Inside
from workers.pack import inside as together
from workers.pack.evaluate import PACK
from workers.pack.inside import PackInside
from workers.stopping import Preempted


@pytest.fixture
def orders(study, make_order):
    return orders_of(study, make_order)


def orders_of(study, make_order, rungs=(0, 0, 0)):
    plans = [
        uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2),
        uniform(study.backbone, ("query", "down"), Ia3(), 5e-2),
        uniform(study.backbone, ("attention",), Prefix(2), 1e-2),
    ]
    return [
        replace(make_order(study, plan, number=n), rung=rung)
        for n, (plan, rung) in enumerate(zip(plans, rungs, strict=True))
    ]


def stay(_order):
    pass


def told_of(evaluator, orders, check=stay):
    told = {}
    evaluator.evaluate_together(orders, check, lambda order, outcome: told.update({order.number: outcome}))
    return told


def assert_same(mine, own):
    (mine, rests_on), (own, also) = mine, own
    assert rests_on == also
    assert mine.values["accuracy"] == own.values["accuracy"]
    assert mine.values["loss"] == pytest.approx(own.values["loss"], abs=1e-4)
    assert mine.values[PARAMETERS] == own.values[PARAMETERS]
    assert mine.correct == own.correct
    assert [step for step, _ in mine.curve] == [step for step, _ in own.curve]
    assert [loss for _, loss in mine.curve] == pytest.approx([loss for _, loss in own.curve], abs=1e-5)


def test_every_trial_is_measured_as_it_would_be_alone(orders, tmp_path):
    alone = [Inside("cpu", tmp_path / "alone").measure(order, lambda _: None) for order in orders]
    told = told_of(PackInside("cpu", tmp_path / "together"), orders)
    assert sorted(told) == [0, 1, 2]
    for number, own in enumerate(alone):
        assert_same(told[number], own)
        measured = told[number][0]
        assert measured.details[EXECUTION][PACK] == 3
        assert "peak_memory" not in measured.values
        mine, theirs = (
            load_file(folder / found.artifact / ADAPTER_FILE)
            for folder, found in ((tmp_path / "together", measured), (tmp_path / "alone", own[0]))
        )
        assert set(mine) == set(theirs)
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-4)


def test_a_regression_is_measured_together(make_study, make_order, regression_folder, tmp_path):
    study = make_study(task=regression_folder)
    orders = orders_of(study, make_order)
    told = told_of(PackInside("cpu", tmp_path / "together"), orders)
    for order in orders:
        own, _ = Inside("cpu", tmp_path / "alone").measure(order, lambda _: None)
        assert told[order.number][0].values[study.metric] == pytest.approx(own.values[study.metric], abs=1e-4)
        assert told[order.number][0].values["loss"] == pytest.approx(own.values["loss"], abs=1e-5)


def test_states_of_the_lowest_layer_of_all_are_read(study, make_order, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_CACHE_DIR", str(tmp_path / "cache"))
    upper = [
        Configuration((LayerPlan(), LayerPlan((Placement(site, method),))), Training(2e-2))
        for site, method in (("query", Lora(2, 4.0)), ("down", Lora(1, 2.0)))
    ]
    orders = [make_order(study, plan, number=number) for number, plan in enumerate(upper)]
    alone = [Inside("cpu", tmp_path / "alone", CacheMode.OFF).measure(order, lambda _: None) for order in orders]
    told = told_of(PackInside("cpu", tmp_path / "together", CacheMode.FP32), orders)
    for number, own in enumerate(alone):
        assert_same(told[number], own)
        assert told[number][0].details[EXECUTION]["states"] == "fp32"
        assert told[number][0].details[EXECUTION]["layer"] == 1


def test_a_lower_rung_leaves_a_checkpoint_that_goes_on_alone_and_together(make_study, make_order, tmp_path):
    study = make_study(fidelity=Fidelity(steps=12, batch_size=8, max_length=32, ladder=(6,)))
    low = orders_of(study, make_order)
    alone = [Inside("cpu", tmp_path / "alone").measure(replace(order, rung=1), lambda _: None) for order in low]
    evaluator = PackInside("cpu", tmp_path)
    paused = told_of(evaluator, low)
    high = [
        replace(order, rung=1, attempt=2, checkpoints=(Checkpoint(0, found.artifact, found.sha256),))
        for order, (found, _) in zip(low, paused.values(), strict=True)
    ]
    for own, mine in zip(alone, told_of(evaluator, high).values(), strict=True):
        assert_same(mine, own)
    for own, order in zip(alone, high, strict=True):
        assert_same(Inside("cpu", tmp_path).measure(order, lambda _: None), own)


def test_each_ends_at_its_own_rung(make_study, make_order, tmp_path):
    study = make_study(fidelity=Fidelity(steps=12, batch_size=8, max_length=32, ladder=(6,)))
    orders = orders_of(study, make_order, rungs=(0, 1, 0))
    alone = [Inside("cpu", tmp_path / "alone").measure(order, lambda _: None) for order in orders]
    told = told_of(PackInside("cpu", tmp_path), orders)
    assert list(told) == [0, 2, 1]
    for number, own in enumerate(alone):
        assert_same(told[number], own)


def test_who_diverges_is_told_so_and_the_others_are_measured(orders, tmp_path):
    wild = replace(orders[1].configuration.training, learning_rate=1.0)
    orders[1] = replace(orders[1], configuration=replace(orders[1].configuration, training=wild))
    alone = Inside("cpu", tmp_path / "alone").measure(orders[0], lambda _: None)
    evaluator = PackInside("cpu", tmp_path)
    resident = evaluator._resident_of(orders[0])
    resident.classifier.model.encoder.layer[1].register_forward_hook(lambda _module, _inputs, output: poisoned(output))

    def poisoned(output):
        rows = len(output) // 3
        if len(output) == 24:  # three members of eight rows each
            return torch.cat([output[:rows], output[rows : 2 * rows] * float("nan"), output[2 * rows :]])
        return output

    told = told_of(evaluator, orders)
    assert isinstance(told[1], DivergedError)
    assert_same(told[0], alone)
    assert isinstance(told[2][0], Measurement)


def test_who_is_given_up_leaves_a_checkpoint_and_who_lost_its_lease_leaves_nothing(orders, tmp_path):
    asked = {"times": 0}

    def check(order):
        asked["times"] += order.number == 0
        if asked["times"] > 5:
            if order.number == 1:
                raise Preempted("the worker was asked to stop", keep=True)
            if order.number == 2:
                raise LeaseLostError("the lease was lost")

    told = told_of(PackInside("cpu", tmp_path), orders, check)
    assert isinstance(told[0][0], Measurement)
    assert isinstance(told[2], LeaseLostError)
    assert isinstance(told[1], Preempted)
    going_on = replace(orders[1], attempt=2, checkpoints=(told[1].checkpoint,))
    again, _ = Inside("cpu", tmp_path).measure(going_on, lambda _: None)
    assert again.details["training"]["from_step"] > 0
    whole, _ = Inside("cpu", tmp_path / "alone").measure(orders[1], lambda _: None)
    assert [loss for _, loss in again.curve] == pytest.approx([loss for _, loss in whole.curve], abs=1e-5)


def test_a_pack_that_is_stopped_leaves_whole_before_it_has_begun(orders, tmp_path):
    def check(_order):
        raise Preempted("the worker was asked to stop", keep=True)

    told = told_of(PackInside("cpu", tmp_path), orders, check)
    assert [type(outcome) for outcome in told.values()] == [Preempted] * 3


def test_without_memory_for_all_each_goes_on_alone(orders, tmp_path, monkeypatch, caplog):
    def too_much(*_arguments):
        raise OutOfMemoryError("out of memory: 64 of them")

    monkeypatch.setattr(together, "evaluate_pack", too_much)
    told = told_of(PackInside("cpu", tmp_path), orders)
    assert [outcome[0].details[EXECUTION].get(PACK) for outcome in told.values()] == [None] * 3
    assert "each goes on alone" in caplog.text


def test_what_fails_for_all_is_told_to_all(orders, tmp_path, monkeypatch):
    def wrong(*_arguments):
        raise ValueError("planted")

    monkeypatch.setattr(together, "evaluate_pack", wrong)
    told = told_of(PackInside("cpu", tmp_path), orders)
    assert [str(outcome) for outcome in told.values()] == ["planted"] * 3


def test_shares_add_up_to_the_seconds_of_the_pack(orders, tmp_path, monkeypatch):
    evaluator, looks = PackInside("cpu", tmp_path), count()
    for module in ("evaluate", "member", "pack"):
        clock = SimpleNamespace(perf_counter=lambda: float(next(looks)))  # a second from one look to the next
        monkeypatch.setattr(f"workers.pack.{module}.time", clock)
    told = told_of(evaluator, orders)
    shares = [found.values["train_seconds"] + found.values["evaluate_seconds"] for found, _ in told.values()]
    assert sum(shares) == pytest.approx(next(looks) / 2)  # every second between two looks, and none twice
    assert shares == pytest.approx([sum(shares) / 3] * 3)
