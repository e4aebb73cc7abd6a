import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from autopeft.errors import ConfigurationError  # noqa: E402
from autopeft.optimizer.optuna_sampler import AutoPeftSampler  # noqa: E402
from autopeft.optimizer.optuna_space import OptunaTerrain  # noqa: E402
from autopeft.pareto import Axis  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)
DISTRIBUTIONS = {
    "rank": optuna.distributions.IntDistribution(1, 64, log=True),
    "layers": optuna.distributions.IntDistribution(1, 12),
    "rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
    "kind": optuna.distributions.CategoricalDistribution(("lora", "dora", None)),
    "share": optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25),
}


def cost(params):
    return params["rank"] * params["layers"]


def quality(params):
    bonus = {"lora": 0.1, "dora": 0.05, None: 0.0}[params["kind"]]
    rate = -0.1 * np.log10(params["rate"] / 1e-3) ** 2
    return 0.5 + bonus + rate + 0.3 * (1 - np.exp(-cost(params) / 100)) + 0.05 * params["share"]


def suggest(trial):
    return {
        "rank": trial.suggest_int("rank", 1, 64, log=True),
        "layers": trial.suggest_int("layers", 1, 12),
        "rate": trial.suggest_float("rate", 1e-4, 1e-2, log=True),
        "kind": trial.suggest_categorical("kind", ["lora", "dora", None]),
        "share": trial.suggest_float("share", 0, 1, step=0.25),
    }


def objective(trial):
    params = suggest(trial)
    return quality(params), float(cost(params))


def sampler(**changes):
    arguments = {"known_objectives": {1: cost}, "reference_point": (0.4, 400), "seed": 0, "initial_count": 6}
    return AutoPeftSampler(**{**arguments, **changes})


def study_with(chosen):
    return optuna.create_study(directions=["maximize", "minimize"], sampler=chosen)


def volume(study):
    from optuna._hypervolume import compute_hypervolume

    points = np.array([(-t.values[0], t.values[1]) for t in study.trials if t.state.name == "COMPLETE"])
    inside = points[(points < [-0.4, 400]).all(axis=1)]
    return compute_hypervolume(inside, np.array([-0.4, 400.0]))


def run(chosen, count=24):
    study = study_with(chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=count)
    return study


def test_it_beats_random_search_and_optunas_default():
    ours = volume(run(sampler()))
    assert ours > volume(run(optuna.samplers.RandomSampler(seed=0)))
    assert ours > volume(run(optuna.samplers.NSGAIISampler(seed=0)))


def test_equal_seeds_give_equal_studies():
    first, second = (run(sampler(), 12) for _ in range(2))
    assert [t.params for t in first.trials] == [t.params for t in second.trials]
    assert [t.params for t in run(sampler(seed=1), 4).trials] != [t.params for t in first.trials[:4]]


def test_no_parameters_are_tried_twice():
    tried = [tuple(sorted(t.params.items(), key=str)) for t in run(sampler(), 20).trials]
    assert len(set(tried)) == 20


def test_every_proposal_of_a_given_space_keeps_the_constraints():
    chosen = sampler(constraints={"cost": lambda params: cost(params) - 50}, space=DISTRIBUTIONS)
    assert max(cost(t.params) for t in run(chosen, 16).trials) <= 50


def test_a_learned_space_starts_with_one_random_trial():
    study = study_with(sampler())
    first, second = study.ask(), None
    assert first.relative_params == {}
    study.tell(first, objective(first))
    second = study.ask()
    assert set(second.relative_params) == set(DISTRIBUTIONS)


def test_asked_trials_that_have_suggested_nothing_are_not_proposed_again():
    study = study_with(sampler(space=DISTRIBUTIONS))
    for _ in range(8):
        trial = study.ask()
        study.tell(trial, objective(trial))
    waiting = [study.ask() for _ in range(4)]
    assert len({tuple(trial.relative_params.items()) for trial in waiting}) == 4
    for trial in waiting:
        study.tell(trial, objective(trial))
    assert len(study.trials) == 12


def test_failed_pruned_and_infinite_trials_are_survived():
    def treacherous(trial):
        values = objective(trial)
        if trial.number % 4 == 1:
            raise ValueError
        if trial.number % 4 == 2:
            raise optuna.TrialPruned
        return (float("inf"), values[1]) if trial.number % 4 == 3 else values

    study = study_with(sampler(initial_count=3))
    study.optimize(treacherous, n_trials=24, catch=(ValueError,))
    assert len({str(t.params) for t in study.trials}) == 24


def test_constraints_that_trials_set_are_learned():
    study = study_with(sampler(space=DISTRIBUTIONS))
    for _ in range(22):
        trial = study.ask()
        values = objective(trial)
        trial.set_constraint("memory", trial.params["layers"] - 6)
        study.tell(trial, values)
    kept = [t.params["layers"] <= 6 for t in study.trials[12:]]
    assert np.mean(kept) >= 0.7


