"""The generated task: same seed, same rows; splits apart; every label right."""

import re
from collections import Counter

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import BUILTIN_TASKS, TaskSpec, load_task
from autopeft.tasks.builtin import _ASPECTS, _BLAME, _NEGATORS, _PRAISE, ASPECT_LABELS, MOST_ROWS, generate_split

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(split):
    assert generate_split(split, 50, 3) == generate_split(split, 50, 3)
    assert generate_split(split, 50, 3).texts != generate_split(split, 50, 4).texts


def test_the_rows_of_seed_zero_are_these_on_every_machine():
    first = generate_split("train", 2, 0)
    assert first.texts[0] == "The bar seemed anything but brilliant, while the coffee was awful."
    assert (first.pairs[0], ASPECT_LABELS[first.labels[0]]) == ("service", "not mentioned")


@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 1, 2)])
def test_no_text_is_in_two_splits_even_of_different_seeds(seeds):
    texts = [set(generate_split(split, 2000, seed).texts) for split, seed in zip(SPLITS, seeds, strict=True)]
    assert [len(each) for each in texts] == [2000] * 3
    assert len(set.union(*texts)) == 6000


def test_fewer_rows_are_the_first_of_more():
    few, many = generate_split("train", 33, 0), generate_split("train", 200, 0)
    assert few.texts == many.texts[:33]
    assert few.labels == many.labels[:33]


def test_a_fifth_of_the_rows_asks_for_something_not_mentioned():
    assert Counter(generate_split("validation", 500, 1).labels) == {0: 200, 1: 200, 2: 100}


def test_every_label_follows_from_the_text():
    split = generate_split("test", 3000, 5)
    for text, aspect, label in zip(split.texts, split.pairs, split.labels, strict=True):
        assert label == _read(text, aspect), (text, aspect)


def _read(text, aspect):
    """Label by reading the text with rules of its own: find the clause, count the negator, follow the reference."""
    words = re.findall(r"[a-z]+", text.lower())
    named = [word for word in words if word in _ASPECTS]
    if aspect not in named:
        return 2
    halves = re.split(r"(?:, |; )", text.lower().rstrip("."))
    assert len(halves) == len(named) == 2
    first = _polarity(halves[0])
    if named.index(aspect) == 0:
        return int(first)
    if re.search(r"unlike|opposite|contrast", halves[1]):
        return int(not first)
    if re.search(r"so was|same goes|just like", halves[1]):
        return int(first)
    return int(_polarity(halves[1]))


def _polarity(clause):
    good = any(re.search(rf"\b{word}\b", clause) for word in _PRAISE)
    bad = any(re.search(rf"\b{word}\b", clause) for word in _BLAME)
    assert good != bad
    return good != any(re.search(rf"\b{negator}\b", clause) for negator in _NEGATORS)


def test_the_task_takes_its_sizes_from_the_spec():
    task = load_task(TaskSpec("aspects", train_rows=40, validation_rows=25, seed=1))
    assert (len(task.train), len(task.validation)) == (40, 25)
    assert task.label_names == ("negative", "positive", "not mentioned")
    assert (task.name, task.metric, task.quality_floor) == ("aspects", "accuracy", 0.4)
    assert len(task.read_test()) == 1000


def test_the_default_validation_split_holds_the_standard_error_at_a_sixtieth():
    task = load_task(TaskSpec("aspects"))
    assert (0.85 * 0.15 / len(task.validation)) ** 0.5 < 0.015


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_rows": MOST_ROWS + 1}, "expected at most 50,000"),
        ({"validation_rows": 1}, "ask for 5 or more"),
        ({"text": "content"}, "its columns are fixed"),
        ({"metric": "pearson"}, "the metric is pearson and the labels are 3 classes"),
        ({"metric": "f1"}, "f1 needs 2 classes"),
        ({"metric": "bleu"}, "expected one of accuracy, macro_f1"),
    ],
)
def test_what_the_generator_cannot_give_is_refused(fields, message):
    with pytest.raises(TaskError, match=message):
        load_task(TaskSpec("aspects", **fields))


def test_every_built_in_task_loads():
    for name, description in BUILTIN_TASKS.items():
        assert load_task(TaskSpec(name, train_rows=10, validation_rows=10)).name == name
        assert description
