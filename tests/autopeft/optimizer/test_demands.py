import numpy as np
import pytest
from scipy.stats import norm

from autopeft.errors import ConfigurationError
from autopeft.optimizer import make_proposer
from autopeft.optimizer.bayesian import membership
from autopeft.optimizer.demands import Demands, LowerRung, Prior
from autopeft.optimizer.history import Aims
from autopeft.pareto import Axis, Box, hypervolume
from autopeft.study import PARAMETERS, Direction, Objective, Observation

QUALITY, COST = Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)
FLOPS, SECONDS = Objective("forward_flops", Direction.MINIMISE), Objective("inference_seconds", Direction.MINIMISE)
FLOPS_AXIS, SECONDS_AXIS = Axis(1.0, 1e4, True), Axis(1.0, 100.0, True)


def rank_sum(configuration):
    return float(sum(placement[2].rank for placement in configuration.placements()))


def rate(configuration):
    return configuration.training.learning_rate


def with_values(question, plans, **figures):
    """Observations of ``plans`` with further values from functions of the configuration."""
    return [
        Observation(seen.configuration, {**seen.values, **{name: f(seen.configuration) for name, f in figures.items()}})
        for seen in question.observe(plans)
    ]


@pytest.fixture
def closed_form():
    return make_proposer("closed-form", 0, 0)


def test_the_quality_alone_grows_along_the_cost_and_hangs_on_the_learning_rate(question):
    plans = question.sample(9)
    observations = with_values(question, plans, inference_seconds=rank_sum, train_seconds=rank_sum)
    rungs = tuple(LowerRung(seen, 0.25) for seen in question.observe(question.sample(3, seed=1)))
    plain = question.belief(
        observations,
        objectives=(QUALITY, COST, SECONDS),
        axes={SECONDS.name: SECONDS_AXIS},
        limits={"train_seconds": 40.0},
    )
    assert plain.height.samples.decisive == 1
    assert plain.height.samples.growing
    costs = [question.scale.cost.minimised([question.space.cost(plan)])[0] for plan in plans]
    assert plain.height.samples.features[:, 0] == pytest.approx(costs)
    rates = [question.space.learning_rate.feature(rate(plan)) for plan in plans]
    assert plain.height.samples.features[:, -1] == pytest.approx(rates)
    others = [*plain.learned, *(process for process, _ in plain.limits)]
    assert [(process.samples.decisive, process.samples.growing) for process in others] == [(0, False)] * 2
    rungs_too = question.belief(observations, lower_rungs=rungs)
    assert rungs_too.height.samples.decisive == 2  # and the share of the training
    assert rungs_too.height.samples.growing


@pytest.mark.parametrize("name", ["closed-form", "random", "sobol", "evolution"])
@pytest.mark.parametrize("observed", [0, 8])
def test_an_exact_limit_is_never_broken(question, name, observed):
    observations = question.observe(question.sample(observed))
    limits = {"known": {"ranks": rank_sum}, "limits": {"ranks": 4.0}}
    batch = question.ask(make_proposer(name, 2, 0), observations, count=6, **limits)
    assert len(batch) == 6
    assert max(map(rank_sum, batch)) <= 4


def test_a_measured_limit_is_kept_as_it_is_learned(question, closed_form):
    seconds = {"train_seconds": lambda plan: 10 * rank_sum(plan)}
    observations = with_values(question, question.sample(24), **seconds)
    limited = question.ask(closed_form, observations, count=6, limits={"train_seconds": 60.0})
    free = question.ask(closed_form, observations, count=6)
    assert np.median([rank_sum(plan) for plan in limited]) <= 6.5
    assert max(map(rank_sum, limited)) < max(map(rank_sum, free))


def test_what_breaks_a_measured_limit_is_no_step_of_the_front(question):
    observations = with_values(question, question.sample(9), train_seconds=rank_sum)
    belief = question.belief(observations, limits={"train_seconds": 4.0})
    kept = [question.space.encode(o.configuration) for o in observations if rank_sum(o.configuration) <= 4]
    assert list(belief.origins) == kept


def test_a_history_without_a_feasible_point_is_survived(question, closed_form):
    observations = with_values(question, question.sample(9), train_seconds=lambda plan: 100.0 + rank_sum(plan))
    assert len(question.ask(closed_form, observations, count=3, limits={"train_seconds": 1.0})) == 3
    assert len(question.ask(closed_form, question.observe(question.sample(6)), limits={"train_seconds": 1.0})) == 1


def test_gain_per_second_chooses_cheaper_trials(question, closed_form):
    observations = question.observe(question.sample(12))
    dear = question.ask(closed_form, observations, count=4)
    cheap = question.ask(closed_form, observations, count=4, predicted_seconds=lambda plan: rank_sum(plan) ** 2)
    assert sum(map(rank_sum, cheap)) < sum(map(rank_sum, dear))


