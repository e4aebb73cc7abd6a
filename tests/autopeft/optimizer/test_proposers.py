"""What every proposer promises, on each of them."""

import subprocess
import sys
from dataclasses import replace

import pytest

from autopeft.errors import BudgetError, ConfigurationError
from autopeft.optimizer import PROPOSERS, make_proposer, require_able
from autopeft.pareto import Axis
from autopeft.study import PARAMETERS, Direction, Objective
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.presets import build

SLOW = ("gpsampler", "botorch", "saasbo-map")
CHEAP = [name for name in PROPOSERS if name not in (*SLOW, "saasbo-nuts")]


@pytest.fixture(params=[*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def proposer(request, monkeypatch):
    # a peer is asked again for what is of no use, each time with a fit; the rest is drawn at random either way
    monkeypatch.setattr("autopeft.optimizer.peers.PATIENCE", 4)
    return make_proposer(request.param, initial_count=4, seed=3)


def digests(configurations):
    return {configuration.digest for configuration in configurations}


class TestEveryProposer:
    def test_it_has_the_name_it_was_asked_by(self, proposer):
        assert proposer.name in PROPOSERS
        assert proposer == make_proposer(proposer.name, 4, 3)

    @pytest.mark.parametrize("count", [0, 1, 3, 7])
    @pytest.mark.parametrize("observed", [0, 1, 3, 9])
    def test_it_proposes_as_many_new_ones_as_asked_within_the_budget(self, proposer, question, observed, count):
        observations = question.observe(question.sample(observed))
        pending = question.sample(3, seed=5)
        batch = question.ask(proposer, observations, pending, count)
        known = digests(o.configuration for o in observations) | digests(pending)
        assert len(batch) == len(digests(batch) - known) == count
        assert all(question.space.cost(plan) <= question.scale.cost_ceiling for plan in batch)
        assert [question.space.decode(question.space.encode(plan)) for plan in batch] == batch

    def test_equal_arguments_give_equal_configurations(self, proposer, question):
        observations, pending = question.observe(question.sample(9)), question.sample(2, seed=5)
        again = make_proposer(proposer.name, 4, 3)
        assert question.ask(proposer, observations, pending, 6) == question.ask(again, observations, pending, 6)

    def test_asking_leaves_nothing_behind(self, proposer, question):
        observations = question.observe(question.sample(9))
        first = question.ask(proposer, observations, count=5)
        question.ask(proposer, question.observe(question.sample(12, seed=8)), count=3)
        assert question.ask(proposer, observations, count=5) == first

    def test_another_seed_gives_other_configurations(self, proposer, question):
        other = make_proposer(proposer.name, 4, 4)
        assert question.ask(proposer, count=4, seed=0) != question.ask(other, count=4, seed=1)

    def test_it_goes_on_with_pending_ones_only(self, proposer, question):
        pending = question.sample(9)
        assert len(question.ask(proposer, pending=pending, count=3)) == 3

    @pytest.mark.parametrize("quality", [0.0, 0.4, 0.7, 1.0])
    def test_it_goes_on_when_all_trials_are_equal(self, proposer, question, quality):
        observations = question.observe(question.sample(9), quality=quality)
        assert len(question.ask(proposer, observations, count=3)) == 3

    def test_it_goes_on_when_only_the_control_is_there(self, proposer, question):
        observations = question.observe(question.sample(9), counts=False)
        assert len(question.ask(proposer, observations, count=6)) == 6

    def test_it_goes_on_when_everything_proposed_failed(self, proposer, question):
        failed = []
        for _ in range(10):
            failed += question.ask(proposer, pending=failed, count=1)
        assert len(digests(failed)) == 10

    def test_a_search_survives_trials_that_fail_diverge_and_break_a_measured_limit(self, proposer, question):
        observations, failed = [], []
        for number in range(9):
            (plan,) = question.ask(proposer, observations, failed, limits={"train_seconds": 1.0}, seed=number)
            seen = question.observe([plan])[0]
            slow = replace(seen, values={**seen.values, "train_seconds": 2.0})
            diverged = replace(seen, values={"accuracy": 0.4}, counts=False)
            if number % 4:
                observations.append((seen, slow, diverged)[number % 4 - 1])
            else:
                failed.append(plan)
        tried = digests(o.configuration for o in observations) | digests(failed)
        assert len(tried) == 9

    def test_it_goes_on_when_everything_was_infeasible(self, proposer, question):
        observations = [
            replace(seen, values={**seen.values, "train_seconds": 2.0}) for seen in question.observe(question.sample(9))
        ]
        batch = question.ask(proposer, observations, count=6, limits={"train_seconds": 1.0})
        assert len(digests(batch) - digests(o.configuration for o in observations)) == 6

    def test_it_goes_on_when_everything_was_over_the_budget(self, proposer, make_question):
        free, question = make_question(ranks=(0, 1, 2, 4, 8)), make_question(ranks=(0, 1, 2, 4, 8), budget=48)
        dear = [plan for plan in free.sample(20) if free.space.cost(plan) > 48]
        batch = question.ask(proposer, question.observe(dear), count=6)
        assert len(digests(batch)) == 6
        assert max(map(question.space.cost, batch)) <= 48

    def test_it_goes_on_when_quality_and_cost_are_constant(self, proposer, question):
        point = question.space.encode(question.sample(1)[0])
        plans = [question.space.decode((point[0], rate)) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]
        observations = question.observe(plans, quality=0.7)
        assert len(digests(question.ask(proposer, observations, count=6)) - digests(plans)) == 6

    def test_it_ignores_what_is_not_in_the_space(self, proposer, question, tiny_backbone):
        head_only = Configuration((LayerPlan(), LayerPlan()), Training(1e-3))
        stranger = uniform(tiny_backbone, ("query",), Lora(5, 5.0), 1e-3)
        assert len(question.ask(proposer, question.observe([stranger], quality=0.9), [head_only], 3)) == 3
        both = question.observe([stranger], quality=0.9) + question.observe(question.sample(6))
        assert len(question.ask(proposer, both, [head_only, stranger], 3)) == 3

    def test_repeats_of_one_configuration_are_several_observations(self, proposer, question):
        observations = [*question.observe(question.sample(6)), *question.observe(question.sample(6), quality=0.6)]
        assert len(question.ask(proposer, observations, count=2)) == 2

    def test_a_small_space_is_told_to_the_last_configuration(self, proposer, make_question):
        question, observations = make_question(), []
        while batch := question.ask(proposer, observations, count=3, seed=len(observations)):
            observations += question.observe(batch)
        proposed = [observation.configuration for observation in observations]
        assert len(proposed) == len(digests(proposed)) == question.space.size == 8

    def test_more_than_there_are_gives_those_there_are(self, proposer, make_question):
        question = make_question()
        observations = question.observe(question.sample(3))
        assert len(question.ask(proposer, observations, count=50)) == 5
        assert len(question.ask(proposer, count=50)) == 8

    def test_the_budget_cuts_a_small_space(self, proposer, make_question):
        question = make_question(budget=32)
        assert {question.space.cost(plan) for plan in question.ask(proposer, count=50)} == {16, 32}
        assert len(question.ask(proposer, count=50)) == 5

    def test_a_space_of_one_configuration_gives_it_once(self, proposer, make_question):
        question = make_question(ranks=(2,), layers=((0,),), budget=32)
        only = question.ask(proposer, count=2)
        assert [question.space.cost(plan) for plan in only] == [32]
        assert question.ask(proposer, question.observe(only), count=2) == []
        assert question.ask(proposer, pending=only, count=2) == []

    def test_a_budget_that_nothing_fits_is_refused(self, proposer, make_question):
        question = make_question(budget=15)
        for observations in ([], question.observe([question.space.decode(((1, 0), 1e-3))])):
            with pytest.raises(BudgetError, match="raise --budget"):
                question.ask(proposer, observations)


OBJECTIVES = (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))
FLOPS, SECONDS = Objective("forward_flops", Direction.MINIMISE), Objective("train_seconds", Direction.MINIMISE)


def rank_sum(configuration):
    return float(sum(method.rank for _, _, method in configuration.placements()))


def three_objectives(question, observed, further):
    """Arguments of ``ask`` for quality, parameters and ``further``: an exact or a measured cost that follows the ranks.

    As many as six: the first four are the Sobol start, and a model has to find the others.
    """
    observations = [
        replace(seen, values={**seen.values, further.name: 1 + rank_sum(seen.configuration)})
        for seen in question.observe(question.sample(observed))
    ]
    axes = {further.name: Axis(1.0, 100.0, logarithmic=True)}
    known = {further.name: rank_sum} if further is FLOPS else {}
    return {"observations": observations, "objectives": (*OBJECTIVES, further), "axes": axes, "known": known}


class TestEveryProposerWithThreeObjectives:
    @pytest.mark.parametrize("further", [FLOPS, SECONDS], ids=["exact", "measured"])
    @pytest.mark.parametrize("observed", [0, 3, 9])
    def test_it_proposes_new_ones_within_the_budget(self, proposer, question, further, observed):
        asked = three_objectives(question, observed, further)
        batch = question.ask(proposer, count=6, **asked)
        known = digests(seen.configuration for seen in asked["observations"])
        assert len(digests(batch) - known) == len(batch) == 6
        assert all(question.space.cost(plan) <= question.scale.cost_ceiling for plan in batch)
        assert question.ask(proposer, count=6, **asked) == batch

    def test_parameters_need_not_be_an_objective(self, proposer, question):
        asked = three_objectives(question, 9, SECONDS)
        batch = question.ask(proposer, count=6, **asked | {"objectives": (OBJECTIVES[0], SECONDS)})
        assert len(digests(batch)) == 6
        assert all(question.space.cost(plan) <= question.scale.cost_ceiling for plan in batch)

    def test_four_objectives_with_a_limit(self, proposer, question):
        asked = three_objectives(question, 9, FLOPS)
        seconds = [replace(o, values={**o.values, "train_seconds": 2.0}) for o in asked["observations"]]
        asked |= {
            "observations": seconds,
            "objectives": (*OBJECTIVES, FLOPS, SECONDS),
            "limits": {"forward_flops": 6.0},
        }
        asked["axes"] = {**asked["axes"], "train_seconds": Axis(1.0, 4.0, logarithmic=True)}
        batch = question.ask(proposer, count=6, **asked)
        assert len(batch) == 6
        assert max(map(rank_sum, batch)) <= 6

    def test_it_goes_on_when_the_third_was_never_measured(self, proposer, question):
        asked = three_objectives(question, 9, SECONDS) | {"observations": question.observe(question.sample(9))}
        assert len(question.ask(proposer, count=6, **asked)) == 6


def test_an_unknown_proposer_names_those_there_are():
    with pytest.raises(
        ConfigurationError, match="proposer 'bo': expected one of closed-form, random, sobol, evolution, tpe"
    ):
        make_proposer("bo", 4, 0)


def test_nuts_without_its_libraries_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"jax and numpyro not installed.*pip install jax numpyro"):
        make_proposer("saasbo-nuts", 4, 0)


