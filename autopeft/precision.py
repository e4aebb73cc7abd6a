"""How precisely a measured value is known: standard errors from repeats and from single validation rows.

Two independent causes are added: other validation rows would have scored otherwise (told by the per-row marks), and
another seed would have trained otherwise (told by repeats; where a configuration has none, by those of the study).
Differences are paired over rows, since all trials of a study are scored on the same ones. Pure; no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.96
"""Standard errors to either side that a 95 % interval spans."""

SHARES = ("accuracy", "macro_f1", "f1", "option_accuracy", "exact_match", "token_f1", "number", "likelihood")
"""Metrics between 0 and 1."""

CORRELATIONS = ("matthews", "pearson", "spearman", "pearson_spearman")
"""Metrics between -1 and 1."""

AGREES = 1e-6
"""Marks tell the precision of a value only if their mean is that value: of an accuracy, not of an F1."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What another seed changes, pooled over the repeats of a study.

    Attributes:
        deviation: Standard deviation of one run, in the metric's unit; None without repeats.
        degrees: Degrees of freedom behind it.
        common: Standard deviation of what a replicate does to all runs alike, where that was taken out of the other.
        turned: Share of the variance of a row's mark that is one run's own: another run of the same configuration is
            right on other rows. It is part of ``deviation``, and no part of what other rows would change.
    """

    deviation: float | None = None
    degrees: int = 0
    common: float = 0.0
    turned: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A value with what is known of its precision.

    Attributes:
        mean: Over repeats.
        repeats: Runs behind it.
        marks: Share of correct repeats of every validation row, shape [rows]; empty where that is not known.
        seed_error: Standard error from the seed; None where unknown.
    """

    mean: float
    repeats: int
    marks: NDArray[np.float64]
    seed_error: float | None

    @property
    def row_error(self) -> float | None:
        """Standard error from the validation rows; None where unknown."""
        return _mean_error(self.marks)

    @property
    def error(self) -> float | None:
        """Standard error of the mean, from all known causes; None where none is known."""
        return _added(self.row_error, self.seed_error)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, or None."""
        return None if self.error is None else (self.mean - Z95 * self.error, self.mean + Z95 * self.error)


@dataclass(frozen=True, slots=True)
class Difference:
    """One value less another.

    Attributes:
        mean: The difference.
        error: Its standard error; None where unknown.
    """

    mean: float
    error: float | None

    @property
    def is_tie(self) -> bool:
        """Whether the 95 % interval holds 0; without a known error only equal values tie."""
        return self.mean == 0 if self.error is None else abs(self.mean) <= Z95 * self.error


def possible(metric: str, interval: tuple[float, float]) -> tuple[float, float]:
    """``interval`` without what no value of ``metric`` can be; as it is for one whose bounds nobody knows."""
    least = 0.0 if metric in SHARES else -1.0 if metric in CORRELATIONS else -math.inf
    most = 1.0 if metric in (*SHARES, *CORRELATIONS) else math.inf
    low, high = interval
    return min(max(low, least), most), max(min(high, most), least)


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise:
    """The spread of repeats around their means; one group is the values of one configuration."""
    squares, degrees = 0.0, 0
    for values in groups:
        mean = sum(values) / len(values)
        squares += sum((value - mean) ** 2 for value in values)
        degrees += len(values) - 1
    return Noise(math.sqrt(squares / degrees), degrees) if degrees else Noise()


def interaction_noise(runs: Iterable[Mapping[int, float]]) -> Noise:
    """What another seed changes in the differences between configurations.

    All trials of a replicate share their data order, which lifts or lowers all of them alike and leaves differences as
    they are. Value = configuration + replicate + residual, by least squares; the spread of the residuals comes back,
    and that of the replicates beside it.

    Args:
        runs: For each configuration its values by replicate.
    """
    rows = [(index, replicate, value) for index, values in enumerate(runs) for replicate, value in values.items()]
    replicates = sorted({replicate for _, replicate, _ in rows})
    count = len({index for index, _, _ in rows})
    design = np.zeros((len(rows), count + len(replicates)))
    for number, (index, replicate, _) in enumerate(rows):
        design[number, [index, count + replicates.index(replicate)]] = 1.0
    if not rows:
        return Noise()
    values = np.array([value for _, _, value in rows])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    degrees = len(rows) - int(rank)
    residuals = values - design @ solution
    common = float(np.std(solution[count:], ddof=1)) if len(replicates) > 1 else 0.0
    return Noise(math.sqrt(float(residuals @ residuals) / degrees), degrees, common) if degrees else Noise()


def turned_share(groups: Iterable[Sequence[Sequence[int]]]) -> float:
    """``Noise.turned`` from marks of repeats, in [0, 1]; 0 where no configuration has two marked runs.

    Args:
        groups: For each configuration the marks of its runs.
    """
    own = total = 0.0
    for marks in groups:
        if len(marks) > 1 and len({len(run) for run in marks}) == 1 and len(marks[0]):
            table = np.asarray(marks, dtype=np.float64)
            own += float(table.var(axis=0, ddof=1).mean())
            total += float(table.mean() * (1 - table.mean()))
    return min(1.0, own / total) if total else 0.0


def estimate(values: Sequence[float], correct: Sequence[Sequence[int]] = (), noise: Noise = Noise()) -> Estimate:
    """The estimate from the repeats of one configuration.

    Args:
        values: One a repeat, at least one.
        correct: Marks of the repeats that have them, 1 or 0 a validation row.
        noise: Of the study; tells what one run's seed is worth.
    """
    mean = sum(values) / len(values)
    return Estimate(mean, len(values), _marks(mean, correct, len(values)), _seed_error(values, noise))


def difference(left: Estimate, right: Estimate) -> Difference:
    """``left`` less ``right``, paired over validation rows where both know them."""
    rows: float | None
    if len(left.marks) and len(left.marks) == len(right.marks):
        rows = _mean_error(left.marks - right.marks)
    else:
        rows = _added(left.row_error, right.row_error)
    return Difference(left.mean - right.mean, _added(rows, left.seed_error, right.seed_error))


def _marks(mean: float, correct: Sequence[Sequence[int]], repeats: int) -> NDArray[np.float64]:
    sizes = {len(marks) for marks in correct}
    if len(correct) != repeats or len(sizes) != 1 or 0 in sizes:
        return np.empty(0)
    marks = np.asarray(correct, dtype=np.float64).mean(axis=0)
    return marks if abs(float(marks.mean()) - mean) < AGREES else np.empty(0)


def _mean_error(marks: NDArray[np.float64]) -> float | None:
    return float(marks.std(ddof=1)) / math.sqrt(len(marks)) if len(marks) > 1 else None


def _seed_error(values: Sequence[float], noise: Noise) -> float | None:
    """Pooled over the study, which knows more than two or three repeats; their own spread where that is all."""
    if noise.deviation is not None:
        return noise.deviation / math.sqrt(len(values))
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _added(*errors: float | None) -> float | None:
    known = [error for error in errors if error is not None]
    return math.sqrt(sum(error**2 for error in known)) if known else None
