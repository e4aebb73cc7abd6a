import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.errors import ConfigurationError
from autopeft.pareto import Axis, Box, Scale, front, hypervolume

SCALE = Scale(quality_floor=0.5, cost_floor=10, cost_ceiling=1000)

# few values, so that ties happen
points_with_ties = st.lists(
    st.tuples(st.sampled_from([0.4, 0.5, 0.6, 0.8, 1.0]), st.sampled_from([10, 20, 500, 1000, 1500]))
)
some_points = st.lists(st.tuples(st.floats(0, 1), st.integers(10, 1500).map(float)), max_size=12)
lists = st.one_of(points_with_ties, some_points)
quick = settings(deadline=None)


def dominates(one, other):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def test_nine_points_by_hand():
    nine = [
        (0.50, 10),  # 0 cheapest: on the front
        (0.60, 20),  # 1 on the front
        (0.60, 30),  # 2 as good as 1, costs more
        (0.55, 30),  # 3 worse and dearer than 1
        (0.70, 40),  # 4 on the front
        (0.70, 40),  # 5 equal to 4: the first counts
        (0.65, 60),  # 6 dominated by 4
        (0.90, 80),  # 7 on the front
        (0.90, 90),  # 8 as good as 7, costs more
    ]
    assert front(nine) == [0, 1, 4, 7]


def test_an_area_by_hand():
    # 100 is half-way from 10 to 1000 on a log scale; 0.75 half-way from 0.5 to 1
    assert hypervolume([(0.75, 10)], SCALE) == pytest.approx(0.5)
    assert hypervolume([(0.75, 100)], SCALE) == pytest.approx(0.25)
    assert hypervolume([(0.75, 100), (0.6, 10)], SCALE) == pytest.approx(0.25 + 0.5 * 0.2)
    assert hypervolume([(1.0, 10)], SCALE) == 1
    assert hypervolume([], SCALE) == 0


@quick
@given(lists)
def test_the_front_is_what_nothing_dominates(points):
    members = front(points)
    expected = {point for point in points if not any(dominates(other, point) for other in points)}
    assert {points[index] for index in members} == expected
    assert len(members) == len(expected)


@quick
@given(lists, st.randoms(use_true_random=False))
def test_neither_front_nor_hypervolume_depends_on_the_order(points, random):
    shuffled = random.sample(points, len(points))
    assert [points[index] for index in front(points)] == [shuffled[index] for index in front(shuffled)]
    assert hypervolume(points, SCALE) == hypervolume(shuffled, SCALE)


@quick
@given(lists, st.tuples(st.floats(0, 1), st.floats(10, 1500)))
def test_the_hypervolume_never_falls_and_stays_in_its_box(points, another):
    before, after = hypervolume(points, SCALE), hypervolume([*points, another], SCALE)
    assert 0 <= before <= after + 1e-12
    assert after <= 1 + 1e-12


@quick
@given(lists)
def test_only_the_front_within_the_budget_counts(points):
    members = [points[index] for index in front(points)]
    assert hypervolume(members, SCALE) == pytest.approx(
        hypervolume([point for point in points if point[1] <= 1000], SCALE)
    )


def test_points_over_the_budget_or_below_the_floor_add_nothing():
    assert hypervolume([(1.0, 1001), (0.5, 10), (0.2, 10)], SCALE) == 0


def test_a_space_of_one_cost_is_measured_by_quality_alone():
    scale = Scale(0.5, 100, 100)
    assert hypervolume([(0.75, 100), (0.6, 100)], scale) == pytest.approx(0.5)
    assert hypervolume([(0.75, 101)], scale) == 0
    assert hypervolume([(0.2, 100)], scale) == 0


def test_scaled_values_are_better_when_smaller_and_clipped():
    assert SCALE.minimised((0.75, 100)) == (pytest.approx(0.5), pytest.approx(0.5))
    assert SCALE.minimised((0.1, 1e6)) == (1, 1)
    assert SCALE.minimised((1.0, 1)) == (0, 0)


@pytest.mark.parametrize("floor", [1.0, 1.5, math.nan])
def test_a_box_without_height_is_refused(floor):
    with pytest.raises(ConfigurationError, match="expected below 1; a task on which the majority class alone"):
        Scale(floor, 10, 100)


def test_a_box_without_a_logarithm_is_refused():
    with pytest.raises(ConfigurationError, match="smallest cost 0: expected at least one trained parameter"):
        Scale(0.5, 0, 100)


@settings(deadline=None, max_examples=30)
@given(some_points)
def test_the_hypervolume_is_optunas_and_botorchs(points):
    torch = pytest.importorskip("torch")
    botorch = pytest.importorskip("botorch.utils.multi_objective.hypervolume")
    optuna = pytest.importorskip("optuna._hypervolume")
    import numpy as np

    losses = np.array([SCALE.minimised(point) for point in points if point[1] <= 1000]).reshape(-1, 2)
    ours = hypervolume(points, SCALE)
    reference = np.ones(2)
    assert ours == pytest.approx(optuna.compute_hypervolume(losses, reference) if len(losses) else 0, abs=1e-9)
    theirs = botorch.Hypervolume(-torch.tensor(reference)).compute(-torch.tensor(losses)) if len(losses) else 0
    assert ours == pytest.approx(theirs, abs=1e-9)


