import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from search_spaces import counting
from search_spaces.counting import BudgetTable

rows = st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True).map(sorted)
products = st.lists(rows, min_size=1, max_size=5)


def share_by_enumeration(costs, budget):
    sums = [sum(point) for point in itertools.product(*costs)]
    return sum(total <= budget for total in sums) / len(sums)


@settings(deadline=None)
@given(products, st.integers(0, 160))
def test_the_share_is_that_of_an_enumeration(costs, budget):
    assert BudgetTable(costs, budget).share == pytest.approx(share_by_enumeration(costs, budget), abs=1e-12)


@settings(deadline=None)
@given(products, st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_draws_stay_within_their_budgets(costs, extra, seed):
    budget = sum(row[0] for row in costs) + extra
    generator = np.random.default_rng(seed)
    targets = generator.integers(sum(row[0] for row in costs), budget, size=8, endpoint=True)
    drawn = BudgetTable(costs, budget).draw(generator.random((8, len(costs))), targets)
    for indices, target in zip(drawn, targets, strict=True):
        assert sum(row[index] for row, index in zip(costs, indices, strict=True)) <= target


def test_draws_are_uniform_over_what_is_feasible():
    costs, budget = [(0, 1, 2, 4), (0, 3, 6), (0, 2, 4)], 7
    feasible = [
        point
        for point in itertools.product(*(range(len(row)) for row in costs))
        if sum(row[index] for row, index in zip(costs, point, strict=True)) <= budget
    ]
    units = np.random.default_rng(0).random((200 * len(feasible), 3))
    drawn = BudgetTable(costs, budget).draw(units, np.full(len(units), budget))
    counts = dict.fromkeys(feasible, 0)
    for indices in drawn:
        counts[tuple(indices.tolist())] += 1
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_the_ends_of_the_unit_cube_are_the_ends_of_the_product():
    table = BudgetTable([(0, 1, 2)] * 3, 6)
    units = np.array([[0.0] * 3, [np.nextafter(1, 0)] * 3])
    assert table.draw(units, np.array([6, 6])).tolist() == [[0, 0, 0], [2, 2, 2]]


def test_where_nothing_fits_the_lowest_values_are_drawn():
    table = BudgetTable([(2, 5), (3, 4)], 4)
    assert table.share == 0
    assert table.draw(np.array([[0.9, 0.9]]), np.array([4])).tolist() == [[0, 0]]


def test_a_fine_cost_is_rounded_up_and_never_goes_over(monkeypatch):
    monkeypatch.setattr(counting, "UNITS_LIMIT", 50)
    generator = np.random.default_rng(0)
    costs = [tuple(sorted(generator.integers(1, 1000, 4).tolist())) for _ in range(5)]
    smallest = sum(row[0] for row in costs)
    for budget in (smallest, smallest + 90, smallest + 900, 5000):
        table = BudgetTable(costs, budget)
        assert table.share <= share_by_enumeration(costs, budget)
        drawn = table.draw(generator.random((50, 5)), np.full(50, budget))
        sums = [sum(row[index] for row, index in zip(costs, indices, strict=True)) for indices in drawn]
        assert max(sums) <= budget


def test_common_divisors_keep_tables_small():
    assert BudgetTable([(0, 1536, 3072)] * 20, 113_566).share == pytest.approx(
        BudgetTable([(0, 1, 2)] * 20, math.floor(113_566 / 1536)).share
    )
