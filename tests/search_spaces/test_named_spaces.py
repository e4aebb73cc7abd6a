"""What the named spaces hold: patterns of experts, presets of papers, the joint space."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.patterns import PATTERNS, experts_at, quarters
from search_spaces.presets import DESCRIPTIONS, NAMED, build, control
from search_spaces.routers import TopK
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection
from search_spaces.space import SearchSpace, SpaceDefinition

RATES = (2e-4, 1e-2)


def bert(layer_count=6, width=384):
    def layer(index):
        at = f"encoder.layer.{index}"
        square = [ModuleShape(role, f"{at}.{role}", width, width) for role in ("query", "key", "value", "output")]
        return (
            *square,
            ModuleShape("up", f"{at}.up", width, 4 * width),
            ModuleShape("down", f"{at}.down", 4 * width, width),
        )

    layers = tuple(layer(index) for index in range(layer_count))
    return Backbone("made up", "bert", width, 22_713_216, layers, (), 12, 12, width // 12, 4 * width)


def experts_of(plan):
    """Experts by layer; 1 for plain LoRA."""
    methods = [row.placements[0].method for row in plan.layers]
    return [method.experts if isinstance(method, Mola) else 1 for method in methods]


@pytest.mark.parametrize(
    ("pattern", "six", "twelve"),
    [
        ("inverted-triangle", [2, 2, 4, 6, 6, 8], [2, 2, 2, 4, 4, 4, 6, 6, 6, 8, 8, 8]),
        ("diamond", [2, 2, 8, 8, 8, 2], [2, 2, 2, 8, 8, 8, 8, 8, 8, 2, 2, 2]),
        ("triangle", [8, 8, 6, 4, 4, 2], [8, 8, 8, 6, 6, 6, 4, 4, 4, 2, 2, 2]),
        ("hourglass", [8, 8, 2, 2, 2, 8], [8, 8, 8, 2, 2, 2, 2, 2, 2, 8, 8, 8]),
        ("rectangle", [5] * 6, [5] * 12),
    ],
)
def test_patterns_are_spread_over_any_depth(pattern, six, twelve):
    for expected in (six, twelve):
        assert [experts_at(pattern, layer, len(expected)) for layer in range(len(expected))] == expected
        space = build(f"mola/{pattern}", bert(len(expected)), RATES)
        plan = space.sample(np.random.default_rng(0), space.largest_cost)
        assert experts_of(plan) == expected
    assert [len(part) for part in quarters(6)] == [2, 1, 2, 1]
    assert quarters(2) == ((0,), (1,))


def test_the_largest_allocations_of_all_patterns_are_tried_first():
    for name in ("mola", "mola/full"):
        space, budget = build(name, bert(), RATES), 113_566
        anchors = space.anchors(budget)
        plans = [space.decode(anchor) for anchor in anchors]
        assert [experts_of(plan) for plan in plans] == [
            [experts_at(pattern, layer, 6) for layer in range(6)] for pattern in PATTERNS
        ]
        assert all(space.cost(plan) <= budget for plan in plans)
        assert max(space.cost(plan) for plan in plans) == 107_520  # 2468 at query and value with rank 2
        assert [space.encode(plan) for plan in plans] == anchors


def test_patterns_are_scaled_down_where_they_do_not_fit():
    space = build("mola", bert(), RATES)
    plans = [space.decode(anchor) for anchor in space.anchors(40_000)]
    assert len(plans) == 5
    assert experts_of(plans[1]) == [1, 1, 2, 3, 3, 4]
    assert all(space.cost(plan) <= 40_000 for plan in plans)
    assert not space.anchors(2_000)


def test_every_named_space_is_a_space_file():
    for name in DESCRIPTIONS:
        definition = NAMED[name](bert(), RATES)
        shown = yaml.safe_load(yaml.safe_dump(definition.to_json(), sort_keys=False, default_flow_style=None))
        assert SpaceDefinition.from_json(shown) == definition
    assert set(NAMED) == set(DESCRIPTIONS)


def test_the_joint_space_holds_the_control_and_every_kind_of_method():
    space = build("joint", bert(), RATES)
    for plan in control(space.backbone, 113_566, 1e-3).values():
        assert space.decode(space.encode(plan)) == plan
    points = space.place_points(np.random.default_rng(0).random((300, space.dimension_count + 1)), 113_566)
    plans = [space.decode(point) for point in points]
    assert {method.name for plan in plans for _, _, method in plan.placements()} == {
        "lora",
        "mola",
        "serial",
        "parallel",
        "prefix",
    }
    assert {plan.training.schedule and plan.training.schedule.update_fraction for plan in plans} == {None, 0.5, 0.25}
    assert space.dimension_count == 5
    assert build("joint/full", bert(), RATES).dimension_count == 8


def test_the_joint_space_leaves_out_what_a_family_refuses():
    backbone = replace(bert(), refusals=(("prefix", "no"),))
    assert "prefix" not in [choice.method for choice in build("joint", backbone, RATES).definition.choices]


def only(name, backbone):
    """The one configuration of a space."""
    space = build(name, backbone, RATES)
    assert space.size == 1
    return space.decode(next(space.points_within(space.largest_cost)))


def test_the_presets_are_the_papers_own_runs():
    plan = only("paper/mola-2468", bert(8))
    assert experts_of(plan) == [2, 2, 4, 4, 6, 6, 8, 8]
    assert {(m.rank, m.alpha, m.router) for _, _, m in plan.placements()} == {(8, 16.0, TopK(2))}
    assert [p.site for p in plan.layers[0].placements] == ["query", "key", "value", "output", "up", "down"]
    assert plan.training.learning_rate == 3e-4
    plan = only("paper/ist-lora", bert())
    expected = uniform(bert(), ("query", "key", "value", "up", "down"), Lora(32, 64.0), 2e-4)
    assert plan.layers == expected.layers
    assert plan.training.schedule == UpdateSchedule(0.25, 0.5, 0.25, 10, 3, 10.0)
    plan = only("paper/diffora", bert())
    assert plan.supernet.layers == uniform(bert(), bert().roles, Lora(4, 8.0), 1e-3).layers
    assert plan.training.selection == Selection(ratio=0.5, scope="row", weights="retrain")
    assert build("paper/autopeft", bert(), RATES).size == build("autopeft", bert(), RATES).size


def test_a_deep_space_draws_within_the_budget():
    backbone = bert(32, 1024)
    space = build("joint/full", backbone, RATES)
    points = space.place_points(np.random.default_rng(0).random((16, space.dimension_count + 1)), 1_000_000)
    assert (space.point_costs(points) <= 1_000_000).all()
    assert isinstance(space, SearchSpace)


def test_diffora_has_a_bit_for_every_module_of_every_layer():
    space = build("diffora", bert(), RATES)
    modules = sum(len(layer) for layer in bert().layers)
    assert space.size == 2**modules - 1
    assert {len(ordinal.values) for ordinal in space.ordinals} == {2}


@pytest.mark.parametrize("name", ["joint", "joint/full"])
def test_a_space_of_many_methods_begins_with_plain_lora_at_falling_costs(name):
    space, budget = build(name, bert(), RATES), 113_566
    anchors = space.anchors(budget)
    plans = [space.decode(anchor) for anchor in anchors]
    costs = [space.cost(plan) for plan in plans]
    assert 110_000 < costs[0] <= budget
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] <= budget / 16
    assert {method.name for plan in plans for _, _, method in plan.placements()} == {"lora"}
    assert {plan.training.schedule for plan in plans} == {None}
    assert len(plans) >= 3
    assert all(6e-3 < plan.training.learning_rate <= 1e-2 for plan in plans)  # in the upper eighth of the range
    assert [space.encode(plan) for plan in plans] == anchors
    assert not space.anchors(100)
