import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.backbone import Backbone, LayerShape, ModuleShape
from search_spaces.configuration import uniform
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.presets import build
from search_spaces.space import MethodSizes, SearchSpace, SpaceDefinition

RATES = (1e-4, 1e-2)
BERT_BASE_PARAMETERS = 109_482_240
properties = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def bert_base():
    def layer(index):
        at = f"encoder.layer.{index}"
        square = [ModuleShape(role, f"{at}.{role}", 768, 768) for role in ("query", "key", "value", "output")]
        return (*square, ModuleShape("up", f"{at}.up", 768, 3072), ModuleShape("down", f"{at}.down", 3072, 768))

    layers = tuple(layer(index) for index in range(12))
    return Backbone("bert-base", "bert", 768, BERT_BASE_PARAMETERS, layers, (), 12, 12, 64, 3072)


def small(backbone, layers=None, rates=(1e-3, 1e-3)):
    methods = (
        MethodSizes("serial", (0, 1, 4)),
        MethodSizes("prefix", (0, 2)),
        MethodSizes("lora", (0, 1), ("query", "value")),
    )
    return SearchSpace(SpaceDefinition("small", (), layers, 2.0, rates, methods), backbone)


def everything(space):
    """All points by brute force, with their configurations."""
    found = {}
    for indices in itertools.product(*(range(len(ordinal.values)) for ordinal in space.ordinals)):
        try:
            found[indices, 1e-3] = space.decode((indices, 1e-3))
        except ConfigurationError:
            continue
    return found


@pytest.fixture(params=[None, ((0, 1),), ((1,),)])
def space(request, tiny_backbone):
    return small(tiny_backbone, request.param)


def test_bert_base_has_as_many_configurations_as_the_paper_says():
    assert build("autopeft", bert_base(), RATES).size == 5_446_350


@pytest.mark.parametrize(("with_biases", "fitting", "share"), [(False, 1_075_992, 0.198), (True, 1_072_296, 0.197)])
def test_the_share_within_half_a_percent_is_the_papers_without_biases_and_ours_with_them(with_biases, fitting, share):
    shape = LayerShape(768, 768, 768, ())
    sizes = (0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768)
    budget = int(0.005 * BERT_BASE_PARAMETERS)

    def cost(method):
        return method.parameter_count(shape) if with_biases else method.count_without_biases(shape)

    rows = [[cost(build(size)) if size else 0 for size in sizes] for build in (Serial, Parallel, Prefix)]
    masks = [math.comb(12, count) for count in range(13)]
    found = sum(
        masks[count] for costs in itertools.product(*rows) for count in range(1, 13) if 0 < count * sum(costs) <= budget
    )
    assert found == fitting
    assert found / 5_446_350 == pytest.approx(share, abs=5e-4)
    space = build("autopeft", bert_base(), RATES)
    assert [ordinal.values for ordinal in space.ordinals[-3:]] == [sizes] * 3
    if with_biases:
        assert space.share_within(budget) == pytest.approx(found / space.size, rel=1e-12)


def test_sizes_halve_down_from_the_hidden_size(tiny_backbone):
    assert build("autopeft", tiny_backbone, RATES).ordinals[-1].values == (0, 1, 2, 4, 8)


def test_sizes_shares_and_ends_are_those_of_an_enumeration(space):
    costs = [space.cost(plan) for plan in everything(space).values()]
    assert space.size == len(costs) == len(set(everything(space).values()))
    assert (space.smallest_cost, space.largest_cost) == (min(costs), max(costs))
    for budget in (0, space.smallest_cost - 1, space.smallest_cost, 60, 150, 10**6):
        assert space.share_within(budget) == pytest.approx(sum(c <= budget for c in costs) / len(costs), abs=1e-12)


@pytest.mark.parametrize("budget", [0, 32, 100, 150, 10**6])
def test_every_point_within_a_budget_is_listed_once_and_in_order(space, budget):
    expected = [point for point, plan in everything(space).items() if space.cost(plan) <= budget]
    assert list(space.points_within(budget)) == expected


