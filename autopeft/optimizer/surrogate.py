"""A dense Gaussian process on quality: Matern-5/2 with one lengthscale a dimension, fitted by MAP.

The logarithm of a lengthscale is normal about that of the square root of the dimension, as the distance of two points
grows with it (arXiv 2402.02229); what is known to move the quality by itself, whatever else there is, has a short one.
The mean is shrunk to that of the values: where nothing was seen, nothing better than the usual is expected. Values are
standardised, so the signal variance is 1, on average: plans of a few parameters are all about as good as no adapter,
large ones lie far apart, so the deviation may grow along the cost (``Growth``), and the mean with it. Gradients are
analytic, and a few BLAS calls make each; hyperparameters are fitted on at most ``FIT_ROWS`` rows. Repeats of a point
are one row, whose noise is smaller and whose scatter tells the noise. One output only; beyond a few thousand rows
nothing here helps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = NDArray[np.float64]

LENGTHSCALE_SPREAD = math.sqrt(3)
DECISIVE_LOCATION, DECISIVE_SPREAD = -0.5, 0.5
NOISE_LOCATION, NOISE_SPREAD = -5.0, 1.0
MEAN_SPREAD = 0.3
GROWTH_SPREAD = 2.0
RISE_SPREAD = 0.3
LENGTHSCALE_BOUNDS = (math.log(0.025), math.log(1e3))
NOISE_BOUNDS = (math.log(1e-4), math.log(2.0))
MEAN_BOUNDS = (-3.0, 3.0)
GROWTH_BOUNDS = (-5.0, 5.0)
FIT_ROWS = 300
"""Rows that hyperparameters are fitted on: their gradient costs n³, and 300 tell them as well as 1000."""

FIT_TOLERANCE = 1e-6
"""A step of the fit that gains less, as a share of the log posterior, is the last one."""

PRIOR_DEGREES = 4
"""Repeats that a point's own noise is worth against the common one."""

_ROOT5 = math.sqrt(5)


@dataclass(frozen=True, slots=True)
class Samples:
    """Noisy values, one row a distinct point.

    Attributes:
        features: Shape [n, d], n ≥ 1, about [0, 1].
        values: Mean of each point's values, shape [n].
        factors: Variance of that mean over the common noise variance, shape [n].
        squares: Squared deviations of repeats from their means, summed, each over its point's noise factor.
        degrees: How many of them are free.
        decisive: How many features, the last ones, move the values whatever the others are.
        growing: Whether the values may lie farther apart the larger the first feature is, or the smaller.
    """

    features: Array
    values: Array
    factors: Array
    squares: float = 0.0
    degrees: int = 0
    decisive: int = 0
    growing: bool = False

    @classmethod
    def single(cls, features: Array, values: Array, decisive: int = 0, growing: bool = False) -> Samples:
        """One value a row."""
        return cls(features, values, np.ones(len(values)), decisive=decisive, growing=growing)

    @classmethod
    def grouped(
        cls, features: Array, repeats: Sequence[Sequence[float]], decisive: int = 0, growing: bool = False
    ) -> Samples:
        """One row a point, with all the values seen there.

        Where repeats scatter more or less than the common noise, the point's noise follows, shrunk towards the
        common one by ``PRIOR_DEGREES``.
        """
        counts = np.array([len(values) for values in repeats])
        means = np.array([np.mean(values) for values in repeats])
        squares = np.array([np.sum((np.array(v) - m) ** 2) for v, m in zip(repeats, means, strict=True)])
        degrees = int((counts - 1).sum())
        pooled = squares.sum() / degrees if degrees else 0.0
        own = np.ones(len(counts))
        if pooled > 0:
            own = (PRIOR_DEGREES + squares / pooled) / (PRIOR_DEGREES + counts - 1)
        return cls(features, means, own / counts, float((squares / own).sum()), degrees, decisive, growing)

    def standardised(self) -> tuple[Samples, float, float]:
        """These with mean 0 and spread 1, and the location and spread that were taken out."""
        location, spread = float(self.values.mean()), float(self.values.std())
        # a spread of rounding errors is no signal
        spread = spread if spread > 1e-9 * max(1.0, abs(location)) else 1.0
        values = (self.values - location) / spread
        return replace(self, values=values, squares=self.squares / spread**2), location, spread

    def thinned(self, count: int) -> Samples:
        """Some ``count`` of the rows, evenly spread over their order."""
        if len(self.values) <= count:
            return self
        rows = np.unique(np.linspace(0, len(self.values) - 1, count).astype(int))
        return replace(self, features=self.features[rows], values=self.values[rows], factors=self.factors[rows])

    def prior(self) -> tuple[Array, Array]:
        """Location and spread of the normal prior of the hyperparameters, each of shape [d + 4].

        In the order of ``Hyperparameters.from_vector``.
        """
        dimension = self.features.shape[1]
        many = dimension - self.decisive
        location = [0.5 * math.log(dimension)] * many + [DECISIVE_LOCATION] * self.decisive + [NOISE_LOCATION, 0, 0, 0]
        spread = [LENGTHSCALE_SPREAD] * many + [DECISIVE_SPREAD] * self.decisive
        return np.array(location), np.array([*spread, NOISE_SPREAD, MEAN_SPREAD, GROWTH_SPREAD, RISE_SPREAD])