def test_a_proposer_that_learns_quality_alone_refuses_a_measured_cost():
    require_able("saasbo-nuts", [])
    with pytest.raises(ConfigurationError, match="saasbo-nuts learns the quality alone, and train_seconds is measured"):
        require_able("saasbo-nuts", ["train_seconds"])
    for name in PROPOSERS.keys() - {"saasbo-nuts"}:
        require_able(name, ["train_seconds", "peak_memory"])


def test_the_heavy_libraries_are_loaded_only_when_asked_for():
    code = "import sys\nfrom autopeft.optimizer import make_proposer\nmake_proposer('closed-form', 4, 0)\n"
    code += "make_proposer('evolution', 4, 0), make_proposer('botorch', 4, 0)\n"
    code += "print(*{'torch', 'optuna', 'botorch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


@pytest.mark.parametrize("name", ["joint", "mola"])
def test_it_proposes_from_spaces_of_choices_too(proposer, name, tiny_backbone, make_question_on):
    question = make_question_on(build(name, tiny_backbone, (1e-4, 1e-2)))
    observations = question.observe(question.sample(6))
    batch = question.ask(proposer, observations, question.sample(2, seed=5), 4)
    known = digests(o.configuration for o in observations)
    assert len(batch) == len(digests(batch) - known) == 4
    assert all(question.space.cost(plan) <= question.scale.cost_ceiling for plan in batch)
    assert [question.space.decode(question.space.encode(plan)) for plan in batch] == batch


def test_learning_proposers_begin_with_the_anchors_of_the_space(tiny_backbone, make_question_on):
    question = make_question_on(build("mola", tiny_backbone, (1e-4, 1e-2)))
    anchors = [question.space.decode(point) for point in question.space.anchors(question.scale.cost_ceiling)]
    assert len(anchors) == 5
    start = question.ask(make_proposer("closed-form", 6, 3), count=6)
    assert start[: len(digests(anchors))] == list({plan.digest: plan for plan in anchors}.values())
    assert len(digests(start)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["closed-form", "botorch"])
def test_where_quality_is_constant_what_is_left_to_gain_is_cost(name, tiny_backbone, make_question_on):
    # in a space of choices the exact cost is not the column after the coordinates
    question = make_question_on(build("joint", tiny_backbone, (1e-4, 1e-2)))
    plans = sorted(question.sample(20), key=question.space.cost)[8:]
    batch = question.ask(make_proposer(name, 0, 3), question.observe(plans, quality=0.7), count=2)
    assert max(map(question.space.cost, batch)) < question.space.cost(plans[0])
