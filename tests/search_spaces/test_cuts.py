"""Spaces of cuts: a rank, and what a matrix keeps at a ratio."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces.cost import trainable_parameters
from search_spaces.cut import Cuts
from search_spaces.definition import SpaceDefinition
from search_spaces.errors import ConfigurationError
from search_spaces.named_spaces import stored_cuts
from search_spaces.presets import build
from search_spaces.selection import cut
from search_spaces.space import SearchSpace

SCORES = {"query": [0.9, 0.1], "value": [0.8, 0.3], "up": [0.2, 0.7], "down": [0.4, 0.6]}
RATES = (1e-4, 1e-2)


@pytest.fixture
def stored(tiny_backbone):
    return SearchSpace(stored_cuts("mine", SCORES, RATES), tiny_backbone)


@pytest.fixture
def learned(tiny_backbone):
    return build("diffora/learned", tiny_backbone, RATES)


@pytest.fixture(params=["stored", "learned"])
def space(request):
    return request.getfixturevalue(request.param)


def test_every_point_comes_back_and_no_plan_is_there_twice(space):
    indices = list(space._grid.within(space.largest_cost))
    plans = [space.decode((each, 1e-3)) for each in indices]
    assert [space.encode(plan)[0] for plan in plans] == indices
    assert len({plan.digest for plan in plans}) == space.size == len(indices)


def test_costs_are_those_of_the_plans_and_draws_keep_the_budget(space):
    budget = (space.smallest_cost + space.largest_cost) // 2
    units = np.random.default_rng(0).random((200, space.dimension_count + 1))
    points = space.place_points(units, budget)
    costs = space.point_costs(points)
    assert (costs <= budget).all()
    assert costs.tolist() == [trainable_parameters(space.decode(point), space.backbone) for point in points]
    features = space.point_features(points)
    assert ((features >= 0) & (features <= 1)).all()
    within = list(space._grid.within(budget))
    assert space.share_within(budget) == pytest.approx(len(within) / space.size)


def test_a_stored_matrix_is_cut_at_each_ratio(stored):
    kept = set()
    for indices in stored._grid.within(stored.largest_cost):
        plan = stored.decode((indices, 1e-3))
        assert plan.training.selection is None
        kept.add(frozenset((layer, site) for layer, site, _ in plan.placements()))
    scores = {(layer, site): row[layer] for layer in (0, 1) for site, row in SCORES.items()}
    ratios = stored.definition.cuts.ratios
    assert kept == {cut(scores, ratio, scope) for ratio in ratios for scope in ("row", "global")}


def test_a_learned_matrix_is_the_trials_own(learned):
    plan = learned.sample(np.random.default_rng(1), learned.largest_cost)
    assert plan.training.selection is not None
    assert {site for _, site, _ in plan.placements()} == set(learned.backbone.roles)
    with pytest.raises(ConfigurationError, match="not in space diffora/learned"):
        learned.encode(plan.supernet)


def test_neighbours_are_in_the_space(space):
    plan = space.sample(np.random.default_rng(2), space.largest_cost)
    near = space.neighbours(plan, np.random.default_rng(3))
    assert near
    assert all(space.decode(space.encode(each)) == each for each in near)


def test_a_space_of_cuts_goes_both_ways_as_json(space):
    assert SpaceDefinition.from_json(space.definition.to_json()) == space.definition


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": [0, 2]}, "expected rising whole numbers"),
        ({"ratios": [0.5, 0.25]}, "expected rising numbers in"),
        ({"ratios": [0.5, 1.0]}, "1 keeps every module"),
        ({"ratios": 0.5}, "expected a list"),
        ({"scopes": ["column"]}, "expected some of row, global"),
        ({"weights": []}, "expected some of retrain, continue"),
        ({"search_fractions": [0.95]}, "search_fraction 0.95"),
        ({"rank": [1]}, "expected ranks and ratios"),
        ({"scores": {"query": [0.1, 0.2]}, "weights": ["retrain"]}, "nothing is learned where scores are given"),
        ({"scores": {"head": [0.1]}}, "'head' is no module"),
        ({"scores": {"query": ["a"]}}, "of query got"),
        ({"scores": {"query": [None, None]}}, "no score at all"),
        ({"scores": []}, "expected a list of a number"),
    ],
)
def test_what_is_no_cut_says_why(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Cuts.from_json({"ranks": [2], "ratios": [0.5]} | change)


def test_a_matrix_of_another_depth_or_with_foreign_modules_is_refused(tiny_backbone):
    definition = stored_cuts("mine", {"query": [0.1, 0.2, 0.3]}, RATES)
    with pytest.raises(ConfigurationError, match="has 3 layers at query, tiny has 2"):
        SearchSpace(definition, tiny_backbone)
    with pytest.raises(ConfigurationError, match="gate"):
        SearchSpace(stored_cuts("mine", {"gate": [0.1, 0.2]}, RATES), tiny_backbone)


def test_layers_of_a_matrix_are_not_grouped():
    data = {"cuts": {"ranks": [2], "ratios": [0.5]}, "layers": [[0, 1]]}
    with pytest.raises(ConfigurationError, match="leave 'layers' out"):
        SpaceDefinition.from_json(data)


def test_a_space_of_cuts_is_no_other_kind(tiny_backbone):
    definition = replace(stored_cuts("mine", SCORES, RATES), cuts=None, name="empty")
    with pytest.raises(ConfigurationError):
        SearchSpace(definition, tiny_backbone)
