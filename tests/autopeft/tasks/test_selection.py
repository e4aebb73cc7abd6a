"""Parts of a split: deterministic, in proportion, and no class lost."""

import numpy as np
import pytest

from autopeft.tasks.selection import MOST_CARVED_ROWS, carve, take_part

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def test_a_tenth_is_carved_in_proportion():
    stay, leave = carve(LABELS, regression=False, seed=0)
    assert np.bincount(LABELS[leave]).tolist() == [6, 3, 1]
    assert sorted([*stay, *leave]) == list(range(100))


@pytest.mark.parametrize("seed", range(5))
def test_every_class_of_two_rows_is_in_both_parts(seed):
    labels = np.repeat(np.arange(20), 2)
    stay, leave = carve(labels, regression=False, seed=seed)
    assert set(labels[stay]) == set(labels[leave]) == set(range(20))


def test_the_only_row_of_a_class_stays_in_train():
    labels = np.array([0] * 30 + [1])
    stay, leave = carve(labels, regression=False, seed=0)
    assert 30 in stay
    assert len(leave) == 3


def test_no_more_than_two_thousand_rows_are_carved():
    _, leave = carve(np.tile([0, 1], 50_000), regression=False, seed=0)
    assert len(leave) == MOST_CARVED_ROWS


def test_numbers_are_carved_without_classes():
    stay, leave = carve(np.linspace(-3.5, 4.0, 50), regression=True, seed=0)
    assert (len(stay), len(leave)) == (45, 5)


def test_carving_depends_on_the_seed_alone():
    assert carve(LABELS, False, 1)[1].tolist() == carve(LABELS, False, 1)[1].tolist()
    assert carve(LABELS, False, 1)[1].tolist() != carve(LABELS, False, 2)[1].tolist()


@pytest.mark.parametrize("count", [3, 4, 10, 57, 99, 100])
def test_a_part_has_the_asked_size_and_every_class(count):
    rows = take_part(LABELS, count, regression=False, seed=0)
    assert len(set(rows)) == count
    assert set(LABELS[rows]) == {0, 1, 2}
    assert np.all(np.diff(rows) > 0)


def test_a_part_is_in_proportion():
    assert np.bincount(LABELS[take_part(LABELS, 50, False, 0)]).tolist() == [30, 15, 5]


def test_a_part_smaller_than_the_classes_takes_the_large_ones():
    assert len(take_part(LABELS, 2, False, 0)) == 2
