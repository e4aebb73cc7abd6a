"""States that are read are those that would be computed; other rows have other keys; a wrong file is never read."""

import errno
import multiprocessing
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.settings import CacheMode
from autopeft.study import Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.cost import frozen_layer_count
from search_spaces.methods.lora import DATA_DRIVEN, Lora
from workers.backbones import load_resident
from workers.batches import training_order
from workers.caching import StateCache, rows_sha256
from workers.evaluate import evaluate
from workers.inside import Inside
from workers.shelf import Shelf
from workers.states import KeptStates, StatesFile

CPU = torch.device("cpu")
FAMILIES = [
    ("bert", "mean"),
    ("bert", "stock"),
    ("roberta", "mean"),
    ("roberta", "stock"),
    ("distilbert", "stock"),
    ("electra", "mean"),
    ("llama", "mean"),
    ("llama", "stock"),
]


def upper(study, rate=2e-2, **options):
    """LoRA in the last layer only."""
    plan = LayerPlan(tuple(Placement(role, Lora(2, 4.0, **options)) for role in ("query", "value")))
    return Configuration((LayerPlan(),) * (study.backbone.layer_count - 1) + (plan,), Training(rate))


def empty(study):
    return Configuration((LayerPlan(),) * study.backbone.layer_count, Training(2e-2))


@pytest.fixture
def cached(tmp_path):
    """A resident whose states are kept in a folder of the test's own."""

    def make(study, mode=CacheMode.FP32, quota=10**9):
        resident = load_resident(study, CPU, mode)
        object.__setattr__(resident.states, "shelf", Shelf(tmp_path / "states", quota))
        return resident

    return make


def difference(first, second, steps=None):
    """Largest difference of the losses, step by step."""
    ours, theirs = (np.array([loss for _, loss in measured.curve][:steps]) for measured in (first, second))
    return np.abs(ours - theirs).max()


@pytest.mark.parametrize(("family", "pooling"), FAMILIES)
@pytest.mark.parametrize("plan", [upper, empty])
def test_a_trial_comes_out_the_same_with_kept_states(make_study, make_order, cached, tmp_path, family, pooling, plan):
    study = make_study(family, pooling, fidelity=Fidelity(20, 8, 32))
    order = make_order(study, plan(study))
    plain = evaluate(order, load_resident(study, CPU, CacheMode.OFF), tmp_path)
    exact = evaluate(order, cached(study), tmp_path)
    rounded = evaluate(order, cached(study, CacheMode.FP16), tmp_path)
    assert plain.details["execution"]["states"] == "computed"
    assert exact.details["execution"]["states"] == "fp32"
    assert rounded.details["execution"]["states"] == "fp16"
    assert difference(plain, exact) <= 1e-6
    assert difference(plain, rounded, steps=10) <= 1e-4
    assert exact.values["loss"] == pytest.approx(plain.values["loss"], abs=1e-6)
    assert exact.correct == plain.correct


def test_layers_below_do_not_run_while_states_are_read(make_order, study, cached, tmp_path):
    resident = cached(study)
    evaluate(make_order(study, upper(study)), resident, tmp_path)
    calls = []
    encoder = resident.classifier.model.encoder
    inner = encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(0))
    upper_layer = encoder.layer[1].attention.register_forward_hook(lambda *_: calls.append(1))
    evaluate(make_order(study, upper(study), number=1), resident, tmp_path)
    assert set(calls) == {1}
    evaluate(make_order(study), resident, tmp_path)
    assert 0 in calls
    inner.remove()
    upper_layer.remove()


def test_states_are_built_once_for_all_residents_of_a_host(make_order, study, cached, tmp_path, monkeypatch):
    evaluate(make_order(study, upper(study)), cached(study), tmp_path)
    monkeypatch.setattr(StateCache, "_build", lambda *_: pytest.fail("built again"))
    again = evaluate(make_order(study, upper(study), number=1), cached(study), tmp_path)
    assert again.details["execution"]["states"] == "fp32"


def test_the_lowest_layer_that_holds_an_adapter_decides(study):
    assert frozen_layer_count(upper(study)) == 1
    assert frozen_layer_count(empty(study)) == 2
    assert frozen_layer_count(uniform(study.backbone, ("query",), Lora(1, 2.0), 1e-3)) == 0


@pytest.mark.parametrize("init", DATA_DRIVEN)
def test_starts_that_read_rows_are_the_same(make_study, make_order, cached, tmp_path, init):
    study = make_study(fidelity=Fidelity(4, 8, 32))
    order = make_order(study, upper(study, init=init))
    plain = evaluate(order, load_resident(study, CPU, CacheMode.OFF), tmp_path)
    assert difference(plain, evaluate(order, cached(study), tmp_path)) <= 1e-5


