import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.choice import Choice
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.prefix import Prefix
from search_spaces.presets import build
from search_spaces.routers import Dynmole, TopK
from search_spaces.schedule import UpdateSchedule
from search_spaces.space import SearchSpace, SpaceDefinition

RATES = (1e-3, 1e-3)
LORA = Choice("lora", (("query",), ("query", "value")), (("rank", (1, 2)),))
MOLA = Choice("mola", (("query",),), (("experts", (1, 2, 3)), ("rank", (1,)), ("top_k", (1, 2))))
PREFIX = Choice("prefix", (("attention",),), (("length", (1, 3)),))
HALF = UpdateSchedule(update_fraction=0.5)
properties = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)

DEFINITIONS = {
    "each layer": SpaceDefinition("small", (), None, 2.0, RATES, choices=(LORA, MOLA, PREFIX)),
    "one group": SpaceDefinition("small", (), ((0, 1),), 2.0, RATES, choices=(LORA, PREFIX), schedules=(None, HALF)),
    "schedules": SpaceDefinition("small", (), None, 2.0, RATES, choices=(PREFIX,), schedules=(HALF, None)),
    "never nothing": SpaceDefinition("small", (), None, 2.0, RATES, choices=(LORA,), nothing=False),
    "by group": SpaceDefinition(
        "small",
        (),
        ((0,), (1,)),
        2.0,
        RATES,
        choices=(replace(LORA, groups=(0,)), replace(PREFIX, groups=(1,))),
        nothing=False,
        schedules=(None, HALF),
    ),
    "one layer": SpaceDefinition("small", (), ((1,),), 2.0, RATES, choices=(MOLA,)),
}


@pytest.fixture(params=DEFINITIONS.values(), ids=DEFINITIONS)
def space(request, tiny_backbone):
    return SearchSpace(request.param, tiny_backbone)


def everything(space):
    """All points by brute force, with their configurations."""
    found = {}
    for indices in itertools.product(*(range(len(ordinal.values)) for ordinal in space.ordinals)):
        try:
            found[indices, 1e-3] = space.decode((indices, 1e-3))
        except ConfigurationError:
            continue
    return found


def by_hand(definition, backbone):
    """All configurations of a definition, built without the grid: every form at every group, then duplicates out."""
    groups = definition.layers or tuple((layer,) for layer in range(backbone.layer_count))
    plans = set()
    alternatives = []
    for number, _ in enumerate(groups):
        forms = [None] if definition.nothing else []
        for choice in definition.choices:
            if choice.groups is None or number in choice.groups:
                forms += [(sites, method) for sites in choice.sites for _, method in choice.forms(definition.scaling)]
        alternatives.append(forms)
    for chosen in itertools.product(*alternatives):
        rows = [LayerPlan()] * backbone.layer_count
        for group, form in zip(groups, chosen, strict=True):
            for layer in group if form else ():
                rows[layer] = LayerPlan(tuple(Placement(site, form[1]) for site in form[0]))
        for schedule in definition.schedules:
            plan = Configuration(tuple(rows), Training(1e-3, schedule))
            if not plan.is_empty:
                plans.add(plan)
    return plans


def test_the_points_are_all_different_plans_and_no_other(space, tiny_backbone):
    found = everything(space)
    assert set(found.values()) == by_hand(space.definition, tiny_backbone)
    assert len({plan.digest for plan in found.values()}) == len(found) == space.size
    for point, plan in found.items():
        assert space.encode(plan) == point


def test_sizes_shares_and_ends_are_those_of_an_enumeration(space):
    costs = [space.cost(plan) for plan in everything(space).values()]
    assert (space.smallest_cost, space.largest_cost) == (min(costs), max(costs))
    for budget in (0, space.smallest_cost - 1, space.smallest_cost, 60, 100, 10**6):
        assert space.share_within(budget) == pytest.approx(sum(c <= budget for c in costs) / len(costs), abs=1e-12)


@pytest.mark.parametrize("budget", [0, 32, 80, 10**6])
def test_every_point_within_a_budget_is_listed_once_and_in_order(space, budget):
    expected = [point for point, plan in everything(space).items() if space.cost(plan) <= budget]
    assert list(space.points_within(budget)) == expected


@properties
@given(seed=st.integers(0, 2**32 - 1), budget=st.integers(8, 600), which=st.sampled_from(sorted(DEFINITIONS)))
def test_what_is_placed_is_in_the_space_and_within_the_budget(tiny_backbone, seed, budget, which):
    space = SearchSpace(DEFINITIONS[which], tiny_backbone)
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
    near = space.neighbour_points(points[0], np.random.default_rng(seed))
    assert points[0] not in near
    assert len(set(near)) == len(near)
    for point in near:
        assert space.encode(space.decode(point)) == point


