"""What every proposer promises, on each of them."""

import subprocess
import sys

import pytest

from autopeft.errors import BudgetError, ConfigurationError
from autopeft.optimizer import PROPOSERS, make_proposer
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.methods.lora import Lora

SLOW = ("gpsampler", "botorch", "saasbo-map")
CHEAP = [name for name in PROPOSERS if name not in (*SLOW, "saasbo-nuts")]


@pytest.fixture(params=[*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def proposer(request):
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


def test_an_unknown_proposer_names_those_there_are():
    with pytest.raises(
        ConfigurationError, match="proposer 'bo': expected one of closed-form, random, sobol, evolution, tpe"
    ):
        make_proposer("bo", 4, 0)


def test_nuts_without_its_libraries_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"jax and numpyro not installed.*pip install jax numpyro"):
        make_proposer("saasbo-nuts", 4, 0)


def test_the_heavy_libraries_are_loaded_only_when_asked_for():
    code = "import sys\nfrom autopeft.optimizer import make_proposer\nmake_proposer('closed-form', 4, 0)\n"
    code += "make_proposer('evolution', 4, 0), make_proposer('botorch', 4, 0)\n"
    code += "print(*{'torch', 'optuna', 'botorch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []
