import time

import numpy as np
import pytest

from autopeft.errors import ConfigurationError
from autopeft.optimizer import make_proposer
from autopeft.pareto import hypervolume
from autopeft.study import PARAMETERS, Direction, Objective

QUALITY, COST = Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)


def search(question, proposer, count, batch=1):
    observations = []
    while len(observations) < count:
        plans = question.ask(proposer, observations, count=batch, seed=len(observations))
        observations += question.observe(plans)
    return observations


def volume(question, observations):
    points = [(o.values["accuracy"], o.values[PARAMETERS]) for o in observations]
    return hypervolume(points, question.scale)


def test_the_start_is_the_sobol_sequence_whatever_the_generator(question):
    sobol = question.ask(make_proposer("sobol", 0, 5), count=6)
    closed_form = make_proposer("closed-form", 6, 5)
    assert question.ask(closed_form, count=6, seed=9) == sobol
    observations = question.observe(sobol[:2])
    assert question.ask(closed_form, observations, sobol[2:4], count=2, seed=7) == sobol[4:]


def test_a_lost_point_of_the_start_is_made_up_for(question):
    sobol = question.ask(make_proposer("sobol", 0, 5), count=6)
    known = question.observe(sobol[:2] + sobol[3:])
    assert question.ask(make_proposer("closed-form", 6, 5), known)[0] == sobol[2]


def test_after_the_start_the_model_speaks(question):
    sobol = question.ask(make_proposer("sobol", 0, 5), count=7)
    observations = question.observe(sobol[:6])
    assert question.ask(make_proposer("closed-form", 6, 5), observations) != sobol[6:]


def test_without_a_single_observation_the_start_goes_on(question):
    sobol = question.ask(make_proposer("sobol", 0, 5), count=9)
    assert question.ask(make_proposer("closed-form", 6, 5), pending=sobol[:8]) == sobol[8:]


@pytest.mark.parametrize("batch", [1, 4])
def test_it_beats_random_search(question, batch):
    best = search(question, make_proposer("closed-form", 6, 0), 26, batch)
    random = search(question, make_proposer("random", 6, 0), 26)
    assert volume(question, best) > volume(question, random) + 0.02


def test_a_small_space_is_searched_as_by_brute_force(make_question):
    question = make_question(ranks=(0, 1, 2, 4, 8, 16))
    observations = question.observe(question.sample(6))
    known = question.belief(observations)
    rest = [point for point in question.space.points_within(512) if point not in known.seen]
    gains = known.gains(rest, known.reached.cells())
    chosen = question.ask(make_proposer("closed-form", 0, 0), observations)
    assert chosen == [question.space.decode(rest[int(np.argmax(gains))])]


def test_a_climb_ends_where_no_neighbour_is_better(question):
    known = question.belief(question.observe(question.sample(20)))
    ranked = known.best_points(np.random.default_rng(0))

    def gain(points):
        gains = known.gains(points, known.reached.cells())
        return np.where(question.space.point_costs(points) <= 512, gains, 0)

    ordinal_steps = [
        p for p in question.space.neighbour_points(ranked[0], np.random.default_rng(1)) if p[1] == ranked[0][1]
    ]
    fresh = [point for point in ordinal_steps if point not in known.seen]
    assert gain(fresh).max() <= gain(ranked[:1])[0]
    drawn = question.space.place_points(np.random.default_rng(2).random((500, 8)), 512)
    assert gain(drawn).max() <= gain(ranked[:1])[0]


def test_control_trials_inform_the_model_but_are_no_step_of_the_front(question):
    plans = question.sample(8)
    control = question.belief(question.observe(plans, counts=False))
    counted = question.belief(question.observe(plans))
    assert control.origins == ()
    assert len(counted.origins) == 8
    assert control.seen == counted.seen
    points = [question.space.encode(plan) for plan in question.sample(3, seed=4)]
    assert np.array_equal(control.posterior(points)[0], counted.posterior(points)[0])


def test_pending_ones_are_believed(question):
    plans, waiting = question.sample(8), question.sample(2, seed=6)
    before = question.belief(question.observe(plans))
    after = question.belief(question.observe(plans), waiting)
    points = [question.space.encode(plan) for plan in waiting]
    assert (after.posterior(points)[1] < before.posterior(points)[1]).all()
    assert after.reached.heights[8:] == pytest.approx(before.posterior(points)[0])
    assert np.array_equal(after.reached.others[8:], before.terrain.known(points))
    assert after.origins[8:] == tuple(points)


def test_the_first_of_a_batch_is_what_would_be_asked_alone(question):
    observations = question.observe(question.sample(8))
    proposer = make_proposer("closed-form", 0, 0)
    assert question.ask(proposer, observations, count=3)[:1] == question.ask(proposer, observations, count=1)


@pytest.mark.parametrize("objectives", [(), (COST, QUALITY), (QUALITY, Objective("seconds", Direction.MINIMISE))])
def test_objectives_that_have_no_scale_are_refused(question, objectives):
    with pytest.raises(ConfigurationError, match=r"expected a quality to maximise|give its best and its worst value"):
        question.ask(make_proposer("closed-form", 2, 0), question.observe(question.sample(3)), objectives=objectives)


def test_equal_seeds_give_identical_searches(question):
    first, second = (search(question, make_proposer("closed-form", 4, 1), 12, 2) for _ in range(2))
    assert first == second


def test_a_proposal_after_two_hundred_trials_is_quick(question):
    observations = question.observe(question.sample(200))
    started = time.process_time()
    question.ask(make_proposer("closed-form", 0, 0), observations)
    assert time.process_time() - started < 3  # measured: 0.1
