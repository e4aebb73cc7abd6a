"""IST: what a step updates, what a probe learns, and what neither may touch (METHODS of arXiv 2410.11772)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from autopeft.adapters import adapter_parameters, load_adapter, remove
from autopeft.adapters.head import Classifier
from autopeft.adapters.layers import parts_by_layer
from autopeft.adapters.saving import read_tensors
from autopeft.errors import EvaluationError
from autopeft.study import IMPORTANCE, Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from workers.backbones import load_resident
from workers.batches import EncodedRows
from workers.evaluate import evaluate
from workers.importance import HeldOut, ImportanceLoop, different_sets, hold_out, importance_loop, learned
from workers.memory import MemoryMeter
from workers.training import train

CPU = torch.device("cpu")
WIDE = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 40}


def deep_classifier(layer_count=8):
    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=layer_count, max_position_embeddings=40, **WIDE))
    return Classifier(model, 2, None)


def random_rows(count, length=24):
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 40, (count, length)).tolist()
    return EncodedRows(ids, None, torch.tensor(generator.integers(0, 2, count)), 0)


MODULES = ("query", "key", "value", "up", "down")
"""Where the authors put LoRA."""


def plan(layer_count, schedule=None, roles=MODULES):
    from autopeft.adapters.anatomy import describe

    backbone = describe(deep_classifier(layer_count).model, "deep")
    plain = uniform(backbone, roles, Lora(2, 4.0), 1e-2)
    return replace(plain, training=Training(1e-2, schedule))


@pytest.fixture
def deep():
    """A classifier of eight layers with LoRA everywhere, rows, and what is held out."""
    classifier, rows = deep_classifier(), random_rows(64)
    schedule = UpdateSchedule(interval=2)
    classifier.adapt(plan(8), seed=1)
    return classifier, rows, hold_out(64, schedule, 0)


def loop_of(deep, schedule):
    classifier, rows, held_out = deep
    return ImportanceLoop(classifier, schedule, rows, held_out, seed=3)


def order_of(held_out, steps):
    return np.resize(held_out.trained, (steps, 8))


def test_importance_rises_where_suppression_costs_more_than_the_average():
    importance = learned(np.zeros(3), [(0, 1), (1, 2)], [0.9, 0.5], step_size=10)
    assert importance == pytest.approx([10 * 0.2 * 0.25, 0.0, -10 * 0.2 * 0.25])


def test_the_slope_is_that_of_the_importance_before_the_probe():
    before = np.array([2.0, 0.0])
    share = 1 / (1 + np.exp(-2.0))
    after = learned(before, [(0,), (1,)], [1.0, 0.0], step_size=1)
    assert after == pytest.approx([2.0 + 0.5 * share * (1 - share), -0.125])


@pytest.mark.parametrize("losses", [[0.7, 0.7, 0.7], [0.1, float("nan"), 0.2], [0.1, float("inf"), 0.2]])
def test_losses_that_say_nothing_teach_nothing(losses):
    before = np.array([0.3, -0.2, 0.1])
    assert learned(before, [(0,), (1,), (2,)], losses, 10) is before


def test_importance_is_bounded():
    importance = np.zeros(2)
    for _ in range(100):
        importance = learned(importance, [(0,), (1,)], [1e6, 0.0], 1000)
    assert np.abs(importance).max() <= 20


def test_sets_are_different_and_prefer_the_less_important():
    generator = np.random.default_rng(0)
    sets = [different_sets(generator, np.array([0.9, 0.9, 0.1, 0.1]), 2, 3) for _ in range(300)]
    assert all(len(set(drawn)) == 3 for drawn in sets)
    first = [drawn[0] for drawn in sets]
    assert first.count((0, 1)) > 5 * max(1, first.count((2, 3)))


def test_all_sets_there_are_can_be_asked_for():
    assert different_sets(np.random.default_rng(0), np.array([0.99, 0.01]), 1, 2) in ([(0,), (1,)], [(1,), (0,)])


def test_a_suppression_that_suppresses_nothing_teaches_nothing(deep):
    loop = loop_of(deep, UpdateSchedule(interval=2, suppression_factor=1))
    train(deep[0], deep[1], order_of(deep[2], 9), 1e-2, updates=loop)
    assert loop.importance.tolist() == [0.0] * 8
    assert loop.record(0, order_of(deep[2], 1))["probes"] == 4


def test_only_the_layers_of_a_step_get_gradients(deep):
    classifier, rows, held_out = deep
    loop = loop_of(deep, UpdateSchedule(update_fraction=0.25, interval=3))
    by_layer = parts_by_layer(classifier.model)
    seen = []

    def look(_done):
        updated = [
            layer
            for layer, parts in enumerate(by_layer)
            if any(p.grad is not None for part in parts for p in part.parameters().values())
        ]
        seen.append(tuple(updated))
        assert all(parameter.grad is not None for parameter in classifier.head_parameters().values())

    train(classifier, rows, order_of(held_out, 12), 1e-2, look, updates=loop)
    assert {len(updated) for updated in seen} == {2}
    assert len(set(seen)) > 3
    counts = loop.record(0, order_of(held_out, 1))["updates"]
    assert sum(counts) == 24
    assert counts == [sum(layer in updated for updated in seen) for layer in range(8)]


def test_what_a_step_freezes_stays_as_it_is(deep):
    classifier, rows, held_out = deep
    loop = loop_of(deep, UpdateSchedule(update_fraction=0.25, step_size=0))
    before = {name: value.detach().clone() for name, value in adapter_parameters(classifier.model).items()}
    train(classifier, rows, order_of(held_out, 1), 1e-2, updates=loop)
    changed = {
        name for name, value in adapter_parameters(classifier.model).items() if not torch.equal(value, before[name])
    }
    layers = {int(name.split(".")[2]) for name in changed}
    assert len(layers) == 2


def test_every_layer_and_no_learning_is_plain_training_bit_for_bit(deep):
    trained = []
    for schedule in (None, UpdateSchedule(update_fraction=1, step_size=0)):
        classifier, rows = deep_classifier(), deep[1]
        classifier.adapt(plan(8), seed=1)
        order = np.resize(np.arange(64), (10, 8))
        held_out = HeldOut(np.arange(64), np.arange(0))
        more = {} if schedule is None else {"updates": ImportanceLoop(classifier, schedule, rows, held_out, 0)}
        curve = train(classifier, rows, order, 1e-2, **more)
        trained.append((curve, {n: p.detach().clone() for n, p in classifier.trained_parameters().items()}))
    assert trained[0][0] == trained[1][0]
    assert all(torch.equal(value, trained[1][1][name]) for name, value in trained[0][1].items())


def test_probes_change_no_value_and_no_gradient_setting_but_the_importance(deep):
    classifier = deep[0]
    loop = loop_of(deep, UpdateSchedule(interval=2))
    with torch.no_grad():
        for parameter in adapter_parameters(classifier.model).values():
            parameter.add_(0.1)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    loop.probe(2)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.requires_grad for parameter in adapter_parameters(classifier.model).values())
    assert np.abs(loop.importance).max() > 0


def test_a_layer_whose_suppression_raises_the_loss_becomes_the_most_important(deep):
    loop = loop_of(deep, UpdateSchedule(interval=1, step_size=1))
    loop._losses = lambda sets, _rows: [1.0 if 5 in suppressed else 0.5 for suppressed in sets]
    for step in range(1, 60):
        loop.probe(step)
    assert int(np.argmax(loop.importance)) == 5
    assert loop.importance[5] > 0 > np.median(np.delete(loop.importance, 5))


def test_rows_held_out_are_training_rows_that_no_step_reads():
    held_out = hold_out(60, UpdateSchedule(), seed=5)
    assert len(held_out.probed) == 16
    assert sorted([*held_out.probed, *held_out.trained]) == list(range(60))
    order = held_out.order(np.ones(60, dtype=np.int64), Fidelity(20, 8, 32), 5, 0)
    assert not set(order.ravel()) & set(held_out.probed)
    assert hold_out(60, UpdateSchedule(update_fraction=0.5), 5).sha256 == held_out.sha256
    assert hold_out(60, UpdateSchedule(), 6).sha256 != held_out.sha256


def test_what_learns_nothing_holds_nothing_out():
    for schedule in (None, UpdateSchedule(step_size=0)):
        assert len(hold_out(60, schedule, 5).probed) == 0


def test_few_rows_are_shared_and_one_row_is_refused():
    assert len(hold_out(10, UpdateSchedule(), 0).probed) == 5
    with pytest.raises(EvaluationError, match=r"1 training row: .*at least 2"):
        hold_out(1, UpdateSchedule(), 0)


def test_probes_read_held_out_rows_alone_and_all_of_them_in_turn(deep):
    loop, read = loop_of(deep, UpdateSchedule(interval=2)), []
    batch = EncodedRows.batch
    rows = deep[1]
    loop._rows = type(
        "Spy", (), {"batch": lambda _, chosen, device: (read.append(chosen), batch(rows, chosen, device))[1]}
    )()
    loop._held_out = HeldOut(np.arange(24), np.arange(24, 64))
    for step in (2, 4, 6, 8, 10):
        loop.probe(step)
    seen = np.concatenate(read)
    assert set(seen) == set(range(24, 64))
    assert len(seen) == 80
    assert np.bincount(seen)[24:].tolist() == [2] * 40


def test_runs_of_one_seed_are_equal_and_another_differs(deep):
    vectors = []
    for seed in (3, 3, 4):
        classifier = deep_classifier()
        classifier.adapt(plan(8), seed=1)
        loop = ImportanceLoop(classifier, UpdateSchedule(interval=2), deep[1], deep[2], seed)
        train(classifier, deep[1], order_of(deep[2], 12), 1e-2, updates=loop)
        vectors.append(loop.vector)
    assert vectors[0] == vectors[1] != vectors[2]


def saved_bytes(schedule):
    classifier, rows = deep_classifier(), random_rows(64)
    configuration = plan(8, schedule)
    classifier.adapt(configuration, seed=1)
    held_out = hold_out(64, schedule, 0)
    loop, meter = importance_loop(classifier, configuration, rows, held_out, 0), MemoryMeter(classifier, CPU)
    order = order_of(held_out, 24)
    train(classifier, rows, order, 1e-2, meter=meter, **({} if loop is None else {"updates": loop}))
    return meter, loop and loop.record(meter.saved_bytes, order)


def test_a_quarter_of_the_layers_keeps_a_fifth_less_for_the_backward_pass():
    plain, _ = saved_bytes(None)
    sparse, record = saved_bytes(UpdateSchedule(update_fraction=0.25))
    assert record["saved_bytes"] == sparse.saved_bytes <= 0.8 * plain.saved_bytes
    assert record["saved_bytes_of_all"] == plain.saved_bytes
    assert sparse.peak_bytes < plain.peak_bytes
    assert record["active_parameters"] == pytest.approx(record["parameters"] / 4)


@pytest.mark.parametrize("layers", [1, 2])
def test_shallow_backbones_come_to_an_end(layers):
    classifier, rows, schedule = (
        deep_classifier(layers),
        random_rows(40),
        UpdateSchedule(interval=2, update_fraction=0.125),
    )
    classifier.adapt(plan(layers, schedule), seed=1)
    held_out = hold_out(40, schedule, 0)
    loop = ImportanceLoop(classifier, schedule, rows, held_out, 0)
    train(classifier, rows, order_of(held_out, 6), 1e-2, updates=loop)
    assert sum(loop.record(0, order_of(held_out, 1))["updates"]) == 6


def sparse_order(make_study, make_order, schedule, **fields):
    study = make_study(**fields)
    plain = uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
    return make_order(study, replace(plain, training=Training(2e-2, schedule)))


def test_a_trial_keeps_what_it_learned_beside_its_full_count(make_study, make_order, tmp_path):
    order = sparse_order(make_study, make_order, UpdateSchedule(update_fraction=0.5, interval=3))
    resident = load_resident(order.study, CPU)
    measurement = evaluate(order, resident, tmp_path)
    found = measurement.details[IMPORTANCE]
    count = trainable_parameters(order.configuration, order.study.backbone)
    assert measurement.values["trainable_parameters"] == found["parameters"] == count
    assert found["active_parameters"] == count / 2
    assert [len(found[name]) for name in ("importance", "updates")] == [2, 2]
    assert found["probes"] == 3
    assert found["held_out_rows"] == 16
    assert evaluate(order, resident, tmp_path / "again").details == measurement.details


def test_a_saved_adapter_is_one_of_a_plain_run_but_for_its_values(make_study, make_order, tmp_path):
    order = sparse_order(make_study, make_order, UpdateSchedule(update_fraction=0.5, interval=3))
    resident = load_resident(order.study, CPU)
    plain = replace(order, configuration=replace(order.configuration, training=Training(2e-2)), number=1)
    folders = [tmp_path / evaluate(each, resident, tmp_path).artifact for each in (order, plain)]
    tensors = [read_tensors(folder / "adapter.safetensors") for folder in folders]
    assert {n: t.shape for n, t in tensors[0].items()} == {n: t.shape for n, t in tensors[1].items()}
    model = resident.classifier.model
    assert load_adapter(model, folders[0]) == order.configuration
    assert all(torch.equal(value, tensors[0][name]) for name, value in adapter_parameters(model).items())
    remove(model)


def test_a_schedule_with_no_adapter_at_all_trains_the_head(make_study, make_order, tmp_path):
    study = make_study()
    empty = Configuration((LayerPlan(),) * 2, Training(1e-2, UpdateSchedule()))
    measurement = evaluate(make_order(study, empty), load_resident(study, CPU), tmp_path)
    assert measurement.details[IMPORTANCE]["importance"] == [None, None]
    assert measurement.curve
