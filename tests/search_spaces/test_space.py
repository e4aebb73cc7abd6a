import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.errors import BudgetError, ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise
from search_spaces.space import ModuleGroup, SearchSpace, SpaceDefinition

RATES = (1e-4, 1e-2)
properties = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
seeds = st.integers(0, 2**32 - 1)
budgets = st.integers(32, 10_000)


@pytest.fixture
def space(tiny_backbone):
    return SearchSpace(layerwise(tiny_backbone, RATES), tiny_backbone)


def small(backbone, ranks=(0, 1, 2), layers=None, rates=(1e-3, 1e-3)):
    modules = (ModuleGroup(("query", "value"), ranks), ModuleGroup(("down",), ranks))
    return SearchSpace(SpaceDefinition("small", modules, layers, 2.0, rates), backbone)


def everything(space):
    points = itertools.product(*(range(len(ordinal.values)) for ordinal in space.ordinals))
    return [(point, 1e-3) for point in points if any(o.values[i] for o, i in zip(space.ordinals, point, strict=True))]


@properties
@given(seeds, budgets)
def test_what_is_placed_is_in_the_space_and_within_the_budget(space, seed, budget):
    configuration = space.sample(np.random.default_rng(seed), budget)
    assert 0 < space.cost(configuration) <= budget
    assert space.decode(space.encode(configuration)) == configuration


@properties
@given(seeds, budgets)
def test_points_and_configurations_agree(space, seed, budget):
    units = np.random.default_rng(seed).random((5, space.dimension_count + 1))
    points = space.place_points(units, budget)
    configurations = [space.decode(point) for point in points]
    assert configurations == [space.place(unit, budget) for unit in units]
    assert [space.encode(configuration) for configuration in configurations] == points
    assert space.point_costs(points).tolist() == [space.cost(configuration) for configuration in configurations]
    features = np.array([space.features(configuration) for configuration in configurations])
    assert np.array_equal(space.point_features(points), features)
    assert features.shape == (5, space.dimension_count)
    assert features.min() >= 0
    assert features.max() <= 1


@properties
@given(seeds)
def test_neighbours_are_in_the_space_and_one_step_away(space, seed):
    generator = np.random.default_rng(seed)
    configuration = space.sample(generator, 10_000)
    indices, rate = space.encode(configuration)
    near = space.neighbours(configuration, generator)
    assert configuration not in near
    for other_indices, other_rate in map(space.encode, near):
        moved = [(a, b) for a, b in zip(indices, other_indices, strict=True) if a != b]
        assert len(moved) + (rate != other_rate) == 1
        assert all(b in (0, a - 1, a + 1) for a, b in moved)


def test_the_empty_plan_is_no_neighbour(tiny_backbone):
    space = small(tiny_backbone)
    lone = space.decode(((1, 0, 0, 0), 1e-3))
    assert not any(plan.is_empty for plan in space.neighbours(lone, np.random.default_rng(0)))


@pytest.mark.parametrize("ranks", [(0, 1, 2), (0, 4), (1, 2), (0, 1, 3, 8)])
@pytest.mark.parametrize("layers", [None, ((0, 1),), ((1,),)])
def test_sizes_shares_and_ends_are_those_of_an_enumeration(tiny_backbone, ranks, layers):
    space = small(tiny_backbone, ranks, layers)
    costs = [space.cost(space.decode(point)) for point in everything(space)]
    assert space.size == len(costs)
    assert (space.smallest_cost, space.largest_cost) == (min(costs), max(costs))
    for budget in (0, space.smallest_cost - 1, space.smallest_cost, 100, 200, 10**6):
        share = sum(cost <= budget for cost in costs) / len(costs)
        assert space.share_within(budget) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("budget", [0, 40, 100, 150, 10**6])
def test_every_point_within_a_budget_is_listed_once(tiny_backbone, budget):
    space = small(tiny_backbone)
    expected = [point for point in everything(space) if space.cost(space.decode(point)) <= budget]
    assert list(space.points_within(budget)) == expected