def test_the_key_changes_with_each_of_its_parts(make_study, cached):
    resident = cached(make_study())
    cache = resident.states
    parts = [
        cache.key_parts(resident.train, 1),
        cache.key_parts(resident.train, 2),
        cache.key_parts(resident.validation, 1),
        cache.key_parts(resident.train.take(np.arange(59)), 1),
        replace(cache, backbone_sha256="0" * 64).key_parts(resident.train, 1),
        replace(cache, mode=CacheMode.FP16).key_parts(resident.train, 1),
        cached(make_study(fidelity=Fidelity(12, 8, 6))).states.key_parts(
            cached(make_study(fidelity=Fidelity(12, 8, 6))).train, 1
        ),
    ]
    assert len({str(part) for part in parts}) == len(parts)
    assert set(parts[0]) == {"code", "backbone", "rows", "layer", "type", "arithmetic", "device", "versions"}


def test_rows_that_take_the_place_of_others_in_memory_are_not_taken_for_them(study, cached):
    resident = cached(study)
    for start in range(0, 48, 3):
        some = resident.train.take(np.arange(start, start + 9))
        begun = replace(resident, train=some, validation=resident.validation).beginning_at(1)
        plain, _ = some.batch(np.arange(9), CPU)
        carried, _ = begun.train.batch(np.arange(9), CPU)
        assert resident.states.key_parts(some, 1)["rows"] == rows_sha256(some)
        assert carried["entering_states"].shape[:2] == plain["input_ids"].shape
        del some, begun


def test_rows_with_other_ids_types_or_padding_have_another_hash(resident):
    rows = resident.train
    swapped = replace(rows, ids=[list(reversed(rows.ids[0])), *rows.ids[1:]])
    moved = replace(rows, ids=[[*rows.ids[0], rows.ids[1][0]], rows.ids[1][1:], *rows.ids[2:]])
    untyped = replace(rows, types=None)
    assert len({rows_sha256(r) for r in (rows, swapped, moved, untyped, replace(rows, padding=9))}) == 5


def test_a_damaged_file_is_built_anew(make_order, study, cached, tmp_path):
    first = evaluate(make_order(study, upper(study)), cached(study), tmp_path)
    for file in (tmp_path / "states").glob("*/values.npy"):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    again = evaluate(make_order(study, upper(study)), cached(study), tmp_path)
    assert again.curve == first.curve


def test_a_full_disk_means_computing_with_a_note(make_order, study, cached, tmp_path, monkeypatch, caplog):
    plain = evaluate(make_order(study, upper(study)), load_resident(study, CPU, CacheMode.OFF), tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StatesFile, "put", full)
    found = evaluate(make_order(study, upper(study)), cached(study), tmp_path)
    assert "No space left" in found.details["execution"]["why"]
    assert "are not kept" in caplog.text
    assert found.curve == plain.curve
    assert not list((tmp_path / "states").glob("*/values.npy"))


def test_a_quota_that_is_too_small_means_computing(make_order, study, cached, tmp_path):
    found = evaluate(make_order(study, upper(study)), cached(study, quota=100), tmp_path)
    assert "quota" in found.details["execution"]["why"]


def test_states_that_are_evicted_in_the_middle_of_a_trial_do_not_harm_it(make_order, study, cached, tmp_path):
    plain = evaluate(make_order(study, upper(study)), cached(study), tmp_path)

    def evict(step):
        if step == 2:
            shutil.rmtree(tmp_path / "states")

    found = evaluate(make_order(study, upper(study)), cached(study), tmp_path, evict)
    assert found.curve == plain.curve
    assert found.values["loss"] == plain.values["loss"]


