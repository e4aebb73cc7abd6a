"""Is the front better than the plain LoRA rank sweep? A difference with its interval, and one plain sentence.

Only measurements that had no part in choosing a configuration count, so that nothing is judged by the luck that chose
it. Two sources of noise are kept apart: which validation rows there are (the same for all configurations, hence
paired), and the seed of a training: what the data order of a replicate does to all configurations alike, and what is
each run's own, whose variance is pooled over all configurations; what is not known of it widens the interval as
Student's t does. Noise is drawn from its estimated distribution (a parametric bootstrap): a hypervolume of noisy
qualities is biased upwards, more so for a front of many members; the bias is taken out, and the interval is the basic
one around what remains (Davison and Hinkley 1997, eq. 5.6). Says nothing of other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from autopeft import pareto
from autopeft.errors import ConfigurationError
from autopeft.picking import Candidate
from autopeft.precision import Noise

Array = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
BUDGET_SHARES = (0.25, 0.5, 1.0)
"""Shares of the budget at which the best qualities are compared."""


class Answer(StrEnum):
    """What an interval allows to say."""

    BETTER = "better"
    SAME = "not distinguishable"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Gap:
    """Front less control, with its interval.

    Attributes:
        value: Estimate, bias taken out.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def answer(self) -> Answer:
        """Better or worse only where the whole interval says so."""
        if self.low > 0:
            return Answer.BETTER
        return Answer.WORSE if self.high < 0 else Answer.SAME


