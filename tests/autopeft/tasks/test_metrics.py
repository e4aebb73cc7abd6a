"""Metrics by hand, against scipy, and at their edges."""

import numpy as np
import pytest
from scipy import stats

from autopeft.errors import TaskError
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.metrics import METRICS, find_metric, score

PREDICTED = np.array([0, 1, 1, 2, 2, 2, 0, 1])
ACTUAL = np.array([0, 1, 0, 2, 2, 1, 0, 1])


def test_accuracy_is_the_share_of_hits():
    assert score("accuracy", PREDICTED, ACTUAL) == 6 / 8


def test_f1_is_of_class_one():
    predicted, actual = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 1])
    assert score("f1", predicted, actual) == pytest.approx(2 * 2 / (3 + 3))


def test_macro_f1_is_the_mean_over_classes_held_or_predicted():
    by_class = [2 * 2 / (2 + 3), 2 * 2 / (3 + 3), 2 * 2 / (3 + 2)]
    assert score("macro_f1", PREDICTED, ACTUAL) == pytest.approx(sum(by_class) / 3)
    assert score("macro_f1", np.array([0, 2]), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)


def test_matthews_of_two_classes_is_the_textbook_formula():
    predicted, actual = np.array([1, 1, 1, 0, 0, 0, 1, 0]), np.array([1, 0, 1, 0, 1, 0, 1, 0])
    hits, misses, rejections, alarms = 3, 1, 3, 1
    below = (hits + alarms) * (hits + misses) * (rejections + alarms) * (rejections + misses)
    expected = (hits * rejections - alarms * misses) / below**0.5
    assert score("matthews", predicted, actual) == pytest.approx(expected)


def test_matthews_of_two_classes_is_the_correlation_that_scipy_computes():
    generator = np.random.default_rng(0)
    predicted, actual = generator.integers(0, 2, 200), generator.integers(0, 2, 200)
    assert score("matthews", predicted, actual) == pytest.approx(stats.pearsonr(predicted, actual).statistic)


def test_matthews_of_three_classes_is_gorodkins_from_the_confusion_matrix():
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (ACTUAL, PREDICTED), 1)
    count, hits = confusion.sum(), np.trace(confusion)
    actual, predicted = confusion.sum(1), confusion.sum(0)
    above = hits * count - actual @ predicted
    expected = above / np.sqrt((count**2 - predicted @ predicted) * (count**2 - actual @ actual))
    assert score("matthews", PREDICTED, ACTUAL) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_agree_with_scipy(ties):
    generator = np.random.default_rng(1)
    actual = generator.normal(size=100)
    predicted = actual + generator.normal(size=100)
    if ties:
        actual, predicted = actual.round(), predicted.round()
    pearson, spearman = stats.pearsonr(predicted, actual).statistic, stats.spearmanr(predicted, actual).statistic
    assert score("pearson", predicted, actual) == pytest.approx(pearson)
    assert score("spearman", predicted, actual) == pytest.approx(spearman)
    assert score("pearson_spearman", predicted, actual) == pytest.approx((pearson + spearman) / 2)


def test_correlations_by_hand():
    assert score("pearson", np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])) == pytest.approx(1.0)
    assert score("spearman", np.array([1.0, 2.0, 9.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert score("spearman", np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_finite_whatever_is_predicted(metric):
    regression = METRICS[metric].is_regression
    constant = np.full(4, 0.25) if regression else np.zeros(4, dtype=int)
    labels = np.array([0.0, 1.0, 2.0, 3.0]) if regression else np.array([0, 1, 1, 1])
    assert np.isfinite(score(metric, constant, labels))
    assert np.isfinite(score(metric, labels, constant))
    if regression:
        assert score(metric, constant, labels) == 0.0
        assert score(metric, np.array([np.nan, 1.0, 2.0, 3.0]), labels) == 0.0
        assert np.isfinite(score(metric, labels * 1e300, labels * 1e-300))


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "likelihood"])
def test_the_right_answer_scores_one(metric):
    labels = np.array([0.5, 1.0, 4.0]) if METRICS[metric].is_regression else np.array([0, 1, 1, 0])
    assert score(metric, labels, labels) == pytest.approx(1.0)


def test_the_floor_is_the_score_of_the_majority_class():
    labels = np.array([0, 1, 1, 1])
    assert METRICS["accuracy"].floor(labels) == 0.75
    assert METRICS["macro_f1"].floor(labels) == pytest.approx((2 * 3 / 7 + 0) / 2)
    assert METRICS["f1"].floor(labels) == pytest.approx(6 / 7)
    assert METRICS["f1"].floor(1 - labels) == 0.0
    assert METRICS["matthews"].floor(labels) == 0.0
    assert all(METRICS[name].floor(np.array([1.0, 2.5])) == 0.0 for name in ("pearson", "spearman", "pearson_spearman"))


@pytest.mark.parametrize(("predicted", "labels"), [([], []), ([1, 0], [1]), ([[1, 0]], [[1, 0]])])
def test_what_cannot_be_scored_is_refused(predicted, labels):
    with pytest.raises(TaskError, match="expected one prediction for each"):
        score("accuracy", np.array(predicted), np.array(labels))


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(TaskError, match="'rouge'; expected one of accuracy, macro_f1, f1, matthews, pearson"):
        find_metric("rouge")


def test_a_likelihood_is_the_geometric_mean_over_tokens():
    assert score("likelihood", np.log([0.5, 0.25]), np.array([1, 2])) == pytest.approx((0.5 * 0.25) ** (1 / 3))
    assert score("likelihood", np.array([-700.0 * 8]), np.array([8])) >= 0.0


def test_each_kind_of_task_has_its_metrics():
    fitting = {kind: [name for name in METRICS if METRICS[name].fits(kind)] for kind in TaskKind}
    assert fitting[TaskKind.CLASSIFICATION] == fitting[TaskKind.IMAGE_CLASSIFICATION]
    assert fitting[TaskKind.CLASSIFICATION] == ["accuracy", "macro_f1", "f1", "matthews"]
    assert fitting[TaskKind.REGRESSION] == ["pearson", "spearman", "pearson_spearman"]
    assert fitting[TaskKind.CAUSAL_LM] == ["option_accuracy", "exact_match", "token_f1", "number", "likelihood"]
