import numpy as np

from autopeft.optimizer import make_proposer
from autopeft.optimizer.baselines import sobol_points


def test_the_sobol_sequence_does_not_depend_on_how_far_it_is_wanted(question):
    short, long = (sobol_points(question.space, 512, seed=1, expected=expected) for expected in (1, 200))
    assert [next(short) for _ in range(64)] == [next(long) for _ in range(64)]


def test_sobol_goes_on_where_it_stood_however_it_is_asked(question):
    sobol = make_proposer("sobol", 0, 1)
    at_once = question.ask(sobol, count=12)
    step_by_step = []
    while len(step_by_step) < 12:
        half = len(step_by_step) // 2
        observations = question.observe(step_by_step[:half])
        step_by_step += question.ask(sobol, observations, step_by_step[half:], 3, seed=len(step_by_step))
    assert step_by_step == at_once


def test_a_lost_point_of_the_sobol_sequence_is_proposed_again(question):
    sobol = make_proposer("sobol", 0, 1)
    first = question.ask(sobol, count=8)
    assert question.ask(sobol, question.observe(first[:3] + first[4:]), count=1) == [first[3]]


def test_sobol_covers_costs_from_small_to_large(question):
    costs = np.array([question.space.cost(plan) for plan in question.ask(make_proposer("sobol", 0, 1), count=32)])
    assert costs.min() <= 64
    assert costs.max() >= 256


def test_random_proposals_follow_the_generator(question):
    random = make_proposer("random", 0, 1)
    assert question.ask(random, count=4, seed=1) != question.ask(random, count=4, seed=2)
