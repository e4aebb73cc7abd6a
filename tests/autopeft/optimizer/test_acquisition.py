import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from autopeft.optimizer.acquisition import Cells, expected_improvement
from autopeft.pareto import Axis, Scale, hypervolume

SCALE = Scale(quality_floor=0.5, cost_floor=10, cost_ceiling=1000)
QUALITY, COST = Axis(1.0, 0.5), Axis(10, 1000, logarithmic=True)
points = st.lists(st.tuples(st.floats(0.3, 1.0), st.integers(10, 1200)), max_size=8)
NONE = np.empty((1, 0))


def cells(front):
    quality, cost = np.array(front, dtype=float).reshape(-1, 2).T
    return Cells(1 - QUALITY.minimised(quality), COST.minimised(cost)[:, None])


def improvement(front, mean, deviation, costs):
    none = np.empty((len(mean), 0))
    known = COST.minimised(costs)[:, None]
    return cells(front).improvement(1 - QUALITY.minimised(mean), 2 * np.asarray(deviation), known, none, none)


def improvement_by_sampling(front, mean, deviation, cost, count=4000):
    """Mean gain of ``pareto.hypervolume`` itself over draws that are stratified, so that few suffice."""
    draws = mean + deviation * norm.ppf((np.arange(count) + 0.5) / count)
    before = hypervolume(front, SCALE)
    return float(np.mean([hypervolume([*front, (draw, cost)], SCALE) - before for draw in draws]))


@settings(deadline=None, max_examples=25)
@given(points, st.floats(0.3, 1.1), st.floats(0.001, 0.3), st.integers(10, 1000))
def test_the_closed_form_is_the_mean_gain_of_the_hypervolume(front, mean, deviation, cost):
    closed = improvement(front, [mean], [deviation], [cost])
    sampled = improvement_by_sampling(front, mean, deviation, cost)
    assert closed[0] == pytest.approx(sampled, rel=2e-2, abs=2e-5)


@settings(deadline=None)
@given(points)
def test_the_cells_hold_the_services_hypervolume(front):
    assert cells(front).volume() == pytest.approx(hypervolume(front, SCALE))


def union(heights, others, generator, count=40_000):
    """Hypervolume by throwing darts."""
    darts = generator.random((count, 1 + others.shape[1]))
    hit = np.zeros(count, dtype=bool)
    for height, other in zip(heights, others, strict=True):
        hit |= (darts[:, 0] < height) & (darts[:, 1:] >= other).all(axis=1)
    return hit.mean()


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_volume_of_any_number_of_objectives_is_that_of_the_union_of_boxes(objectives):
    generator = np.random.default_rng(objectives)
    heights, others = generator.random(9), generator.random((9, objectives - 1))
    assert Cells(heights, others).volume() == pytest.approx(union(heights, others, generator), abs=0.01)


@pytest.mark.parametrize("exact", [0, 1, 2, 3])
def test_exact_and_learned_objectives_gain_what_sampling_says(exact):
    generator = np.random.default_rng(exact)
    heights, others = generator.random(6), generator.random((6, 3))
    mean, deviation = np.array([0.7]), np.array([0.2])
    at, doubt = np.array([[0.3, 0.5, 0.2]]), np.array([[0.1, 0.2, 0.3]])
    closed = Cells(heights, others).improvement(mean, deviation, at[:, :exact], at[:, exact:], doubt[:, exact:])
    before, gains = Cells(heights, others).volume(), []
    for _ in range(3000):
        place = np.clip(at + np.where(np.arange(3) < exact, 0, doubt) * generator.standard_normal(3), 0, None)
        height = np.append(heights, mean + deviation * generator.standard_normal())
        gains.append(Cells(height, np.vstack([others, place])).volume() - before)
    assert closed[0] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(3000))


def test_one_objective_alone_is_expected_improvement():
    gain = Cells(np.array([0.5, 0.6]), np.empty((2, 0))).improvement(
        np.array([0.7]), np.array([1e-9]), NONE, NONE, NONE
    )
    assert gain == pytest.approx([0.1])


def test_axes_without_a_known_best_end_are_open():
    others = np.array([[0.5], [-3.0]])
    open_cells = Cells(np.array([2.0, 1.0]), others, ceiling=np.inf, floor=-np.inf)
    gain = open_cells.improvement(np.array([4.0]), np.array([1e-9]), np.array([[-1.0]]), NONE, NONE)
    assert gain == pytest.approx([1.5 * 3 + 0.5 * 2])
    learned = open_cells.improvement(np.array([4.0]), np.array([1e-9]), NONE, np.array([[-1.0]]), np.array([[1e-9]]))
    assert learned == pytest.approx(gain)


def test_a_gain_by_hand():
    # half of the cost axis is left to gain; quality 0.75 is half of the quality axis, and there is no doubt
    assert improvement([], [0.75], [1e-9], [100]) == pytest.approx([0.25])
    behind = improvement([(0.75, 100)], [0.7, 0.85], [1e-9, 1e-9], [100, 100])
    assert behind == pytest.approx([0, 0.5 * 0.2], abs=1e-12)


def test_points_over_the_budget_are_no_steps():
    assert cells([(0.9, 1001)]).levels.tolist() == [0]


def test_cheaper_is_better_at_the_same_quality():
    gains = improvement([(0.6, 50)], [0.7] * 3, [0.05] * 3, [20, 200, 900])
    assert gains[0] > gains[1] > gains[2] > 0


def test_quality_beyond_the_best_possible_adds_nothing():
    assert improvement([(1.0, 10)], [1.5], [0.2], [10]) == pytest.approx([0])


def test_an_axis_of_one_cost_is_searched_by_quality():
    axis = Axis(100, 100, logarithmic=True)
    assert axis.minimised([100, 101]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("axis", "values", "expected"),
    [(Axis(1.0, 0.5), [1.0, 0.75, 0.25], [0, 0.5, 1.5]), (Axis(10, 1000, True), [10, 100, 10_000], [0, 0.5, 1.5])],
)
def test_axes_by_hand(axis, values, expected):
    assert axis.minimised(values) == pytest.approx(np.array(expected))


def test_no_candidates_have_no_gains():
    empty = np.empty((0, 1))
    assert cells([]).improvement(np.empty(0), np.empty(0), empty, empty[:, :0], empty[:, :0]).shape == (0,)


@pytest.mark.parametrize("z", [-30, -8, -3, -1.0001, -0.9999, 0, 2, 40])
def test_expected_improvement_is_exact_far_into_the_tail(z):
    exact, _ = quad(lambda y: y * norm.pdf(y - z), 0, max(z, 0) + 10, epsabs=0, points=[max(z, 0)])
    assert expected_improvement(np.array([float(z)]), np.ones(1), np.zeros(1))[0, 0] == pytest.approx(exact, rel=1e-6)
