"""BoTorch as a peer: Gaussian processes on what is measured, exact costs, noisy EHVI by Monte Carlo (qLogNEHVI).

Three surrogates share it: SingleTaskGP, an ensemble of MAP-SAAS processes, and SAAS by NUTS (arXiv 2103.00384), the
AutoPEFT paper's choice, here not of the cost because that is exact. Maximised by the same kind of discrete climb as
ours. Slow: seconds a proposal, by NUTS tens of seconds.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from autopeft.errors import ConfigurationError
from autopeft.optimizer.compiled import compiled
from autopeft.optimizer.ground import Ground
from autopeft.optimizer.history import History
from search_spaces.space import Point

SAMPLES = 64
STARTS = 128
CLIMBERS = 2
MAX_STEPS = 10


def botorch(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """SingleTaskGP."""
    return _advice(history, _single_task, generator)


def saasbo_map(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """An ensemble of MAP-SAAS processes."""
    return _advice(history, _map_saas, generator)


def saasbo_nuts(history: History, generator: np.random.Generator) -> Iterator[Point]:
    """SAAS by NUTS."""
    return _advice(history, _nuts_saas, generator)


def require_nuts() -> None:
    """Nothing, if NUTS can run.

    Raises:
        ConfigurationError: If JAX or NumPyro is not installed.
    """
    missing = [name for name in ("jax", "numpyro") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"proposer saasbo-nuts: {' and '.join(missing)} not installed, and BoTorch samples by NUTS with them: "
            "pip install jax numpyro, or take saasbo-map"
        )


def _single_task(inputs: Any, values: Any) -> Any:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    model = SingleTaskGP(inputs, values)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _map_saas(inputs: Any, values: Any) -> Any:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    model = EnsembleMapSaasSingleTaskGP(inputs, values)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _nuts_saas(inputs: Any, values: Any) -> Any:
    from botorch.fit import fit_fully_bayesian_model_nuts
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    model = SaasFullyBayesianSingleTaskGP(inputs, values)
    fit_fully_bayesian_model_nuts(model, warmup_steps=256, num_samples=128, thinning=16, disable_progbar=True)
    return model


def _advice(history: History, fit: Callable[[Any, Any], Any], generator: np.random.Generator) -> Iterator[Point]:
    """The points of one climb by falling acquisition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = _acquisition(history, fit, int(generator.integers(2**31)))
        yield from _climb(history, value, generator)


def _inputs(history: History, points: Sequence[Point]) -> Any:
    """What is exact, then the other features, shape [n, d]."""
    import torch

    return torch.tensor(Ground(history).features(points))


def _acquisition(
    history: History, fit: Callable[[Any, Any], Any], seed: int
) -> Callable[[Sequence[Point]], np.ndarray[Any, np.dtype[np.float64]]]:
    """The acquisition as a function of points: a model for each learned objective, the exact ones from the inputs."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.models import ModelListGP
    from botorch.sampling import SobolQMCNormalSampler

    torch.manual_seed(seed)
    rows, values = history.minimised()
    inputs = _inputs(history, [history.points[row] for row in rows])
    costs = len(history.aims.known)
    learned = torch.tensor(np.column_stack([1 - values[:, 0], -values[:, 1 + costs :]]))
    location, spread = learned.mean(dim=0), learned.std(dim=0, correction=0).clamp_min(1e-9)
    models = [fit(inputs, column[:, None]) for column in ((learned - location) / spread).T]

    def objective(samples: Any, X: Any) -> Any:  # noqa: N803 - BoTorch calls it by that name
        if X.dim() < samples.dim() - 1:
            # an ensemble has a dimension of its members before the points
            X = X.unsqueeze(-3)  # noqa: N806
        exact = -X[..., :costs].expand(*samples.shape[:-1], costs)
        return torch.cat([samples * spread + location, exact], dim=-1)

    with compiled():
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model=models[0] if len(models) == 1 else ModelListGP(*models),
            ref_point=[0.0] + [-1.0] * (values.shape[1] - 1),
            X_baseline=inputs,
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
            objective=GenericMCMultiOutputObjective(objective),
            prune_baseline=True,
            X_pending=_inputs(history, history.pending) if history.pending else None,
        )

    def value(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.float64]]:
        with torch.no_grad():
            parts = [acquisition(part[:, None, :]) for part in _inputs(history, points).split(64)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    return value


def _climb(
    history: History,
    value: Callable[[Sequence[Point]], np.ndarray[Any, np.dtype[np.float64]]],
    generator: np.random.Generator,
) -> Iterator[Point]:
    """Every scored point, best first, after a climb from the best of random points and neighbours of the best."""
    ground, scores = Ground(history), dict[Point, float]()
    seen = {*history.points, *history.pending}

    def score(points: Sequence[Point]) -> list[Point]:
        fresh = [point for point in dict.fromkeys(points) if point not in seen and point not in scores]
        if fresh:
            fresh = [fresh[index] for index in np.flatnonzero(ground.feasible(fresh))]
        if fresh:
            scores.update(zip(fresh, value(fresh).tolist(), strict=True))
        return sorted(fresh, key=lambda point: -scores[point])

    rows, values = history.minimised()
    best = [history.points[rows[index]] for index in np.argsort(values.sum(axis=1))[:3]]
    near = [point for point in best for point in ground.near(point, generator)]
    climbers = score([*near, *ground.scattered(STARTS, generator)])[:CLIMBERS]
    for _ in range(MAX_STEPS):
        moves = [(point, score(ground.near(point, generator))) for point in climbers]
        climbers = [near[0] for point, near in moves if near and scores[near[0]] > scores[point]]
        if not climbers:
            break
    yield from sorted(scores, key=lambda point: -scores[point])