@pytest.mark.parametrize("value", [0.2, 0.4, 0.9])
def test_constant_objectives_are_survived(value):
    study = study_with(sampler())
    study.optimize(lambda trial: (value, float(cost(suggest(trial)))), n_trials=12)
    assert len(study.trials) == 12


def test_two_measured_objectives_and_one():
    both = optuna.create_study(
        directions=["maximize", "minimize"], sampler=sampler(known_objectives={}, space=DISTRIBUTIONS)
    )
    both.optimize(objective, n_trials=14)
    single = optuna.create_study(
        direction="maximize", sampler=AutoPeftSampler(reference_point=(0.4,), seed=0, initial_count=6)
    )
    single.optimize(lambda trial: quality(suggest(trial)), n_trials=20)
    assert single.best_value > 0.85


def test_a_conditional_parameter_may_be_missing():
    def conditional(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        size = trial.suggest_int("size", 1, 8) if kind == "a" else 4
        return size / 8, float(size)

    study = study_with(AutoPeftSampler(reference_point=(0.0, 10.0), seed=0, initial_count=3))
    study.optimize(conditional, n_trials=12)
    assert len(study.trials) == 12


def test_more_trials_than_there_are_parameters_go_on():
    study = study_with(sampler(known_objectives={}, initial_count=2))
    study.optimize(lambda trial: (trial.suggest_int("x", 0, 2) / 2, 1.0), n_trials=7)
    assert {t.params["x"] for t in study.trials} == {0, 1, 2}


def test_wrong_numbers_of_objectives_are_refused():
    with pytest.raises(ConfigurationError, match="at least one objective that is measured"):
        AutoPeftSampler(known_objectives={0: cost}, reference_point=(1.0,))
    study = study_with(AutoPeftSampler(reference_point=(1.0, 2.0, 3.0), space=DISTRIBUTIONS))
    with pytest.raises(ConfigurationError, match="reference point of 3 values for a study of 2 objectives"):
        suggest(study.ask())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reference_point_that_is_not_finite_is_refused_at_once(value):
    with pytest.raises(ConfigurationError, match="expected a finite number for every objective"):
        AutoPeftSampler(reference_point=(0.5, value))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_known_objective_that_is_not_finite_is_refused_with_its_parameters(value):
    study = study_with(sampler(known_objectives={1: lambda params: value if params["layers"] > 6 else cost(params)}))
    with pytest.raises(ConfigurationError, match=f"known objective gave {value} for .*'layers': .*: expected a finite"):
        study.optimize(objective, n_trials=12)


def test_a_constraint_may_be_infinite_but_has_to_be_a_number():
    constraints = {"layers": lambda params: math.inf if params["layers"] > 6 else -math.inf}
    study = run(sampler(constraints=constraints, space=DISTRIBUTIONS), 12)
    assert max(trial.params["layers"] for trial in study.trials) <= 6
    study = study_with(sampler(constraints={"none": lambda params: math.nan}, space=DISTRIBUTIONS))
    with pytest.raises(ConfigurationError, match="a constraint gave nan"):
        study.optimize(objective, n_trials=1)


def test_constraints_that_nothing_keeps_are_said():
    study = study_with(sampler(constraints={"never": lambda params: 1.0}, space=DISTRIBUTIONS))
    with pytest.warns(UserWarning, match="none of .* points keeps every constraint"):
        study.optimize(objective, n_trials=1)


def test_the_surrogate_sees_the_exact_objectives():
    terrain = OptunaTerrain(DISTRIBUTIONS, [(cost, Axis(1.0, 1e4, True))])
    places = terrain.scattered(5, np.random.default_rng(0))
    features = terrain.features(places)
    assert features[:, :1] == pytest.approx(terrain.known(places))
    assert features.shape[1] == 1 + OptunaTerrain(DISTRIBUTIONS).features(places).shape[1]
    assert terrain.growing
    assert not OptunaTerrain(DISTRIBUTIONS).growing  # its first feature is some parameter


def test_places_and_parameters_are_inverse():
    terrain = OptunaTerrain(DISTRIBUTIONS)
    generator = np.random.default_rng(0)
    for place in terrain.scattered(50, generator):
        assert terrain.place(terrain.params(place)) == pytest.approx(place)
        assert all(DISTRIBUTIONS[n]._contains(v) for n, v in zip(terrain.names, place, strict=True))
        for near in terrain.near(place, generator):
            assert all(DISTRIBUTIONS[n]._contains(v) for n, v in zip(terrain.names, near, strict=True))
            assert sum(a != b for a, b in zip(near, place, strict=True)) == 1
    features = terrain.features(terrain.scattered(50, generator))
    assert features.shape == (50, 7)
    assert features.min() >= 0
    assert features.max() <= 1


def test_the_example_of_the_user_page_runs():
    page = (Path(__file__).parents[3] / "docs" / "optimizer.md").read_text()
    names = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert len(names["study"].trials) == 30
    assert max(trial.values[1] for trial in names["study"].trials[1:]) <= 400
