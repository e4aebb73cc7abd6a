import numpy as np
import pytest
import torch

from autopeft.adapters.models import load_tokenizer
from autopeft.errors import ConfigurationError
from autopeft.study import Fidelity
from autopeft.tasks import Split
from workers.backbones import load_resident
from workers.batches import EncodedRows, encode, scoring_batches, training_order
from workers.seeds import initial_seed

CPU = torch.device("cpu")


def test_a_batch_is_as_wide_as_its_own_longest_row():
    rows = EncodedRows([[2, 5, 3], [2, 3], [2, 5, 6, 7, 3]], [[0, 0, 1], [0, 0], [0] * 5], torch.tensor([1, 0, 1]), 9)
    inputs, labels = rows.batch(np.array([1, 0]), CPU)
    assert inputs["input_ids"].tolist() == [[2, 3, 9], [2, 5, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert labels.tolist() == [0, 1]
    assert rows.lengths.tolist() == [3, 2, 5]


def test_pairs_are_told_apart_where_the_family_does(study):
    split = Split(["the pool was great", "the bed was bad"], ["pool", "bed"], [1, 0])
    tokenizer = load_tokenizer(study.model)
    rows = encode(tokenizer, split, 32, with_types=True, regression=False)
    assert rows.types[0] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert rows.labels.dtype == torch.int64
    assert encode(tokenizer, split, 32, with_types=False, regression=True).types is None
    assert encode(tokenizer, split, 6, with_types=True, regression=False).lengths.tolist() == [6, 6]


LENGTHS = np.array([5, 9, 2, 7, 3, 8, 2, 6, 4, 30])


def test_each_pass_shows_every_row_once():
    order = training_order(LENGTHS, 4, 5, study_seed=3, replicate=0)
    assert order.shape == (5, 4)
    assert len(set(order[:2].flatten())) == 8
    assert sorted(order.flatten()) == sorted([*range(10)] * 2)


def test_a_batch_holds_rows_of_like_length_and_batches_come_in_no_order_of_length():
    lengths = np.random.default_rng(0).integers(4, 60, 640)
    order = training_order(lengths, 16, 40, 0, 0)
    rest = training_order(np.ones(640, dtype=np.int64), 16, 40, 0, 0)
    assert sorted(order.flatten()) == list(range(640))
    padded, unsorted = (np.sum(lengths[o].max(1) * 16) / lengths.sum() for o in (order, rest))
    assert padded < 1.05 < 1.5 < unsorted
    means = lengths[order].mean(1)
    assert abs(np.corrcoef(means, np.arange(40))[0, 1]) < 0.5


def test_rows_are_mixed_beyond_their_length_and_anew_in_each_pass():
    lengths = np.full(64, 7)
    order = training_order(lengths, 8, 16, 0, 0)
    first, second = ({frozenset(batch) for batch in part.tolist()} for part in (order[:8], order[8:]))
    assert len(first & second) == 0


def test_the_order_depends_on_the_study_and_the_replicate_alone():
    first = training_order(LENGTHS, 4, 5, 3, 0)
    assert np.array_equal(first, training_order(LENGTHS, 4, 5, 3, 0))
    assert not np.array_equal(first, training_order(LENGTHS, 4, 5, 4, 0))
    assert not np.array_equal(first, training_order(LENGTHS, 4, 5, 3, 1))


def test_a_longer_run_begins_like_a_shorter_one():
    for steps in (1, 2, 5, 8):
        assert np.array_equal(training_order(LENGTHS, 4, 9, 3, 0)[:steps], training_order(LENGTHS, 4, steps, 3, 0))


def test_fewer_rows_than_a_batch_still_fill_it():
    assert training_order(LENGTHS[:3], 8, 2, 0, 0).shape == (2, 8)


def test_initial_values_differ_between_configurations_and_replicates():
    seeds = {initial_seed(*parts) for parts in ((0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (1, 0, "a"))}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert initial_seed(0, 0, "a") == initial_seed(0, 0, "a")


def test_scoring_sees_every_row_once_and_like_lengths_together():
    batches = scoring_batches(np.array([5, 1, 3, 1, 9]), 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 0], [4]]


def test_rows_longer_than_the_backbone_reads_are_refused(make_study):
    study = make_study(fidelity=Fidelity(2, 4, 41))
    with pytest.raises(ConfigurationError, match="give --max-length 40 or less"):
        load_resident(study, CPU)


@pytest.mark.parametrize(("family", "has_types"), [("bert", True), ("roberta", False), ("distilbert", False)])
def test_token_types_go_to_the_families_that_have_them(make_study, family, has_types):
    resident = load_resident(make_study(family), CPU)
    assert (resident.train.types is not None) == has_types
    inputs, _ = resident.validation.batch(np.array([0, 1]), CPU)
    assert resident.classifier(inputs).shape == (2, 2)


def test_a_decoder_gets_a_line_break_between_the_texts_of_a_pair(make_study, monkeypatch):
    seen = []
    monkeypatch.setattr("workers.backbones.encode", lambda _t, split, *_, **__: seen.append(split.pairs))
    for family in ("bert", "llama"):
        load_resident(make_study(family), CPU)
    assert {pair[0] for pair in seen[2]} == {"\n"}
    assert {pair.strip() for pair in seen[2]} == set(seen[0])
