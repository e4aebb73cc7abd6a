import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from autopeft.optimizer.acquisition import Staircase, expected_improvement
from autopeft.pareto import Scale, hypervolume

SCALE = Scale(quality_floor=0.5, cost_floor=10, cost_ceiling=1000)
points = st.lists(st.tuples(st.floats(0.3, 1.0), st.integers(10, 1200)), max_size=8)


def improvement_by_sampling(front, mean, deviation, cost, count=4000):
    """Mean gain of ``pareto.hypervolume`` itself over draws that are stratified, so that few suffice."""
    draws = mean + deviation * norm.ppf((np.arange(count) + 0.5) / count)
    before = hypervolume(front, SCALE)
    return float(np.mean([hypervolume([*front, (draw, cost)], SCALE) - before for draw in draws]))


@settings(deadline=None, max_examples=25)
@given(points, st.floats(0.3, 1.1), st.floats(0.001, 0.3), st.integers(10, 1000))
def test_the_closed_form_is_the_mean_gain_of_the_hypervolume(front, mean, deviation, cost):
    closed = Staircase(front, SCALE).improvement(np.array([mean]), np.array([deviation]), np.array([cost]))
    sampled = improvement_by_sampling(front, mean, deviation, cost)
    assert closed[0] == pytest.approx(sampled, rel=2e-2, abs=2e-5)


def test_a_gain_by_hand():
    # half of the cost axis is left to gain; quality 0.75 is half of the quality axis, and there is no doubt
    empty = Staircase([], SCALE).improvement(np.array([0.75]), np.array([1e-9]), np.array([100]))
    assert empty == pytest.approx([0.25])
    behind = Staircase([(0.75, 100)], SCALE).improvement(np.array([0.7, 0.85]), np.full(2, 1e-9), np.array([100, 100]))
    assert behind == pytest.approx([0, 0.5 * 0.2], abs=1e-12)


def test_points_over_the_budget_are_no_steps():
    assert Staircase([(0.9, 1001)], SCALE).levels.tolist() == [0]


def test_cheaper_is_better_at_the_same_quality():
    gains = Staircase([(0.6, 50)], SCALE).improvement(np.full(3, 0.7), np.full(3, 0.05), np.array([20, 200, 900]))
    assert gains[0] > gains[1] > gains[2] > 0


def test_quality_beyond_the_best_possible_adds_nothing():
    perfect = Staircase([(1.0, 10)], SCALE)
    assert perfect.improvement(np.array([1.5]), np.array([0.2]), np.array([10])) == pytest.approx([0])


def test_a_box_of_one_cost_is_searched_by_quality():
    gains = Staircase([(0.75, 100)], Scale(0.5, 100, 100)).improvement(
        np.array([0.9]), np.array([1e-9]), np.array([100])
    )
    assert gains == pytest.approx([0.3])


@pytest.mark.parametrize("z", [-30, -8, -3, -1.0001, -0.9999, 0, 2, 40])
def test_expected_improvement_is_exact_far_into_the_tail(z):
    exact, _ = quad(lambda y: y * norm.pdf(y - z), 0, max(z, 0) + 10, epsabs=0, points=[max(z, 0)])
    assert expected_improvement(np.array([float(z)]), np.ones(1), np.zeros(1))[0, 0] == pytest.approx(exact, rel=1e-6)