def test_a_build_can_be_given_up_and_leaves_nothing(make_order, study, cached, tmp_path):
    def enough(_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(make_order(study, upper(study)), cached(study), tmp_path, enough)
    assert not [folder for folder in (tmp_path / "states").iterdir() if folder.is_dir()]


def test_values_too_large_for_half_precision_are_refused(tmp_path):
    file = StatesFile(tmp_path, np.array([2]), 1, np.float16)
    with pytest.raises(ValueError, match="do not fit float16"):
        file.put(np.array([0]), torch.tensor([[[1.0], [1e6]]]))


def test_states_come_back_ragged_and_in_any_order(tmp_path):
    lengths = np.array([2, 1, 3])
    file = StatesFile(tmp_path, lengths, 2, np.float32)
    states = torch.arange(18.0).reshape(3, 3, 2)
    file.put(np.array([2, 0]), states[[2, 0]])
    file.put(np.array([1]), states[[1]])
    file.close(torch.float32)
    kept = KeptStates.open(tmp_path)
    found = kept.batch(np.array([1, 2]))
    assert found.shape == (2, 3, 2)
    assert torch.equal(found[0], torch.cat([states[1, :1], torch.zeros(2, 2)]))
    assert torch.equal(found[1], states[2])
    assert torch.equal(kept.take(np.array([2, 0])).batch(np.array([1]))[0], states[0, :2])


def test_automatic_reads_where_that_is_quicker(study, cached, monkeypatch, tmp_path):
    resident = cached(study, CacheMode.AUTO)
    monkeypatch.setattr(Shelf, "read_bytes_per_second", lambda _self: 1e15)
    assert resident.beginning_at(1).begun["states"] == "fp32"
    shutil.rmtree(tmp_path / "states")
    resident = cached(study, CacheMode.AUTO)
    monkeypatch.setattr(Shelf, "read_bytes_per_second", lambda _self: 1.0)
    begun = resident.beginning_at(1)
    assert begun.begun["states"] == "computed"
    assert begun.begun["why"].startswith("reading 16 rows takes")
    assert begun.train.entering is None


@pytest.mark.parametrize(("speeds", "states"), [((1e15, 1.0), "fp32"), ((1.0, 1e15), "computed")])
def test_what_was_quicker_once_holds_for_all_workers_of_a_cache_folder(study, cached, monkeypatch, speeds, states):
    found = []
    for speed in speeds:
        monkeypatch.setattr(Shelf, "read_bytes_per_second", lambda _self, speed=speed: speed)
        found.append(cached(study, CacheMode.AUTO).beginning_at(1).begun)
    assert found[0] == found[1]
    assert found[0]["states"] == states


def test_what_cannot_be_kept_is_computed_and_measured_again_later(study, cached, monkeypatch):
    def fail(_self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Shelf, "read_bytes_per_second", fail)
    assert cached(study, CacheMode.AUTO).beginning_at(1).begun["why"].startswith("nothing can be kept: ")
    monkeypatch.setattr(Shelf, "read_bytes_per_second", lambda _self: 1e15)
    assert cached(study, CacheMode.AUTO).beginning_at(1).begun["states"] == "fp32"


def test_a_family_that_refuses_is_computed(make_study, make_order, cached, tmp_path):
    study = make_study("t5", "stock")
    plan = Configuration((LayerPlan(),) * 3 + (LayerPlan((Placement("query", Lora(1, 2.0)),)),), Training(1e-2))
    found = evaluate(make_order(study, plan), cached(study), tmp_path)
    assert "two stacks" in found.details["execution"]["why"]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_states_built_from_a_lower_layer_s_are_those_built_from_the_beginning(make_study, cached, tmp_path, family):
    study, first = make_study(family), np.arange(60)
    whole = cached(study).beginning_at(2).train.entering.batch(first).clone()
    shutil.rmtree(tmp_path / "states")
    resident = cached(study)
    resident.beginning_at(1)
    layers = getattr(resident.classifier.model, "layers", None) or resident.classifier.model.encoder.layer
    calls = []
    next(layers[0].children()).register_forward_hook(lambda *_: calls.append(0))
    stepwise = resident.beginning_at(2).train.entering.batch(first)
    assert len(calls) <= 2  # to see the width
    assert torch.equal(stepwise, whole)


def build(root, study_json, results):
    from autopeft.study import Study

    study = Study.from_json(study_json)
    resident = load_resident(study, CPU, CacheMode.FP32)
    object.__setattr__(resident.states, "shelf", Shelf(root, 10**9))
    begun = resident.beginning_at(1)
    order = training_order(begun.train.lengths, 8, 1, 0, 0)[0]
    results.put(begun.train.entering.batch(order).double().sum().item())


@pytest.mark.slow
def test_two_workers_that_build_at_once_read_the_same(study, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=build, args=(tmp_path / "s", study.to_json(), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=400) for _ in workers]
    for worker in workers:
        worker.join()
    assert sums[0] == sums[1]


def test_a_trial_that_changes_the_backbone_is_no_measurement(study, make_order, tmp_path, monkeypatch):
    inside = Inside("cpu", tmp_path)
    order = make_order(study)
    _, environment = inside.measure(order, lambda _: None)
    assert environment["states"] == "exact"

    def harmful(order, resident, *rest):
        with torch.no_grad():
            next(iter(resident.classifier.model.encoder.layer[1].parameters()))[0] += 1e-3
        return evaluate(order, resident, *rest)

    monkeypatch.setattr("workers.inside.evaluate", harmful)
    with pytest.raises(Exception, match=r"changed frozen weights of the backbone: encoder\.layer\.1"):
        inside.measure(order, lambda _: None)
    monkeypatch.setattr("workers.inside.evaluate", evaluate)
    again, _ = inside.measure(make_order(study, attempt=2), lambda _: None)
    assert again.curve == inside.measure(order, lambda _: None)[0].curve


def test_seconds_of_inference_are_those_of_a_whole_pass_or_not_told(make_study, make_order, cached, tmp_path):
    study = make_study()
    assert "inference_seconds" not in evaluate(make_order(study, upper(study)), cached(study), tmp_path).values
    limited = make_study(limits={"inference_seconds": 1.0})
    resident, seen = cached(limited), []
    hook = resident.classifier.model.encoder.layer[0].attention.register_forward_hook(lambda *_: seen.append(1))
    found = evaluate(make_order(limited, upper(limited)), resident, tmp_path)
    hook.remove()
    assert found.values["inference_seconds"] == found.values["evaluate_seconds"] / 30
    assert found.details["execution"]["states"] == "fp32"
    assert len(seen) >= 1  # the last batches: those that were scored
    unread = resident.beginning_at(1, timed=True)
    assert unread.train.entering is not None and unread.validation.entering is None
