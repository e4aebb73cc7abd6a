"""The closed-form proposer as a sampler for Optuna 5: exact objectives as functions, the rest learned.

Works through ``study.optimize`` and ``ask``/``tell``; failed and pruned trials are not asked again. The space is given,
or learned from the trials' define-by-run calls, so that the first trial is random. Not for pruning, which Optuna's
multi-objective studies do not have.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from autopeft.errors import ConfigurationError
from autopeft.optimizer.belief import Belief, Reached
from autopeft.optimizer.optuna_space import Figure, OptunaTerrain, Place
from autopeft.optimizer.surrogate import GaussianProcess, Samples
from autopeft.pareto import Axis

__all__ = ["AutoPeftSampler"]

PROPOSED = "autopeft:proposed"
"""System attribute with a trial's parameters before its objective asks for them."""

Array = NDArray[np.float64]


class AutoPeftSampler(BaseSampler):  # type: ignore[misc]
    """Expected hypervolume improvement in closed form, for studies with one or more objectives.

    Args:
        known_objectives: By index the objectives that follow from the parameters, as functions of the params dict.
        reference_point: One value an objective, in its own units: what is worse is of no use.
        constraints: By name functions of the params dict, feasible when ≤ 0; kept by every proposal but the first
            of a study whose space is not given. Constraints set by ``Trial.set_constraint`` are learned.
        seed: Equal seeds give equal proposals.
        space: Distributions by parameter name; None to learn them.
        initial_count: Trials that fill the space before the model takes over.

    Raises:
        ConfigurationError: If every objective is known, an index has no reference value, or a value is not finite.
    """

    def __init__(
        self,
        *,
        known_objectives: Mapping[int, Figure] | None = None,
        reference_point: Sequence[float],
        constraints: Mapping[str, Figure] | None = None,
        seed: int | None = None,
        space: Mapping[str, BaseDistribution] | None = None,
        initial_count: int = 10,
    ) -> None:
        self._known = dict(known_objectives or {})
        self._reference = tuple(float(value) for value in reference_point)
        self._constraints = dict(constraints or {})
        self._seed = int(np.random.default_rng(seed).integers(2**31))
        self._space = dict(space) if space is not None else None
        self._initial_count = initial_count
        self._random = RandomSampler(seed=self._seed)
        if not all(map(math.isfinite, self._reference)):
            raise ConfigurationError(f"reference point {self._reference}: expected a finite number for every objective")
        learned = len(self._reference) - len(self._known)
        if not set(self._known) <= set(range(len(self._reference))) or learned < 1:
            raise ConfigurationError(
                f"known objectives {sorted(self._known)} of {len(self._reference)} in the reference point: expected "
                "indices into it, and at least one objective that is measured"
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The given space, or every parameter that a trial has asked for.

        Raises:
            ConfigurationError: If the study has another number of objectives than the reference point.
        """
        if len(study.directions) != len(self._reference):
            raise ConfigurationError(
                f"reference point of {len(self._reference)} values for a study of {len(study.directions)} objectives: "
                "expected one value each"
            )
        if self._space is not None:
            return dict(self._space)
        space: dict[str, BaseDistribution] = {}
        for other in study.get_trials(deepcopy=False):
            space.update(other.distributions)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters to try next.

        Raises:
            ConfigurationError: If a known objective is not finite somewhere, or a constraint is not a number.
        """
        if not search_space:
            return {}
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        place, terrain = self._next(study.directions, others, search_space, trial.number)
        params = terrain.params(place)
        stored = json.dumps(dict(zip(terrain.names, place, strict=True)))
        study._storage.set_trial_system_attr(trial._trial_id, PROPOSED, stored)
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value: for a parameter that no trial has asked for before."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseeds what is random; proposals follow the seed and the trial's number."""
        self._random.reseed_rng()

    def _next(
        self,
        directions: Sequence[StudyDirection],
        others: Sequence[FrozenTrial],
        space: Mapping[str, BaseDistribution],
        number: int,
    ) -> tuple[Place, OptunaTerrain]:
        terrain = OptunaTerrain(space, (), tuple(self._constraints.values()))
        generator = np.random.default_rng([self._seed, number])
        done = [trial for trial in others if _is_finite(trial)]
        if len(done) < max(2, self._initial_count):
            taken = {_place(terrain, trial) for trial in others}
            cube = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(self._seed))
            candidates = terrain.spread(cube.random_base2(max(8, int(number + 1).bit_length() + 2)))
            return _first(terrain, candidates[number:], taken, generator), terrain
        belief = self._believe(terrain, directions, done, others)
        ranked = belief.best_points(generator)
        return (ranked[0] if ranked else _first(terrain, [], set(belief.seen), generator)), terrain

    def _believe(
        self,
        terrain: OptunaTerrain,
        directions: Sequence[StudyDirection],
        done: Sequence[FrozenTrial],
        others: Sequence[FrozenTrial],
    ) -> Belief[Place]:
        """The belief after the ``done`` of the ``others``, with those that run believed."""
        axes = self._axes(terrain, directions, done)
        exact = [(figure, axes[index]) for index, figure in sorted(self._known.items())]
        terrain = replace(terrain, objectives=exact)
        measured = [index for index in range(len(axes)) if index not in self._known]
        places = [_place(terrain, trial) for trial in done]
        columns = [axes[i].minimised([trial.values[i] for trial in done]) for i in measured]
        names = sorted({name for trial in done for name in trial.constraints})
        feasible = [all(value <= 0 for value in trial.constraints.values()) for trial in done]
        rows = np.flatnonzero(terrain.feasible(places) & np.array(feasible))
        inside = [places[row] for row in rows]
        stacked = np.column_stack([terrain.known(inside), *(column[rows] for column in columns[1:])])
        return Belief(
            terrain,
            _process(terrain, places, 1 - columns[0], terrain.growing),
            tuple(_process(terrain, places, column) for column in columns[1:]),
            tuple((_limit(terrain, places, done, name), 0.0) for name in names),
            Reached(1 - columns[0][rows], stacked, ceiling=math.inf, floor=-math.inf),
            tuple(inside),
            frozenset(_place(terrain, trial) for trial in others),
        ).believing([_place(terrain, trial) for trial in others if trial.state is TrialState.RUNNING])

    def _axes(
        self, terrain: OptunaTerrain, directions: Sequence[StudyDirection], done: Sequence[FrozenTrial]
    ) -> list[Axis]:
        """From the best value seen to the reference; beyond the best the axis goes on."""
        axes = []
        for index, (direction, worst) in enumerate(zip(directions, self._reference, strict=True)):
            values = np.array([trial.values[index] for trial in done])
            sign = 1 if direction is StudyDirection.MINIMIZE else -1
            best = float((sign * values).min() * sign)
            if sign * (worst - best) <= 0:
                best = worst - sign * max(float(np.ptp(values)), 1e-6 * max(1.0, abs(worst)))
            axes.append(Axis(best, worst))
        return axes


