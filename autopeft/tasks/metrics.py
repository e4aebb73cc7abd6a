"""The metrics of tasks: predictions and labels in, one finite number out, higher is better.

Of language modelling there are ``option_accuracy`` (the likeliest option is the right one), ``likelihood`` (exp of
minus the mean loss of a token, in (0, 1]: its floor is 0, which the uniform distribution's 1/vocabulary is next to; the
inverse of perplexity), and those that grade what is generated (``autopeft.tasks.grading``). No thresholds, no averaging
over seeds, and no loss: ``workers`` keeps those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from autopeft.errors import TaskError
from autopeft.tasks.kinds import TaskKind

OPTION_ACCURACY, EXACT_MATCH, LIKELIHOOD = "option_accuracy", "exact_match", "likelihood"
TOKEN_F1, NUMBER = "token_f1", "number"
CUSTOM = "custom_"
"""Begins the name of every metric from a file of the user's."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "acc": "accuracy",
        "f1_macro": "macro_f1",
        "macro-f1": "macro_f1",
        "mcc": "matthews",
        "matthews_corrcoef": "matthews",
        "matthews_correlation": "matthews",
        "pearsonr": "pearson",
        "spearmanr": "spearman",
    }
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of predictions against labels, arrays of one axis (n): class indices, or numbers for regression.

    Of ``option_accuracy`` they are indices of options, of what is generated grades and the best there are, of
    ``likelihood`` log-likelihoods of answers and their lengths in tokens.
    """

    name: str
    compute: Callable[[np.ndarray, np.ndarray], float]
    is_regression: bool = False
    is_causal: bool = False

    def fits(self, kind: TaskKind) -> bool:
        """Whether a task of that kind can be ranked by it."""
        wanted = (kind is TaskKind.REGRESSION, kind is TaskKind.CAUSAL_LM)
        return (self.is_regression, self.is_causal) == wanted

    def floor(self, labels: np.ndarray) -> float:
        """Score of always saying the most frequent class; 0 for a correlation, and where there are no classes."""
        if self.is_regression or self.is_causal or len(labels) == 0:
            return 0.0
        return self.compute(np.full(len(labels), np.bincount(labels).argmax()), labels)


def find_metric(name: str) -> Metric:
    """The metric of that name; of one from a file, which graded its rows already, their mean.

    Raises:
        TaskError: If there is none.
    """
    if name.startswith(CUSTOM):
        return Metric(name, _mean_grade, is_causal=True)
    if name == "perplexity":
        raise TaskError(f"the metric is {name}, which falls with quality; choose {LIKELIHOOD}, its inverse")
    if name not in METRICS:
        raise TaskError(f"the metric is {name!r}; expected one of {', '.join(METRICS)}, or FILE.py:function")
    return METRICS[name]


def is_causal(metric: str) -> bool:
    """Whether a study that is ranked by it is of a language model; False for a name that nobody knows."""
    return metric.startswith(CUSTOM) or (metric in METRICS and METRICS[metric].is_causal)


def score(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Score of ``predictions`` (n) against ``labels`` (n), always finite.

    Raises:
        TaskError: If the metric is unknown, or the arrays are empty or of different length.
    """
    chosen = find_metric(metric)
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1 or len(labels) == 0:
        raise TaskError(
            f"{metric} got predictions of shape {predictions.shape} and labels of shape {labels.shape}; "
            f"expected one prediction for each of at least one label"
        )
    return chosen.compute(predictions, labels)


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(predictions == labels))


def _f1_of(index: int, predictions: np.ndarray, labels: np.ndarray) -> float:
    hits = np.sum((predictions == index) & (labels == index))
    claims = np.sum(predictions == index) + np.sum(labels == index)
    return float(2 * hits / claims) if claims else 0.0


def _f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    return _f1_of(1, predictions, labels)


def _macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    classes = np.union1d(predictions, labels)
    return float(np.mean([_f1_of(index, predictions, labels) for index in classes]))


def _matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Gorodkin's coefficient for any number of classes; 0 where one side holds one class only."""
    classes = np.union1d(predictions, labels)
    predicted = (predictions[:, None] == classes).astype(float)
    actual = (labels[:, None] == classes).astype(float)
    covariance = np.sum((predicted - predicted.mean(0)) * (actual - actual.mean(0)))
    spread = np.sum((predicted - predicted.mean(0)) ** 2) * np.sum((actual - actual.mean(0)) ** 2)
    return _bounded(covariance, spread)


def _pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    predictions, labels = predictions.astype(float), labels.astype(float)
    if not (np.isfinite(predictions).all() and np.isfinite(labels).all()):
        return 0.0
    left, right = _unit_scaled(predictions - predictions.mean()), _unit_scaled(labels - labels.mean())
    return _bounded(np.sum(left * right), np.sum(left**2) * np.sum(right**2))


def _spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    if not np.isfinite(predictions.astype(float)).all():
        return 0.0
    return _pearson(_ranks(predictions), _ranks(labels))


def _pearson_spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    return (_pearson(predictions, labels) + _spearman(predictions, labels)) / 2


def _mean_grade(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.where(predictions == labels, 1.0, predictions)))


def _likelihood(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.exp(min(0.0, predictions.astype(float).sum() / max(1.0, labels.sum()))))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value (n), ties at their mean."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[where])


def _unit_scaled(values: np.ndarray) -> np.ndarray:
    """Values divided by the largest, so that squares neither vanish nor overflow."""
    largest = np.abs(values).max()
    return values / largest if largest > 0 else values


def _bounded(covariance: float, spread: float) -> float:
    return float(np.clip(covariance / np.sqrt(spread), -1.0, 1.0)) if spread > 0 else 0.0


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", _accuracy),
            Metric("macro_f1", _macro_f1),
            Metric("f1", _f1),
            Metric("matthews", _matthews),
            Metric("pearson", _pearson, is_regression=True),
            Metric("spearman", _spearman, is_regression=True),
            Metric("pearson_spearman", _pearson_spearman, is_regression=True),
            Metric(OPTION_ACCURACY, _accuracy, is_causal=True),
            Metric(EXACT_MATCH, _mean_grade, is_causal=True),
            Metric(TOKEN_F1, _mean_grade, is_causal=True),
            Metric(NUMBER, _mean_grade, is_causal=True),
            Metric(LIKELIHOOD, _likelihood, is_causal=True),
        )
    }
)