@properties
@given(seed=st.integers(0, 2**32 - 1), budget=st.integers(32, 2_000))
def test_what_is_placed_is_in_the_space_and_within_the_budget(space, seed, budget):
    units = np.random.default_rng(seed).random((8, space.dimension_count + 1))
    if budget < space.smallest_cost:
        return
    points = space.place_points(units, budget)
    plans = [space.decode(point) for point in points]
    assert [space.encode(plan) for plan in plans] == points
    assert space.point_costs(points).tolist() == [space.cost(plan) for plan in plans]
    assert all(0 < space.cost(plan) <= budget for plan in plans)
    features = space.point_features(points)
    assert features.min() >= 0
    assert features.max() <= 1
    for near in space.neighbour_points(points[0], np.random.default_rng(seed)):
        assert space.encode(space.decode(near)) == near


def test_uniform_points_give_uniform_draws_among_what_fits(tiny_backbone):
    space = small(tiny_backbone)
    fitting = [point[0] for point, plan in everything(space).items() if space.cost(plan) <= 120]
    units = np.random.default_rng(0).random((8000, len(space.ordinals)))
    drawn = space._grid.draw(units, np.full(8000, 120), np.zeros(8000), 120)
    counts = Counter(drawn)
    assert set(counts) == set(fitting)
    expected = 8000 / len(fitting)
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_the_empty_plan_is_no_neighbour(tiny_backbone):
    space = small(tiny_backbone)
    lone = ((1, 0, 1, 0, 0), 1e-3)
    near = space.neighbour_points(lone, np.random.default_rng(0))
    assert near
    assert not any(space.decode(point).is_empty for point in near)


def test_a_stranger_cannot_be_encoded(tiny_backbone):
    space = small(tiny_backbone)
    for plan, message in (
        (uniform(tiny_backbone, ("feed_forward",), Serial(2), 1e-3), "not in space small: serial size 2"),
        (uniform(tiny_backbone, ("feed_forward",), Parallel(1), 1e-3), "it holds none of its methods"),
        (uniform(tiny_backbone, ("query", "value"), Lora(1, 1.0), 1e-3), "it adapts other modules or scales otherwise"),
        (uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3), "it adapts other modules"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            space.encode(plan)


YAML = """
methods:
- {method: serial, sizes: [0, 2]}
- {method: lora, sizes: [1, 2], sites: [query, value]}
layers: [[0, 1]]
"""


def test_a_space_of_this_kind_can_be_written_as_yaml(tiny_backbone, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML, encoding="utf-8")
    space = build(str(path), tiny_backbone, RATES)
    assert (space.name, space.size, space.dimension_count) == ("mine", 4, 4)
    assert SpaceDefinition.from_json(space.definition.to_json()) == space.definition


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("serial", "space key 'methods': expected a list like"),
        (["serial"], "a method choice is an object with method and sizes, got 'serial'"),
        ([{"method": "ia3", "sizes": [1]}], "method choice 'ia3': expected one of serial, parallel, prefix, lora"),
        ([{"method": "serial", "sizes": 4}], "method choice key 'sizes': expected a list like"),
        ([{"method": "serial", "sizes": [2, 1]}], "sizes of serial: values"),
        ([{"method": "lora", "sizes": [1]}], "key 'sites': expected a list like"),
        ([{"method": "serial", "sizes": [1], "sites": ["query"]}], "key 'sites': expected a list like"),
        ([{"method": "serial", "sizes": [1]}] * 2, "a method stands twice"),
        ([{"method": "serial", "size": [1]}], "unknown method choice key 'size'; did you mean 'sizes'"),
    ],
)
def test_what_is_not_valid_says_why(methods, message):
    with pytest.raises(ConfigurationError, match=message):
        SpaceDefinition.from_json({"methods": methods})


def test_both_kinds_at_once_are_refused():
    data = {"methods": [{"method": "serial", "sizes": [1]}], "modules": [{"sites": ["query"], "ranks": [1]}]}
    with pytest.raises(
        ConfigurationError, match=r"give 'modules' .*, 'methods' .*, 'choices' .* or 'cuts' .*, not modules and methods"
    ):
        SpaceDefinition.from_json(data)


def test_a_space_with_nothing_in_it_is_refused(tiny_backbone):
    definition = SpaceDefinition("none", (), None, 2.0, RATES, (MethodSizes("serial", (0,)),))
    with pytest.raises(ConfigurationError, match="holds only the empty plan; allow a size above 0"):
        SearchSpace(definition, tiny_backbone)
