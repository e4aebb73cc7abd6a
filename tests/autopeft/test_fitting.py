"""A regime is chosen by arithmetic: what fits is left alone, what does not is computed more sparingly or refused."""

from dataclasses import replace

import pytest

from autopeft.arranging import _widest, arranged, pack_size
from autopeft.errors import ConfigurationError
from autopeft.fitting import USABLE, Asked, Head, choose, predicted, require_room
from autopeft.launch import Gpus
from autopeft.regime import USUAL, Regime
from autopeft.settings import SearchSettings, merge
from autopeft.study import Fidelity, Study
from autopeft.tasks import TaskSpec, load_task
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

HEAD = Head("mean", 2)
GPU = Asked(halves=True)


@pytest.fixture
def study(make_study):
    return make_study(fidelity=Fidelity(2, 64, 256))


@pytest.fixture
def widest(study):
    return uniform(study.backbone, study.backbone.roles, Lora(2, 4.0), 1e-3)


def needed(study, widest, rows=64, **regime):
    return int(predicted(replace(study, regime=Regime(**regime)), widest, HEAD, rows).total / USABLE) + 1


def test_where_no_memory_is_known_nothing_is_chosen(study, widest):
    fit = choose(study, widest, HEAD, Asked(), None)
    assert (fit.regime, fit.micro_batch, fit.predicted) == (USUAL, None, None)
    packed = replace(study, model=replace(study.model, load_in="4bit"))
    assert choose(packed, widest, HEAD, Asked(), None).regime == Regime("fp32")


def test_what_fits_whole_is_left_whole(study, widest):
    fit = choose(study, widest, HEAD, GPU, needed(study, widest, precision="mixed"))
    assert (fit.regime, fit.micro_batch, fit.fits) == (Regime("mixed"), None, True)


def test_half_weights_come_before_divided_batches_and_those_before_layers_computed_anew(study, widest):
    one = choose(study, widest, HEAD, GPU, needed(study, widest, precision="mixed") - 2)
    assert (one.regime, one.micro_batch) == (Regime("bf16"), None)
    two = choose(study, widest, HEAD, GPU, needed(study, widest, precision="bf16") - 2)
    assert (two.regime.gradient_checkpointing, two.micro_batch) == (False, 32)
    three = choose(study, widest, HEAD, GPU, needed(study, widest, rows=1, precision="bf16") - 2)
    assert three.regime.gradient_checkpointing
    assert three.micro_batch is not None
    assert three.fits


def test_what_is_asked_for_is_not_chosen_otherwise(study, widest):
    memory = needed(study, widest, rows=16, precision="fp32", gradient_checkpointing=True)
    fit = choose(study, widest, HEAD, Asked("fp32", True, 1, halves=True), memory)
    assert (fit.regime, fit.micro_batch) == (Regime("fp32", True), 16)
    several = choose(
        study, widest, HEAD, Asked("fp32", False, gpus=2), needed(study, widest, precision="fp32") // 2 + 1
    )
    assert (several.regime, several.micro_batch) == (Regime("fp32", gpus=2), None)


def test_the_same_question_has_the_same_answer(study, widest):
    memory = needed(study, widest, rows=8, precision="bf16")
    assert len({choose(study, widest, HEAD, GPU, memory) for _ in range(5)}) == 1


def test_what_not_even_a_head_fits_on_is_refused_with_the_figures(study, widest):
    said = r"the head alone: training it is predicted to take .* GB even with one row of 256 tokens .*frozen weights"
    with pytest.raises(ConfigurationError, match=said + r".*try --load-in 4bit, --gpus-per-worker 2$"):
        choose(study, widest, HEAD, GPU, 5000)


def test_a_plan_that_fits_no_regime_while_a_head_does_is_noted(study, widest):
    least = min(
        needed(study, widest, rows=1, precision="bf16", gradient_checkpointing=again) for again in (True, False)
    )
    fit = choose(study, widest, HEAD, GPU, least - 200)
    assert not fit.fits
    assert "predicted of" in fit.note
    assert fit.note.endswith("will be refused")