@dataclass(frozen=True, slots=True)
class Growth:
    """The prior deviation along the first feature x, cut to [0, 1]: exp(rate · x), 1 on the samples' average square.

    Attributes:
        rate: Its growth from 0 to 1, as a logarithm.
        offset: Logarithm of its root mean square over the samples.
        usual: Its mean over them.
    """

    rate: float
    offset: float
    usual: float

    @classmethod
    def over(cls, rate: float, features: Array) -> Growth:
        """That of ``rate``, for samples at ``features``, shape [n, d]."""
        raw = np.exp(rate * sizes(features))
        square = float(np.mean(raw**2))
        return cls(rate, 0.5 * math.log(square), float(raw.mean()) / math.sqrt(square))

    def at(self, features: Array) -> Array:
        """The deviation, shape [n], at ``features``, shape [n, d]."""
        deviation: Array = np.exp(self.rate * sizes(features) - self.offset)
        return deviation


def sizes(features: Array) -> Array:
    """The feature that the deviation grows along, shape [n]: beyond its usual range it grows no more."""
    return np.clip(features[:, 0], 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is fitted, for standardised values.

    Attributes:
        lengthscales: Shape [d].
        noise: Variance of the noise.
        mean: Of the process, where the deviation is the usual one.
        growth: Of the deviation.
        rise: How much of a deviation the mean rises where the deviation does.
    """

    lengthscales: Array
    noise: float
    mean: float
    growth: Growth
    rise: float

    @classmethod
    def from_vector(cls, theta: Array, samples: Samples) -> Hyperparameters:
        """From [log lengthscales…, log noise, mean, rate of the growth, rise], shape [d + 4].

        The last two count only where the values of ``samples`` may grow.
        """
        noise, mean, rate, rise = theta[-4:].tolist()
        if not samples.growing:
            rate = rise = 0.0
        return cls(np.exp(theta[:-4]), math.exp(noise), mean, Growth.over(rate, samples.features), rise)

    def means(self, deviation: Array) -> Array:
        """Prior means, of the shape of ``deviation``, where the prior deviation is so large."""
        means: Array = self.mean + self.rise * (deviation - self.growth.usual)
        return means

    def covariance(self, left: Array, right: Array) -> Array:
        """Prior covariance, shape [n, m], of the latent function at ``left``, shape [n, d], and ``right``, [m, d]."""
        correlation = matern(squared_distances(left / self.lengthscales, right / self.lengthscales))
        covariance: Array = correlation * np.outer(self.growth.at(left), self.growth.at(right))
        return covariance


class GaussianProcess:
    """The posterior of a latent function given noisy values.

    Args:
        samples: What was seen, as measured.
        hyperparameters: Fitted elsewhere (``fit``); for values standardised by ``location`` and ``spread``.
        location: Subtracted from the values.
        spread: The values are divided by it.
    """

    def __init__(self, samples: Samples, hyperparameters: Hyperparameters, location: float, spread: float) -> None:
        self.samples = samples
        self.hyperparameters = hyperparameters
        self._location, self._spread = location, spread
        covariance = hyperparameters.covariance(samples.features, samples.features)
        covariance[np.diag_indices_from(covariance)] += hyperparameters.noise * samples.factors
        self._lower = cho_factor(covariance, lower=True)[0]
        means = hyperparameters.means(hyperparameters.growth.at(samples.features))
        residuals = (samples.values - location) / spread - means
        self._weights = cho_solve((self._lower, True), residuals)

    @classmethod
    def fit(cls, samples: Samples) -> GaussianProcess:
        """The process whose hyperparameters are the most probable ones, from a fixed start; constant values too."""
        standardised, location, spread = samples.standardised()
        thinned = standardised.thinned(FIT_ROWS)
        hyperparameters = Hyperparameters.from_vector(maximum_a_posteriori(thinned), thinned)
        return cls(samples, hyperparameters, location, spread)

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of one value, as measured."""
        return self._spread * math.sqrt(self.hyperparameters.noise)

    def posterior(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the latent function, each of shape [q], at ``features``, shape [q, d]."""
        cross = self.hyperparameters.covariance(self.samples.features, features)
        deviation = self.hyperparameters.growth.at(features)
        mean = self.hyperparameters.means(deviation) + cross.T @ self._weights
        explained = solve_triangular(self._lower, cross, lower=True, check_finite=False)
        variance = np.maximum(deviation**2 - np.einsum("ij,ij->j", explained, explained), 1e-12)
        return self._location + self._spread * mean, self._spread * np.sqrt(variance)

    def covariance(self, features: Array) -> Array:
        """Covariance of the latent function at ``features``, shape [q, q]."""
        cross = self.hyperparameters.covariance(self.samples.features, features)
        explained = solve_triangular(self._lower, cross, lower=True, check_finite=False)
        prior = self.hyperparameters.covariance(features, features)
        covariance: Array = self._spread**2 * (prior - explained.T @ explained)
        return covariance

    def leave_one_out(self) -> tuple[Array, Array]:
        """Mean and standard deviation, each of shape [n], of every sample's value as told by all the others.

        In closed form (Rasmussen and Williams, 2006, eq. 5.12), with the hyperparameters of all; the noise of the value
        itself is part of its deviation.
        """
        inverse = cho_solve((self._lower, True), np.eye(len(self._weights)))
        variance = 1 / np.diag(inverse)
        standardised = (self.samples.values - self._location) / self._spread - self._weights * variance
        return self._location + self._spread * standardised, self._spread * np.sqrt(variance)

    def draw(self, features: Array, count: int, generator: np.random.Generator) -> Array:
        """Joint draws of the latent function, shape [count, q], at ``features``, shape [q, d]."""
        mean, _ = self.posterior(features)
        # eigenvalues, because repeats and neighbours leave the covariance singular up to rounding
        values, vectors = np.linalg.eigh(self.covariance(features))
        normal = generator.standard_normal((count, len(mean)))
        draws: Array = mean + (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return draws

    def believing(self, features: Array) -> GaussianProcess:
        """The same process after its own mean has been seen at ``features``, shape [q, d] (kriging believer)."""
        if not len(features):
            return self
        mean, _ = self.posterior(features)
        believed = replace(
            self.samples,
            features=np.vstack([self.samples.features, features]),
            values=np.concatenate([self.samples.values, mean]),
            factors=np.concatenate([self.samples.factors, np.ones(len(mean))]),
        )
        return GaussianProcess(believed, self.hyperparameters, self._location, self._spread)


def squared_distances(left: Array, right: Array) -> Array:
    """Squared Euclidean distances, shape [n, m], between the rows of ``left`` and of ``right``."""
    squares: Array = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    return np.clip(squares, 0.0, None)


def matern(squares: Array) -> Array:
    """Matern-5/2 correlation at squared scaled distances, of their shape."""
    distances = _ROOT5 * np.sqrt(squares)
    correlation: Array = (1 + distances + distances**2 / 3) * np.exp(-distances)
    return correlation


def inverted(matrix: Array) -> tuple[Array, float]:
    """The inverse of a positive definite ``matrix``, shape [n, n], and half the logarithm of its determinant."""
    lower = cho_factor(matrix, lower=True, check_finite=False)[0]
    # a third of the work of solving for the identity; the upper triangle is left as it was
    inverse = np.tril(dpotri(lower, lower=1)[0])
    inverse += np.tril(inverse, -1).T
    return inverse, float(np.log(np.diag(lower)).sum())


def maximum_a_posteriori(samples: Samples) -> Array:
    """The hyperparameters, shape [d + 4], that minimise ``negative_log_posterior``."""
    dimension = samples.features.shape[1]
    start, _ = samples.prior()
    bounds = [LENGTHSCALE_BOUNDS] * dimension + [NOISE_BOUNDS, MEAN_BOUNDS, GROWTH_BOUNDS, MEAN_BOUNDS]
    result = minimize(
        negative_log_posterior,
        start,
        args=(samples,),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 100, "ftol": FIT_TOLERANCE},
    )
    return np.asarray(result.x)


def negative_log_posterior(theta: Array, samples: Samples) -> tuple[float, Array]:
    """Minus the log posterior of the hyperparameters, up to a constant, and its gradient.

    Args:
        theta: As ``Hyperparameters.from_vector`` takes it, shape [d + 4].
        samples: Standardised.
    """
    values = samples.values
    parameters = Hyperparameters.from_vector(theta, samples)
    deviation = parameters.growth.at(samples.features)
    squares = np.outer(deviation, deviation)
    scaled = samples.features / parameters.lengthscales
    distances = _ROOT5 * np.sqrt(squared_distances(scaled, scaled))
    decay = squares * np.exp(-distances)
    signal = (1 + distances + distances**2 / 3) * decay
    inverse, half_log_determinant = inverted(signal + np.diag(parameters.noise * samples.factors))
    residuals = values - parameters.means(deviation)
    weights = inverse @ residuals
    loss = 0.5 * residuals @ weights + half_log_determinant
    loss += 0.5 * (samples.squares / parameters.noise + samples.degrees * theta[-4])
    outer = inverse - np.outer(weights, weights)
    # sum over pairs of H_ij (x_i - x_j)^2 = 2 (sum_i x_i^2 sum_j H_ij - x' H x), for every dimension at once
    pairs = outer * (5 / 3 * (1 + distances) * decay)
    gradient = np.zeros_like(theta)
    gradient[:-4] = pairs.sum(axis=1) @ scaled**2 - np.einsum("id,id->d", scaled, pairs @ scaled)
    gradient[-4] = 0.5 * parameters.noise * (np.diag(outer) @ samples.factors)
    gradient[-4] += 0.5 * (samples.degrees - samples.squares / parameters.noise)
    gradient[-3] = -weights.sum()
    if samples.growing:
        size = sizes(samples.features)
        relative = size - (deviation**2 @ size) / (deviation**2).sum()
        grown = deviation * relative
        gradient[-2] = relative @ (outer * signal).sum(axis=1) - parameters.rise * weights @ (grown - grown.mean())
        gradient[-1] = -weights @ (deviation - parameters.growth.usual)
    location, spread = samples.prior()
    standardised = (theta - location) / spread
    return float(loss + 0.5 * standardised @ standardised), gradient + standardised / spread