def test_a_prior_steers_and_fades(question):
    prior = Prior(lambda plan: 1.0 if rate(plan) > 3e-3 else 0.0, strength=50)
    few, many = question.observe(question.sample(6)), question.observe(question.sample(60))
    points = [question.space.encode(plan) for plan in question.sample(40, seed=3)]
    favoured = np.array([rate > 3e-3 for _, rate in points])
    early = question.belief(few, prior=prior).terrain.worth(points)
    late = question.belief(many, prior=prior).terrain.worth(points)
    assert (early[favoured] == 1).all()
    assert 0 < early[~favoured].max() < late[~favoured].min() < 1
    with pytest.raises(ConfigurationError, match="nothing is ruled out"):
        Prior(lambda plan: 1.0, floor=0.0)


def test_lower_rungs_inform_the_surrogate_and_nothing_else(question):
    plans, short = question.sample(6), question.sample(30, seed=2)
    rungs = [
        LowerRung(Observation(o.configuration, {"accuracy": o.values["accuracy"] - 0.1}), 0.25)
        for o in question.observe(short)
    ]
    alone = question.belief(question.observe(plans))
    informed = question.belief(question.observe(plans), lower_rungs=rungs)
    unseen = question.sample(60, seed=5)
    points = [question.space.encode(plan) for plan in unseen]
    truth = np.array([(question.quality(plan) - 0.4) / 0.6 for plan in unseen])
    errors = [np.sqrt(np.mean((belief.posterior(points)[0] - truth) ** 2)) for belief in (alone, informed)]
    assert errors[1] < errors[0]
    assert informed.origins == alone.origins
    assert informed.seen == alone.seen


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_lower_rung_is_a_part_of_the_training(question, share):
    with pytest.raises(ConfigurationError, match="expected above 0 and below 1"):
        LowerRung(question.observe(question.sample(1))[0], share)


def test_three_objectives_two_of_them_exact(question, closed_form):
    demands = {"known": {"forward_flops": rank_sum}, "axes": {"forward_flops": FLOPS_AXIS}}
    observations = with_values(question, question.sample(12), forward_flops=rank_sum)
    objectives = (QUALITY, COST, FLOPS)
    batch = question.ask(closed_form, observations, count=3, objectives=objectives, **demands)
    assert len(batch) == 3
    belief = question.belief(observations, objectives=objectives, **demands)
    assert belief.reached.others.shape == (12, 2)
    assert belief.learned == ()


def test_a_measured_second_objective_is_learned(question, closed_form):
    figures = {"inference_seconds": lambda plan: 2 + rank_sum(plan)}
    observations = with_values(question, question.sample(12), **figures)
    demands, objectives = {"axes": {"inference_seconds": SECONDS_AXIS}}, (QUALITY, COST, SECONDS)
    assert len(question.ask(closed_form, observations, count=3, objectives=objectives, **demands)) == 3
    belief = question.belief(observations, objectives=objectives, **demands)
    assert len(belief.learned) == 1
    # a trial that lacks the figure still teaches its quality
    partial = [*question.observe(question.sample(3, seed=9)), *observations]
    assert len(question.belief(partial, objectives=objectives, **demands).origins) == 12
    unmeasured = question.observe(question.sample(5))
    assert len(question.ask(closed_form, unmeasured, count=2, objectives=objectives, **demands)) == 2