# Three and four objectives: quality, then costs; a few values, so that ties happen, and some beyond the box.
AXES = (Axis(1.0, 0.5), Axis(10, 1000, logarithmic=True), Axis(1, 100, logarithmic=True), Axis(0.0, 4.0))


@st.composite
def many(draw):
    count = draw(st.integers(3, 4))
    costs = [st.sampled_from([5, 10, 100, 999, 2000]), st.sampled_from([1, 3, 50, 100]), st.floats(0, 5)]
    row = st.tuples(st.sampled_from([0.4, 0.6, 0.75, 0.9, 1.0]), *costs[: count - 1])
    return Box(AXES[:count]), draw(st.lists(row, max_size=9))


def dominates_in_all(one, other):
    return one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True)) and one != other


@quick
@given(many())
def test_the_front_of_many_objectives_is_what_nothing_dominates(drawn):
    _, points = drawn
    members = front(points)
    expected = {point for point in points if not any(dominates_in_all(other, point) for other in points)}
    assert {points[index] for index in members} == expected
    assert len(members) == len(expected)
    assert [points[index][0] for index in members] == sorted(points[index][0] for index in members)
    assert all(index == points.index(points[index]) for index in members)


def by_inclusion_and_exclusion(losses):
    """Volume of the union of the boxes from each point to the reference point, from all intersections of boxes."""
    total = 0.0
    for chosen in range(1, 1 << len(losses)):
        corner = [max(column) for column in zip(*(p for i, p in enumerate(losses) if chosen >> i & 1), strict=True)]
        total -= (-1) ** chosen.bit_count() * math.prod(1 - place for place in corner)
    return total


@quick
@given(many())
def test_the_hypervolume_of_many_objectives_is_that_of_the_union_of_boxes(drawn):
    box, points = drawn
    expected = by_inclusion_and_exclusion([box.minimised(point) for point in points])
    assert hypervolume(points, box) == pytest.approx(expected, abs=1e-9)


@quick
@given(many(), st.randoms(use_true_random=False))
def test_the_hypervolume_of_many_objectives_grows_and_knows_no_order(drawn, random):
    box, points = drawn
    volume = hypervolume(points, box)
    assert hypervolume(random.sample(points, len(points)), box) == pytest.approx(volume, abs=1e-12)
    assert hypervolume([points[index] for index in front(points)], box) == volume
    assert 0 <= hypervolume(points[:-1], box) <= volume + 1e-12 <= 1 + 2e-12


@settings(deadline=None, max_examples=30)
@given(many())
def test_the_hypervolume_of_many_objectives_is_optunas_and_botorchs(drawn):
    torch = pytest.importorskip("torch")
    botorch = pytest.importorskip("botorch.utils.multi_objective.hypervolume")
    optuna = pytest.importorskip("optuna._hypervolume")
    import numpy as np
    from botorch.utils.multi_objective.pareto import is_non_dominated

    box, points = drawn
    losses = np.array([box.minimised(point) for point in points]).reshape(-1, len(box.axes))
    reference = np.ones(len(box.axes))
    ours = hypervolume(points, box)
    assert ours == pytest.approx(optuna.compute_hypervolume(losses, reference) if len(losses) else 0, abs=1e-9)
    gains = -torch.tensor(losses)
    members = gains[is_non_dominated(gains)] if len(losses) else gains  # of a set with dominated points theirs is wrong
    theirs = botorch.Hypervolume(-torch.tensor(reference)).compute(members) if len(losses) else 0
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_volume_by_hand():
    # half the quality, half the log cost, half the log cost; then a second point that is cheaper in the last only
    box = Box(AXES[:3])
    assert hypervolume([(0.75, 100, 10)], box) == pytest.approx(0.125)
    assert hypervolume([(0.75, 100, 10), (0.6, 100, 1)], box) == pytest.approx(0.125 + 0.2 * 0.5 * 0.5)
    assert hypervolume([(1.0, 10, 1)], box) == 1
    assert hypervolume([], box) == 0


def test_a_third_objective_without_length_leaves_the_area():
    points = [(0.75, 100), (0.6, 10), (0.9, 500)]
    flat = Box((*AXES[:2], Axis(7, 7, logarithmic=True)))
    assert hypervolume([(*point, 7) for point in points], flat) == pytest.approx(hypervolume(points, SCALE))
    assert hypervolume([(*point, 8) for point in points], flat) == 0


@quick
@given(lists)
def test_two_objectives_by_the_sweep_and_by_the_staircase_are_one(points):
    wide = Box((*SCALE.box.axes, Axis(0.0, 1.0)))
    assert hypervolume([(*point, 0.0) for point in points], wide) == pytest.approx(hypervolume(points, SCALE))


def test_a_large_front_of_four_objectives_takes_no_time():
    import time

    import numpy as np

    directions = np.abs(np.random.default_rng(0).standard_normal((300, 4)))
    losses = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = [(1 - loss, *costs) for loss, *costs in losses.tolist()]
    assert len(front(points)) == 300
    started = time.process_time()
    assert 0 < hypervolume(points, Box((Axis(1.0, 0.0), *[Axis(0.0, 1.0)] * 3))) < 1
    assert time.process_time() - started < 2