@pytest.mark.parametrize("which", ["never nothing", "by group"])
def test_uniform_points_give_uniform_draws_among_what_fits(tiny_backbone, which):
    space = SearchSpace(DEFINITIONS[which], tiny_backbone)
    fitting = [point[0] for point, plan in everything(space).items() if space.cost(plan) <= 90]
    units = np.random.default_rng(0).random((8000, len(space.ordinals)))
    counts = Counter(space._grid.draw(units, np.full(8000, 90), np.zeros(8000), 90))
    assert set(counts) == set(fitting)
    expected = 8000 / len(fitting)
    assert len(fitting) > 4
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_different_plans_have_different_features(space):
    points = list(everything(space))
    assert len(np.unique(space.point_features(points).round(9), axis=0)) == len(points)


def test_all_points_are_reached_by_steps(space):
    points = set(everything(space))
    seen, edge = set(), [next(iter(points))]
    while edge:
        point = edge.pop()
        if point not in seen:
            seen.add(point)
            edge += space.neighbour_points(point, np.random.default_rng(0))
    assert seen == points


def test_a_step_changes_one_group_a_little(tiny_backbone):
    space = SearchSpace(DEFINITIONS["each layer"], tiny_backbone)
    row = LayerPlan((Placement("query", Lora(1, 2.0)),))
    plan = Configuration((row, LayerPlan()), Training(1e-3))
    near = {space.decode(point).layers for point in space.neighbour_points(space.encode(plan), None)}
    first = {layers[0] for layers in near if layers[1] == LayerPlan()}
    assert first == {
        LayerPlan((Placement("query", Lora(2, 4.0)),)),
        LayerPlan((Placement("query", Lora(1, 2.0)), Placement("value", Lora(1, 2.0)))),
        LayerPlan((Placement("attention", Prefix(1)),)),
        LayerPlan((Placement("query", Mola(2, 1, 2.0, TopK(1))),)),
    }


def test_one_expert_is_plain_lora_once(tiny_backbone):
    space = SearchSpace(DEFINITIONS["one layer"], tiny_backbone)
    methods = {plan.layers[1].placements[0].method for plan in everything(space).values()}
    assert methods == {Lora(1, 2.0), *(Mola(n, 1, 2.0, TopK(k)) for n in (2, 3) for k in (1, 2))}


def test_top_k_is_at_most_the_number_of_experts():
    choice = Choice("mola", (("query",),), (("experts", (1, 2, 4)), ("rank", (1,)), ("top_k", (3,))))
    assert [(m.experts, m.router.top_k) for _, m in choice.forms(1.0)] == [(1, 1), (2, 2), (4, 3)]


def test_routers_by_entropy_are_sizes_like_others(tiny_backbone):
    sizes = {"router": "dynmole", "experts": [2, 4], "rank": 1, "threshold": [0.8, 1.0], "index": [1, 1.1]}
    data = {"choices": [{"method": "mola", "sites": ["query"], "sizes": sizes}], "layers": [[0, 1]]}
    space = SearchSpace(SpaceDefinition.from_json(data), tiny_backbone)
    assert space.size == 2 * 2 * 2
    plan = space.decode(next(space.points_within(space.largest_cost)))
    assert plan.layers[1].placements[0].method == Mola(2, 1, 2.0, Dynmole(threshold=0.8, index=1))


def test_a_stranger_cannot_be_encoded(tiny_backbone):
    space = SearchSpace(DEFINITIONS["each layer"], tiny_backbone)
    for plan, message in (
        (uniform(tiny_backbone, ("key",), Lora(1, 2.0), 1e-3), "not in space small: layer 0"),
        (uniform(tiny_backbone, ("query",), Lora(1, 1.0), 1e-3), "not in space small: layer 0"),
        (uniform(tiny_backbone, ("query",), Lora(1, 2.0), 2e-3), "not in space small: learning rate"),
        (
            replace(uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3), training=Training(1e-3, HALF)),
            "not in space small: its update schedule",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            space.encode(plan)
    lone = SearchSpace(DEFINITIONS["one layer"], tiny_backbone)
    with pytest.raises(ConfigurationError, match="it adapts other modules"):
        lone.encode(uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3))


YAML = """
layers: [[0], [1]]
choices:
- {method: lora, sites: [query, value], sizes: {rank: [1, 2]}}
- {method: mola, sites: [[query], [up, down]], sizes: {experts: [2, 4], rank: 1, top_k: 1}, groups: [1]}
- {method: norm}
- {method: parallel, sizes: {size: [2]}}
schedules: [null, {update_fraction: 0.5}]
"""


