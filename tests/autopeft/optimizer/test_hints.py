"""Scores as a belief that fades, in the start and in the gain."""

import itertools

import numpy as np
import pytest

from autopeft.optimizer.baselines import Start, likelier_first, sobol_points
from autopeft.optimizer.demands import NOTHING_MORE, Demands
from autopeft.optimizer.hints import FLOOR, likelihood, prior_of, probabilities
from autopeft.probe import Guide
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise
from search_spaces.space import SearchSpace


def guide(scores):
    return Guide("by hand", "0" * 64, scores)


def plan(*layers):
    rows = (LayerPlan(tuple(Placement(site, Lora(1, 2.0)) for site in sites)) for sites in layers)
    return Configuration(tuple(rows), Training(1e-3))


@pytest.fixture
def space(tiny_backbone):
    return SearchSpace(layerwise(tiny_backbone, (1e-3, 1e-2)), tiny_backbone)


def test_probabilities_rise_with_the_score_and_keep_to_the_floor():
    belief = probabilities({"layer": [-100.0, 0.0, None, 1.0]})
    assert list(belief) == [(0, "layer"), (1, "layer"), (3, "layer")]
    assert FLOOR <= belief[0, "layer"] < belief[1, "layer"] < belief[3, "layer"] <= 1 - FLOOR


def test_only_differences_of_scores_count():
    one, other = probabilities({"layer": [1.0, 2.0, 4.0]}), probabilities({"layer": [10.0, 20.0, 40.0]})
    assert one == pytest.approx(other)


def test_two_scores_by_hand():
    share = FLOOR + (1 - 2 * FLOOR) / (1 + np.exp(-1.0))
    belief = probabilities({"layer": [0.0, 2.0]})
    assert belief == pytest.approx({(0, "layer"): 1 - share, (1, "layer"): share})
    odds = (1 - share) / share
    assert likelihood(belief, plan((), ("query",))) == pytest.approx(1.0)
    assert likelihood(belief, plan(("query",), ("query",))) == pytest.approx(odds)
    assert likelihood(belief, plan(("query",), ())) == pytest.approx(odds**2)


def test_scores_of_a_site_ask_for_that_site():
    belief = probabilities({"query": [2.0, 0.0], "down": [0.0, 2.0]})
    assert likelihood(belief, plan(("query",), ("down",))) == pytest.approx(1.0)
    assert likelihood(belief, plan(("down",), ("query",))) < 0.3


def test_scores_that_are_all_equal_say_nothing():
    assert prior_of([guide({"layer": [0.5, 0.5]})]) is None
    assert prior_of([]) is None


def test_several_guides_multiply():
    first, second = guide({"layer": [0.0, 1.0]}), guide({"query": [1.0, 0.0]})
    weights = [prior_of(guides).weight(plan(("query",), ())) for guides in ([first], [second], [first, second])]
    assert weights[2] == pytest.approx(weights[0] * weights[1])


def test_the_start_follows_the_prior_and_loses_no_point(space):
    prior = prior_of([guide({"layer": [-1.0, 1.0]})])
    budget = space.largest_cost
    plain = list(itertools.islice(sobol_points(space, budget, 0, 64), 256))
    thinned = list(likelier_first(space, iter(plain), prior, 0))
    assert sorted(thinned) == sorted(plain)
    weights = [prior.weight(space.decode(point)) for point in thinned]
    assert np.mean(weights[:100]) > 1.3 * np.mean(weights[-100:])


def test_the_start_is_the_same_when_asked_again_and_plain_without_a_prior(space):
    demands, budget = Demands(prior=prior_of([guide({"layer": [-1.0, 1.0]})])), space.largest_cost
    starts = []
    for asked in (demands, demands, NOTHING_MORE):
        known = set()
        starts.append(Start(6, 0).missing(space, budget, known, 6, asked, goes_on=False))
    assert starts[0] == starts[1] != starts[2]
    later = Start(6, 0).missing(space, budget, {p.digest for p in starts[0][:4]}, 6, demands, goes_on=False)
    assert later == starts[0][4:]