@pytest.mark.parametrize("limited", [False, True])
def test_the_gain_with_two_learned_objectives_is_that_of_the_services_hypervolume_by_sampling(question, limited):
    # accuracy and seconds learned, parameters exact; a limit on a third measured figure counts by its probability
    figures = {
        "inference_seconds": lambda plan: 2 + rank_sum(plan) + 30 * rate(plan),
        "train_seconds": lambda plan: 10 * rank_sum(plan),
    }
    observations = with_values(question, question.sample(14), **figures)
    objectives, limits = (QUALITY, COST, SECONDS), {"train_seconds": 200.0} if limited else {}
    axes = {"inference_seconds": SECONDS_AXIS}
    belief = question.belief(observations, objectives=objectives, axes=axes, limits=limits)
    box = Box((question.scale.quality, question.scale.cost, SECONDS_AXIS))
    front = [(o.values["accuracy"], o.values[PARAMETERS], o.values["inference_seconds"]) for o in observations]
    if limited:
        front = [point for point, o in zip(front, observations, strict=True) if o.values["train_seconds"] <= 200]
    before, generator, cells = hypervolume(front, box), np.random.default_rng(0), belief.reached.cells()
    compared = 0
    for plan in question.sample(4, seed=7):
        place = question.space.encode(plan)
        features = belief.terrain.features([place])
        mean, deviation = (float(x[0]) for x in belief.posterior([place]))
        second, doubt = (float(x[0]) for x in belief.learned[0].posterior(features))
        draws = generator.standard_normal((600, 2)) * (deviation, doubt) + (mean, second)
        # from the unit box back to what is measured
        sampled = [
            (0.4 + 0.6 * height, question.space.cost(plan), float(100.0 ** min(1.0, max(0.0, place))))
            for height, place in draws.tolist()
        ]
        gains = np.array([hypervolume([*front, point], box) - before for point in sampled])
        keeps = 1.0
        for process, limit in belief.limits:
            middle, spread = (float(x[0]) for x in process.posterior(features))
            keeps *= float(norm.cdf((limit - middle) / spread))
        closed = float(belief.gains([place], cells)[0])
        compared += closed > 1e-5
        assert closed == pytest.approx(gains.mean() * keeps, abs=4 * gains.std() / np.sqrt(600) + 1e-6)
    assert compared >= 2


def test_an_axis_against_the_direction_is_refused(question):
    with pytest.raises(ConfigurationError, match="exchange them"):
        Aims.of((QUALITY, FLOPS), question.scale, Demands(axes={"forward_flops": Axis(1e4, 1.0, True)}))


class TestRepeats:
    def noisy(self, question, plans, deviation, seed=0):
        generator = np.random.default_rng(seed)
        return [
            Observation(o.configuration, {**o.values, "accuracy": o.values["accuracy"] + deviation * float(z)})
            for o, z in zip(question.observe(plans), generator.standard_normal(len(plans)), strict=True)
        ]

    def test_none_are_proposed_unless_allowed(self, question, closed_form):
        plans = question.sample(10)
        observations = self.noisy(question, [*plans, *plans], 0.1)
        batch = question.ask(closed_form, observations, count=6)
        assert not {plan.digest for plan in batch} & {plan.digest for plan in plans}

    def test_in_an_exhausted_space_members_of_the_front_are_measured_again(self, make_question, closed_form):
        question = make_question()
        plans = [question.space.decode(point) for point in question.space.points_within(512)]
        observations = self.noisy(question, plans, 0.05)
        assert question.ask(closed_form, observations) == []
        again = question.ask(closed_form, observations, count=3, repeats=3)
        assert len(again) == 3
        assert {plan.digest for plan in again} <= {plan.digest for plan in plans}

    def test_no_configuration_is_measured_more_often_than_allowed(self, make_question, closed_form):
        question = make_question()
        plans = [question.space.decode(point) for point in question.space.points_within(512)]
        observations = self.noisy(question, plans, 0.05)
        again = question.ask(closed_form, observations, count=30, repeats=2)
        assert max(again.count(plan) for plan in again) == 1
        twice = [*observations, *self.noisy(question, plans, 0.05, seed=1)]
        assert question.ask(closed_form, twice, count=3, repeats=2) == []

    def test_without_noise_the_new_is_preferred(self, question, closed_form):
        plans = question.sample(20)
        batch = question.ask(closed_form, question.observe(plans), count=2, repeats=3)
        assert not {plan.digest for plan in batch} & {plan.digest for plan in plans}


class TestMembership:
    def ask(self, question, observations):
        return membership(
            question.space, question.scale, (QUALITY, COST), observations, np.random.default_rng(0), Demands()
        )

    def test_every_configuration_that_counts_has_a_probability(self, question):
        observations = [*question.observe(question.sample(9)), *question.observe(question.sample(3, seed=8), False)]
        odds = self.ask(question, observations)
        assert set(odds) == {o.configuration.digest for o in observations[:9]}
        assert all(0 <= value <= 1 for value in odds.values())

    def test_the_cheapest_is_surely_on_the_front_and_a_dominated_one_is_not(self, make_question):
        question = make_question(ranks=(0, 1, 2, 4, 8, 16))
        plans = sorted(question.sample(12), key=question.space.cost)
        odds = self.ask(question, question.observe(plans))
        cheapest = [plan for plan in plans if question.space.cost(plan) == question.space.cost(plans[0])]
        assert max(odds[plan.digest] for plan in cheapest) > 0.5
        dominated = question.observe(plans) + question.observe([plans[-1]] * 6, quality=0.41)
        assert self.ask(question, dominated)[plans[-1].digest] < 0.2

    def test_nothing_seen_has_no_members(self, question):
        assert self.ask(question, []) == {}
        assert self.ask(question, question.observe(question.sample(3), counts=False)) == {}
