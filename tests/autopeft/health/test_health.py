"""Search health: the closed form against refitting by hand, edges in words, what was tried twice."""

import numpy as np
import pytest

from autopeft.health import Check, edges, leave_one_out, repeated
from autopeft.optimizer.surrogate import GaussianProcess, Samples
from autopeft.pareto import Axis
from autopeft.study import Origin
from search_spaces.configuration import Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise
from search_spaces.space import SearchSpace

COST = Axis(96.0, 512.0, logarithmic=True)


@pytest.fixture
def space(tiny_backbone):
    return SearchSpace(layerwise(tiny_backbone, (1e-4, 1e-2)), tiny_backbone)


def test_the_closed_form_is_what_leaving_each_sample_out_gives():
    generator = np.random.default_rng(0)
    features = generator.random((14, 3))
    repeats = [
        [float(np.sin(3 * row.sum()) + generator.normal(0, 0.1)) for _ in range(1 + index % 2)]
        for index, row in enumerate(features)
    ]
    whole = GaussianProcess.fit(Samples.grouped(features, repeats))
    mean, deviation = whole.leave_one_out()
    for index in range(14):
        kept = [row for row in range(14) if row != index]
        samples = Samples(features[kept], whole.samples.values[kept], whole.samples.factors[kept])
        rest = GaussianProcess(samples, whole.hyperparameters, whole._location, whole._spread)
        expected, latent = rest.posterior(features[[index]])
        noise = whole.noise_deviation**2 * whole.samples.factors[index]
        assert mean[index] == pytest.approx(expected[0])
        assert deviation[index] == pytest.approx(np.sqrt(latent[0] ** 2 + noise))


def test_a_smooth_quality_is_predicted_and_noise_is_not(space):
    generator = np.random.default_rng(1)
    plans = {number: space.sample(generator, 512) for number in range(40)}
    smooth = {number: [space.cost(plan) ** 0.3] for number, plan in plans.items()}
    found = leave_one_out(space, COST, plans, smooth)
    assert found.explained > 0.8
    assert "explains" in found.verdict
    noise = {number: [float(value)] for number, value in enumerate(generator.normal(size=40))}
    assert leave_one_out(space, COST, plans, noise).explained < 0.3


def test_the_check_sees_the_cost_as_the_proposer_does(space):
    generator = np.random.default_rng(1)
    plans = {number: space.sample(generator, 512) for number in range(40)}
    # from the ranks alone .62 of this is explained
    steep = {number: [(space.cost(plan) / 512) ** 3] for number, plan in plans.items()}
    assert leave_one_out(space, COST, plans, steep).explained > 0.95


def test_too_few_plans_or_plans_outside_the_space_give_no_check(space, tiny_backbone):
    generator = np.random.default_rng(1)
    plans = {number: space.sample(generator, 512) for number in range(4)}
    values = {number: [0.5] for number in range(20)}
    assert leave_one_out(space, COST, plans, values) is None
    outside = {number: uniform(tiny_backbone, ("query",), Lora(1, 2.0), 0.5) for number in range(4, 20)}
    assert leave_one_out(space, COST, plans | outside, values) is None


def test_coverage_and_calibration_of_a_process_that_knows_itself():
    generator = np.random.default_rng(2)
    predicted = generator.random(4000)
    check = Check(tuple(range(4000)), predicted + generator.normal(0, 0.1, 4000), predicted, np.full(4000, 0.1), 0.1)
    for level in (0.5, 0.8, 0.95):
        assert check.coverage(level) == pytest.approx(level, abs=0.02)
    for expected, observed in check.calibration:
        assert observed == pytest.approx(expected, abs=0.03)
    sure = Check(check.numbers, check.observed, check.predicted, np.full(4000, 0.02), 0.02)
    assert "too sure of itself" in sure.verdict


def at_the_edge(space, generator, count):
    top = space.ordinals[0].values[-1]
    plans = []
    while len(plans) < count:
        indices, rate = space.encode(space.sample(generator, 10**6))
        plans.append(space.decode(((len(space.ordinals[0].values) - 1, *indices[1:]), rate)))
    return plans, top


def test_members_at_an_edge_say_which_and_how_many(space):
    plans, top = at_the_edge(space, np.random.default_rng(3), 6)
    first = edges(space, plans)[0]
    assert (first.members, first.total, first.is_reached) == (6, 6, True)
    assert first.sentence.endswith(f"rank {top} is at the edge of the space in 6 of 6 front members: widen it.")
    assert not first.sentence.startswith("layer")


def test_the_ends_of_the_learning_rate_are_edges(space):
    indices, _ = space.encode(space.sample(np.random.default_rng(0), 512))
    plans = [space.decode((tuple(0 if i else 1 for i in range(len(indices))), rate)) for rate in (1e-2, 1e-2, 1e-4)]
    found = {edge.what: (edge.members, edge.is_upper) for edge in edges(space, plans)}
    assert found["learning rate 0.01"] == (2, True)
    assert found["learning rate 0.0001"] == (1, False)


def test_no_member_has_no_edge(space):
    assert edges(space, []) == []


def test_what_was_tried_twice_is_counted_without_control_and_head(make_trial):
    trials = [make_trial(number, digest=digest) for number, digest in enumerate("aabc")]
    trials.append(make_trial(9, digest="a", origin=Origin.CONTROL))
    found = repeated(trials)
    assert (found.trials, found.plans, found.most, found.share) == (4, 3, 2, 0.25)
    assert repeated([]).share == 0


def test_a_learning_rate_outside_the_space_is_no_member(space, tiny_backbone):
    plan = uniform(tiny_backbone, ("query",), Lora(1, 2.0), 1e-3)
    assert edges(space, [type(plan)(plan.layers, Training(0.9))]) == []
