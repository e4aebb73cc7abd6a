"""Kendall and Spearman with ties and intervals, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from autopeft.ranks import kendall, rank_agreement, spearman


@pytest.mark.parametrize("seed", range(5))
def test_both_are_scipys_also_with_ties(seed):
    generator = np.random.default_rng(seed)
    one, other = generator.integers(0, 6, (2, 15)).astype(float)
    assert kendall(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)


def test_equal_orders_agree_wholly_and_reversed_ones_not_at_all():
    values = np.arange(8.0)
    found = rank_agreement(values, values**3, np.random.default_rng(0))
    assert (found.count, found.kendall, found.spearman, found.kendall_interval) == (8, 1, 1, (1, 1))
    assert rank_agreement(values, -values, np.random.default_rng(0)).kendall == -1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator, true, held = np.random.default_rng(1), 2 / np.pi * np.arcsin(0.6), 0
    for _ in range(40):
        one, other = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 20).T
        low, high = rank_agreement(one, other, generator).kendall_interval
        held += low <= true <= high
    assert held >= 34


def test_too_few_or_all_alike_have_no_agreement():
    generator = np.random.default_rng(0)
    assert rank_agreement(np.array([1.0, 2.0]), np.array([1.0, 2.0]), generator) is None
    assert rank_agreement(np.ones(5), np.arange(5.0), generator) is None


def test_a_sentence_and_a_document_say_the_same():
    found = rank_agreement(np.arange(5.0), np.array([0.0, 2, 1, 3, 4]), np.random.default_rng(0))
    assert found.text.startswith("of 5 configurations trained on both: Kendall 0.80 [")
    assert found.to_json()["kendall"] == found.kendall