@dataclass(frozen=True, slots=True)
class Contender:
    """A member of the front or of the control, as measurements that did not choose it have it.

    Attributes:
        candidate: Its objectives and the precision of its quality.
        parameters: Trained parameters.
    """

    candidate: Candidate
    parameters: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a front with a control.

    Attributes:
        hypervolume: Difference of hypervolumes.
        at: Per share of the budget the difference of the best qualities within it, where both sides have one.
        runs: Least number of runs behind any configuration.
        knows_seeds: Whether what another seed changes is in the intervals.
        knows_rows: Whether what other validation rows change is.
    """

    hypervolume: Gap
    at: tuple[tuple[float, Gap], ...]
    runs: int
    knows_seeds: bool
    knows_rows: bool

    @property
    def answer(self) -> Answer:
        """What the difference in hypervolume allows to say."""
        return self.hypervolume.answer


def judge(
    front: Sequence[Contender],
    control: Sequence[Contender],
    box: pareto.Box,
    budget: int,
    noise: Noise,
    generator: np.random.Generator,
) -> Verdict:
    """The verdict on ``front`` against ``control``.

    Args:
        front: Members of the front.
        control: Members of the control.
        box: What hypervolumes are measured in.
        budget: Most trained parameters; the shares of it are taken of this.
        noise: What another seed changes, as the estimates of the contenders have it.
        generator: For the bootstrap.

    Raises:
        ConfigurationError: If either side is empty.
    """
    if not front or not control:
        raise ConfigurationError("a verdict needs a front and a control with at least one measured configuration each")
    contenders, split = [*front, *control], len(front)
    qualities = [one.candidate.quality for one in contenders]
    means = np.array([one.mean for one in qualities])
    errors = _Errors.drawn(contenders, noise, generator)
    others = [one.candidate.values[1:] for one in contenders]

    def volumes(row: Array) -> float:
        points = [(quality, *rest) for quality, rest in zip(row.tolist(), others, strict=True)]
        return pareto.hypervolume(points[:split], box) - pareto.hypervolume(points[split:], box)

    at = []
    for share in BUDGET_SHARES:
        inside = np.array([one.parameters <= share * budget for one in contenders])
        if inside[:split].any() and inside[split:].any():
            at.append((share, _gap(_best_within(inside, split), means, errors)))
    return Verdict(
        _gap(volumes, means, errors),
        tuple(at),
        min(one.repeats for one in qualities),
        all(one.seed_error is not None for one in qualities),
        errors.knows_rows,
    )


def memberships(contenders: Sequence[Contender], noise: Noise, generator: np.random.Generator) -> list[float]:
    """The probability of each contender that no other one dominates it, given what is known of their qualities."""
    if not contenders:
        return []
    errors = _Errors.drawn(contenders, noise, generator)
    qualities = np.array([one.candidate.quality.mean for one in contenders]) + errors.inflated
    others = np.array([one.candidate.values[1:] for one in contenders])
    # [i, j]: i costs at most what j costs, and: less somewhere
    cheaper: NDArray[np.bool_] = np.all(others[:, None, :] <= others[None, :, :], axis=2)
    strictly: NDArray[np.bool_] = np.any(others[:, None, :] < others[None, :, :], axis=2)
    dominated = np.zeros(qualities.shape, dtype=np.bool_)
    for index in range(len(contenders)):
        better = qualities[:, [index]] > qualities
        equal = qualities[:, [index]] == qualities
        dominated |= cheaper[index] & (better | (equal & strictly[index]))
    return [float(share) for share in 1 - dominated.mean(axis=0)]


@dataclass(frozen=True)
class _Errors:
    """Draws of how far mean qualities may be off, shape [DRAWS, k] each.

    Attributes:
        plain: As if their spread were what was estimated.
        inflated: With what is not known of the spread between runs, as in Student's t.
        knows_rows: Whether validation rows are in them.
    """

    plain: Array
    inflated: Array
    knows_rows: bool

    @classmethod
    def drawn(cls, contenders: Sequence[Contender], noise: Noise, generator: np.random.Generator) -> _Errors:
        """Draws for the means of ``contenders``."""
        qualities = [one.candidate.quality for one in contenders]
        between = np.array([one.seed_error or 0.0 for one in qualities])
        own = between * generator.standard_normal((DRAWS, len(between)))
        factor = np.ones((DRAWS, 1))
        if noise.degrees:
            factor = np.sqrt(noise.degrees / generator.chisquare(noise.degrees, (DRAWS, 1)))
        rows = [one.marks for one in qualities]
        knows_rows = len({len(marks) for marks in rows}) == 1 and len(rows[0]) > 1
        runs = min(one.repeats for one in qualities)
        shared = np.tile(noise.common / math.sqrt(runs) * generator.standard_normal((DRAWS, 1)), len(between))
        if knows_rows:
            runs_each = np.array([one.repeats for one in qualities])
            shared += generator.standard_normal((DRAWS, len(rows))) @ _root(np.array(rows), runs_each, noise.turned).T
        return cls(own + shared, factor * own + shared, knows_rows)


def _root(rows: Array, runs: NDArray[np.int64], turned: float) -> Array:
    """A root R of the covariance R Rᵀ that other validation rows give the means of ``rows``, shape [k, k].

    What is a run's own among the rows is counted with the runs already, so it is taken out of the variances.

    Args:
        rows: Share of correct runs of every row, shape [k, rows].
        runs: Behind each of the k.
        turned: ``Noise.turned``.
    """
    means = rows.mean(axis=1)
    covariance = np.cov(rows).reshape(len(rows), len(rows)) - np.diag(turned * means * (1 - means) / runs)
    values, vectors = np.linalg.eigh(covariance / rows.shape[1])
    root: Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _best_within(inside: NDArray[np.bool_], split: int) -> Callable[[Array], float]:
    def gap(qualities: Array) -> float:
        ours, theirs = qualities[:split][inside[:split]], qualities[split:][inside[split:]]
        return float(ours.max() - theirs.max())

    return gap


def _gap(statistic: Callable[[Array], float], means: Array, errors: _Errors) -> Gap:
    """The statistic of the true qualities, less the bias that noise of the estimated spread gives it."""
    seen = statistic(means)
    bias = float(np.mean([statistic(means + row) for row in errors.plain])) - seen
    values = np.array([statistic(means + row) for row in errors.inflated])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values - values.mean(), [tail, 1 - tail])
    return Gap(seen - bias, seen - bias - float(high), seen - bias - float(low))