def test_a_trial_that_cannot_fit_is_told_what_to_try(study, widest):
    room = predicted(study, widest, HEAD, rows=1).total
    require_room(study, widest, HEAD, room, "trial 3")
    packed = replace(study, model=replace(study.model, load_in="4bit"), regime=Regime("bf16", True))
    with pytest.raises(
        ConfigurationError, match=r"^trial 3: training it .*; try --gpus-per-worker 2, --max-length 128$"
    ):
        require_room(packed, widest, HEAD, 100, "trial 3")


def settings(**given):
    return merge(given, environment={})[0]


@pytest.fixture
def task():
    return load_task(TaskSpec(source="aspects", train_rows=20, validation_rows=20))


def test_settings_become_a_regime_that_the_study_keeps(study, task):
    asked = settings(gradient_checkpointing="on", precision="bf16")
    made, notes = arranged(study, asked, task)
    assert made.regime == Regime("bf16", True)
    assert notes == ["compute  bf16, layers recomputed"]
    assert Study.from_json(made.to_json()) == made
    assert made.environment["precision"] == "bf16"
    assert made.environment["quantisation"] == "none"
    plain, notes = arranged(study, SearchSettings(), task)
    assert (plain.regime, notes, plain.fidelity) == (USUAL, [], study.fidelity)
    assert "regime" not in plain.to_json()


def test_the_memory_of_a_gpu_is_asked_for_and_can_be_told(study, task, monkeypatch):
    monkeypatch.setattr("autopeft.arranging.describe_gpus", lambda: Gpus(80 * 2**30, halves=True))
    assert arranged(study, settings(), task)[0].regime == Regime("mixed")
    made, notes = arranged(study, settings(device_memory="300kB"), task)
    assert made.fidelity.micro_batch is not None
    assert "of 0.0003 GB" in notes[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8': expected one of fp32, mixed, bf16, auto"),
        ({"gradient_checkpointing": "yes"}, "gradient checkpointing 'yes': expected one of on, off, auto"),
        ({"kernels": "flash"}, "kernels 'flash': expected liger"),
        ({"device_memory": "much"}, "device memory 'much': expected an amount above 0 such as 16GB"),
        ({"precision": "mixed", "load_in": "4bit"}, "precision mixed with load_in 4bit"),
    ],
)
def test_settings_that_mean_nothing_are_refused(study, task, given, message):
    with pytest.raises(ConfigurationError, match=message):
        arranged(study, settings(**given), task)


def test_a_regime_names_every_precision_that_it_takes():
    assert Regime("fp16").precision == "fp16"
    with pytest.raises(ConfigurationError, match="precision 'fp8': expected one of fp32, mixed, bf16, fp16"):
        Regime("fp8")


@pytest.mark.parametrize(
    ("pack", "memory", "size"),
    [(None, None, 1), ("off", None, 1), ("6", None, 6), ("auto", None, 1), ("auto", 80 * 2**30, 64), ("auto", 1, 1)],
)
def test_packs_are_as_large_as_asked_or_as_a_gpu_has_room_for(study, monkeypatch, pack, memory, size):
    gpus = None if memory is None else Gpus(memory, halves=True)
    monkeypatch.setattr("autopeft.arranging.describe_gpus", lambda: gpus)
    assert pack_size(study, SearchSettings(pack=pack)) == size


def test_as_many_fit_as_the_weights_once_and_each_members_own(study, monkeypatch):
    widest = _widest(study, HEAD)
    peak = predicted(study, widest, HEAD, study.fidelity.batch_size)
    room = peak.weights + 5 * (peak.total - peak.weights)
    monkeypatch.setattr("autopeft.arranging.describe_gpus", lambda: Gpus(int(room / USABLE) + 1, halves=True))
    monkeypatch.setattr("autopeft.adapters.models.head_figures", lambda *_: HEAD)
    assert pack_size(study, SearchSettings(pack="auto")) == 5


def test_a_search_says_what_becomes_of_its_packs(study, task):
    assert arranged(study, SearchSettings(pack="4"), task)[1] == ["pack     up to 4 trials train together"]
    asked = SearchSettings(pack="4", gradient_checkpointing="on")
    assert arranged(study, asked, task)[1][-1].startswith("pack     off: layers are computed anew")
    with pytest.raises(ConfigurationError, match="pack 'all': expected off, auto"):
        arranged(study, SearchSettings(pack="all"), task)