def test_a_space_of_choices_can_be_written_as_yaml(tiny_backbone, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML, encoding="utf-8")
    space = build(str(path), tiny_backbone, RATES)
    assert [len(ordinal.values) for ordinal in space.ordinals] == [1 + 2 + 1 + 1, 1 + 2 + 4 + 1 + 1, 2]
    assert space.size == 5 * 9 * 2 - 2
    assert SpaceDefinition.from_json(space.definition.to_json()) == space.definition
    assert SearchSpace(SpaceDefinition.from_json(space.definition.to_json()), tiny_backbone).size == space.size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"choices": "lora"}, "space key 'choices': expected a list like"),
        ({"choices": ["lora"]}, "a choice is an object with method, sites and sizes, got 'lora'"),
        ({"choices": [{"method": "lora", "site": ["query"]}]}, "unknown choice key 'site'; did you mean 'sites'"),
        ({"choices": [{"method": "loar"}]}, "choice of method 'loar': expected one of lora, dora"),
        ({"choices": [{"method": "lora", "sizes": {"rank": 1}}]}, "choice of lora, key 'sites': expected a list of"),
        (
            {"choices": [{"method": "lora", "sites": ["norms"]}]},
            "choice of lora: it cannot stand at 'norms'; known: query",
        ),
        ({"choices": [{"method": "lora", "sites": [["up", "up"]]}]}, "expected different sites, got"),
        (
            {"choices": [{"method": "lora", "sites": ["up"], "sizes": {"rank": [0, 1]}}]},
            "LoRA rank 0: expected a whole",
        ),
        (
            {"choices": [{"method": "lora", "sites": ["up"], "sizes": {"rank": [1, "two"]}}]},
            "LoRA rank 'two': expected a whole",
        ),
        (
            {"choices": [{"method": "lora", "sites": ["up"], "sizes": {"rank": [2, 1]}}]},
            "different values, lowest first",
        ),
        ({"choices": [{"method": "lora", "sites": ["up"], "sizes": {"colour": 1}}]}, "lora takes rank and alpha"),
        ({"choices": [{"method": "lora", "sites": ["up"], "sizes": [1]}]}, "key 'sizes': expected an object like"),
        ({"choices": [{"method": "norm", "groups": 1}]}, "choice key 'groups': expected numbers of layer groups"),
        ({"choices": [{"method": "norm"}], "nothing": 1}, "space key 'nothing': expected true or false, got 1"),
        ({"choices": [{"method": "norm"}], "schedules": []}, "space key 'schedules': expected a list like"),
        ({"choices": [{"method": "norm"}], "schedules": [None, None]}, "one stands twice"),
        (
            {"choices": [{"method": "norm"}], "schedules": [{"speed": 1}]},
            "update schedule: it may have update_fraction",
        ),
        ({"choices": [{"method": "norm"}], "patterns": ["star"]}, "space key 'patterns': expected a list of triangle"),
        (
            {"modules": [{"sites": ["up"], "ranks": [1]}], "nothing": False},
            "'nothing' belongs to a space with 'choices'",
        ),
        ({"choices": [{"method": "norm"}], "methods": []}, "not methods and choices"),
        (
            {"choices": [{"method": "lora", "sites": ["up"], "sizes": {"rank": list(range(1, 20002))}}]},
            "20,001 combinations of sizes; at most 20,000",
        ),
    ],
)
def test_what_is_not_valid_says_why(data, message):
    with pytest.raises(ConfigurationError) as caught:
        SpaceDefinition.from_json(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"choices": [{"method": "lora", "sites": ["gate"], "sizes": {"rank": 1}}]},
            "no layer of tiny has a site 'gate'",
        ),
        ({"choices": [{"method": "norm", "groups": [2]}]}, "space custom: no layer group 2 of 2"),
        (
            {"choices": [{"method": "norm", "groups": [0]}], "nothing": False},
            "nothing may stand in layer 1; allow it or",
        ),
        (
            {"choices": [{"method": "oft", "sites": ["up"], "sizes": {"block_size": 5}}]},
            "has to divide the input's width",
        ),
    ],
)
def test_what_does_not_fit_a_backbone_says_why(data, message, tiny_backbone):
    with pytest.raises(ConfigurationError) as caught:
        SearchSpace(SpaceDefinition.from_json(data), tiny_backbone)
    assert message in str(caught.value)


def test_a_method_that_a_family_refuses_is_refused_with_its_reason(tiny_backbone):
    backbone = replace(tiny_backbone, refusals=(("prefix", "no such attention"),))
    with pytest.raises(ConfigurationError, match="prefix on bert: no such attention"):
        SearchSpace(DEFINITIONS["each layer"], backbone)