def test_a_listed_point_comes_with_each_learning_rate(tiny_backbone):
    space = small(tiny_backbone, (0, 1), ((0,),), (1e-3, 1.002e-3))
    assert len(list(space.points_within(10**6))) == 3 * 3


def test_small_configurations_are_drawn_as_well_as_large_ones(space):
    generator = np.random.default_rng(0)
    costs = np.array([space.cost(space.sample(generator, 1000)) for _ in range(300)])
    assert (costs < 100).mean() > 0.2
    assert (costs > 500).mean() > 0.05


def test_each_smallest_configuration_can_be_drawn(tiny_backbone):
    space = SearchSpace(
        SpaceDefinition(
            "small", (ModuleGroup(("query",), (0, 1)), ModuleGroup(("key",), (0, 1))), None, 2.0, (0.1, 0.1)
        ),
        tiny_backbone,
    )
    generator = np.random.default_rng(0)
    assert len({space.sample(generator, space.smallest_cost).digest for _ in range(100)}) == 4


def test_nothing_is_drawn_below_the_smallest_configuration(space):
    message = "budget of 31 parameters: the smallest configuration of space layerwise trains 32; raise --budget"
    with pytest.raises(BudgetError, match=message):
        space.place(np.zeros(space.dimension_count + 1), 31)


def test_layers_of_a_group_share_their_rank(tiny_backbone):
    space = small(tiny_backbone, layers=((0, 1),))
    configuration = space.decode(((1, 2), 1e-3))
    assert configuration.layers[0] == configuration.layers[1]
    assert configuration.layers[0].at("down", "lora") == Lora(2, 4.0)


def test_the_empty_plan_is_in_no_space(tiny_backbone):
    space = small(tiny_backbone)
    with pytest.raises(ConfigurationError, match="the empty plan is in no search space"):
        space.decode(((0, 0, 0, 0), 1e-3))
    with pytest.raises(ConfigurationError, match="the empty plan is in no search space"):
        space.encode(Configuration((LayerPlan(), LayerPlan()), Training(1e-3)))


@pytest.mark.parametrize(
    ("sites", "method", "rate", "message"),
    [
        (("query", "value"), Lora(3, 6.0), 1e-3, r"not in space layerwise: layer 0 query\+value"),
        (("query",), Lora(2, 4.0), 1e-3, r"not in space layerwise: layer 0 query\+value"),
        (("query", "value"), Lora(2, 2.0), 1e-3, "it adapts other modules or scales otherwise"),
        (("query", "value"), Lora(2, 4.0), 0.5, "not in space layerwise: learning rate 0.5"),
    ],
)
def test_a_stranger_cannot_be_encoded(space, tiny_backbone, sites, method, rate, message):
    with pytest.raises(ConfigurationError, match=message):
        space.encode(uniform(tiny_backbone, sites, method, rate))


def test_a_plan_on_other_modules_cannot_be_encoded(tiny_backbone):
    with pytest.raises(ConfigurationError, match="it adapts other modules or scales otherwise"):
        small(tiny_backbone).encode(uniform(tiny_backbone, ("query", "value", "up"), Lora(2, 4.0), 1e-3))


def test_the_control_can_be_encoded(space, tiny_backbone):
    point = space.encode(uniform(tiny_backbone, ("query", "value"), Lora(8, 16.0), 1e-3))
    assert point == ((4, 0, 0, 4, 0, 0), 1e-3)


@pytest.mark.parametrize("rates", [(1.23456e-3, 1.23456e-3), (1.23449e-3, 9.87651e-3)])
def test_ends_of_a_fine_learning_rate_range_are_in_the_space(tiny_backbone, rates):
    space = small(tiny_backbone, rates=rates)
    for end in (0.0, np.nextafter(1, 0)):
        configuration = space.place(np.array([0.5] * space.dimension_count + [end]), 10**6)
        assert space.decode(space.encode(configuration)) == configuration