def _is_finite(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE and all(map(math.isfinite, trial.values))


def _place(terrain: OptunaTerrain, trial: FrozenTrial) -> Place:
    """Where ``trial`` is, or was meant to be if its objective has not asked yet."""
    place = terrain.place(trial.params)
    if PROPOSED in trial.system_attrs and trial.state is not TrialState.COMPLETE:
        meant = json.loads(trial.system_attrs[PROPOSED])
        return tuple(
            value if name in trial.params else meant.get(name, value)
            for name, value in zip(terrain.names, place, strict=True)
        )
    return place


def _first(
    terrain: OptunaTerrain, candidates: Sequence[Place], taken: set[Place], generator: np.random.Generator
) -> Place:
    """The first new feasible place: of ``candidates``, else of random ones; if there is none, any feasible one.

    Where nothing is feasible the first of them, with a warning.
    """
    candidates = [*candidates, *terrain.scattered(1024, generator)]
    feasible = [place for place, keeps in zip(candidates, terrain.feasible(candidates), strict=True) if keeps]
    if not feasible:
        warnings.warn(
            f"none of {len(candidates)} points keeps every constraint: proposing one that does not; are the "
            "constraints feasible when ≤ 0, as they have to be?",
            stacklevel=2,
        )
    fresh = [place for place in feasible if place not in taken]
    return next(iter([*fresh, *feasible, *candidates]))


def _process(terrain: OptunaTerrain, places: Sequence[Place], values: Array, growing: bool = False) -> GaussianProcess:
    groups: dict[Place, list[float]] = {}
    for place, value in zip(places, values.tolist(), strict=True):
        groups.setdefault(place, []).append(value)
    features = terrain.features(list(groups))
    return GaussianProcess.fit(Samples.grouped(features, list(groups.values()), terrain.decisive, growing))


def _limit(terrain: OptunaTerrain, places: Sequence[Place], done: Sequence[FrozenTrial], name: str) -> GaussianProcess:
    """The surrogate of a constraint that trials have set."""
    told = [
        (place, trial.constraints[name]) for place, trial in zip(places, done, strict=True) if name in trial.constraints
    ]
    return _process(terrain, [place for place, _ in told], np.array([value for _, value in told]))
