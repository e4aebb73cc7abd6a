"""Optuna's samplers as peers: TPE, NSGA-II, NSGA-III and GPSampler on an in-memory study rebuilt from the history.

Objectives are told minimised on their axes (cost on a log scale). An over-budget proposal is told to the model-based
samplers as one that breaks a constraint, with its exact cost and a middling quality; to the genetic ones as failed, as
it would fill a place in their population. These get generations in the order of the trials, because a rebuilt study has
lost them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from autopeft.errors import ConfigurationError
from autopeft.optimizer.coordinates import Coordinates
from autopeft.optimizer.history import History
from search_spaces.space import Point

RATE, BUDGET = "learning rate", "budget"
CONSTRAINT = f"constraints:{BUDGET}"
"""Where Optuna keeps what ``Trial.set_constraint`` is given."""

POPULATION = 20
"""Of the genetic samplers: their default of 50 leaves a search of 100 trials two generations."""


def require_optuna() -> Any:
    """The module ``optuna``.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError("this proposer needs Optuna 5: pip install 'optuna>=5,<6'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def tpe(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """Optuna's multivariate-free default TPE."""
    return _advice(history, lambda samplers, seed: samplers.TPESampler(seed=seed, n_startup_trials=0), generator)


def nsga2(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """Optuna's NSGA-II."""
    return _advice(
        history, lambda samplers, seed: samplers.NSGAIISampler(seed=seed, population_size=POPULATION), generator
    )


def nsga3(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """Optuna's NSGA-III."""
    return _advice(
        history, lambda samplers, seed: samplers.NSGAIIISampler(seed=seed, population_size=POPULATION), generator
    )


def gpsampler(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """Optuna's Gaussian process with its logarithm of expected hypervolume improvement."""
    return _advice(history, lambda samplers, seed: samplers.GPSampler(seed=seed, n_startup_trials=0), generator)


def _advice(
    history: History, make_sampler: Callable[[Any, int], Any], generator: np.random.Generator
) -> Iterator[Point]:
    optuna = require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = make_sampler(optuna.samplers, int(generator.integers(2**31)))
        key = sampler._get_generation_key() if hasattr(sampler, "_get_generation_key") else None
        study, distributions = _study(optuna, sampler, history, key)
    coordinates = Coordinates.of(history.space)
    means = history.minimised()[1].mean(axis=0).tolist()
    middling, learned = means[0], means[1 + len(history.aims.known) :]
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = study.ask(distributions)
        indices = tuple(int(trial.params[name]) for name in coordinates.names)
        point = coordinates.point(indices, float(trial.params.get(RATE, 0.5)))
        excess = float(history.space.point_costs([point])[0]) / history.scale.cost_ceiling - 1
        if excess > 0 and key is None:
            trial.set_constraint(BUDGET, excess)
            study.tell(trial, [middling, *history.known([point])[0].tolist(), *learned])
        elif excess > 0:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        yield point


def _study(optuna: Any, sampler: Any, history: History, key: str | None) -> tuple[Any, dict[str, Any]]:
    """A study with everything in ``history``, and its search space; ``key`` holds a trial's generation."""
    coordinates = Coordinates.of(history.space)
    distributions: dict[str, Any] = {
        name: optuna.distributions.IntDistribution(0, size - 1)
        for name, size in zip(coordinates.names, coordinates.sizes, strict=True)
    }
    if coordinates.has_rate:
        distributions[RATE] = optuna.distributions.FloatDistribution(0.0, 1.0)
    rows, values = history.minimised()
    study = optuna.create_study(directions=["minimize"] * values.shape[1], sampler=sampler)
    excess = history.space.point_costs(history.points) / history.scale.cost_ceiling - 1
    state = optuna.trial.TrialState
    for order, (row, value) in enumerate(zip(rows.tolist(), values, strict=True)):
        study.add_trial(
            optuna.trial.create_trial(
                state=state.COMPLETE,
                params=_params(coordinates, history.points[row]),
                distributions=distributions,
                values=value.tolist(),
                system_attrs={key: order // POPULATION} if key else {CONSTRAINT: float(excess[row])},
            )
        )
    for point in history.pending:
        params = _params(coordinates, point)
        study.add_trial(optuna.trial.create_trial(state=state.RUNNING, params=params, distributions=distributions))
    return study, distributions


def _params(coordinates: Coordinates, point: Point) -> dict[str, float | int]:
    params: dict[str, float | int] = dict(zip(coordinates.names, point[0], strict=True))
    if coordinates.has_rate:
        params[RATE] = coordinates.unit_rate(point)
    return params
