"""Standard errors by hand, and against their textbook formulas."""

import math

import numpy as np
import pytest

from autopeft.precision import (
    CORRELATIONS,
    SHARES,
    Difference,
    Noise,
    difference,
    estimate,
    pooled_noise,
    possible,
    turned_share,
)
from autopeft.tasks.metrics import METRICS


def test_the_rows_of_one_run_tell_a_binomial_error():
    marks = [1] * 75 + [0] * 25
    known = estimate([0.75], [marks])
    assert known.error == pytest.approx(math.sqrt(0.75 * 0.25 / 99))
    assert known.interval == pytest.approx((0.75 - 1.96 * known.error, 0.75 + 1.96 * known.error))


def test_marks_that_are_not_the_metric_tell_nothing_of_it():
    assert estimate([0.61], [[1, 0, 1, 1]]).error is None


def test_repeats_tell_the_error_of_their_mean():
    known = estimate([0.70, 0.72, 0.74])
    assert known.mean == pytest.approx(0.72)
    assert known.error == pytest.approx(0.02 / math.sqrt(3))


def test_one_run_takes_the_noise_of_the_study():
    noise = pooled_noise([[0.70, 0.74], [0.80, 0.82], [0.5]])
    assert noise.degrees == 2
    assert noise.deviation == pytest.approx(math.sqrt((2 * 0.02**2 + 2 * 0.01**2) / 2))
    assert estimate([0.9], noise=noise).error == pytest.approx(noise.deviation)
    assert estimate([0.9, 0.92], noise=noise).error == pytest.approx(noise.deviation / math.sqrt(2))


def test_without_repeats_the_noise_is_not_known():
    assert pooled_noise([[0.5], [0.6]]) == Noise(None, 0)
    assert pooled_noise([]) == Noise()


def test_pairing_over_rows_tells_apart_what_single_errors_do_not():
    generator = np.random.default_rng(0)
    left = (generator.random(400) < 0.8).astype(int)
    right = left.copy()
    right[np.flatnonzero(left)[:12]] = 0
    a, b = estimate([left.mean()], [left]), estimate([right.mean()], [right])
    unpaired = math.sqrt(a.error**2 + b.error**2)
    paired = difference(a, b)
    assert paired.mean == pytest.approx(0.03)
    assert paired.error == pytest.approx((left - right).std(ddof=1) / 20)
    assert paired.error < unpaired / 2
    assert not paired.is_tie
    assert abs(paired.mean) < 1.96 * unpaired


def test_the_paired_error_holds_what_it_promises():
    """Of many pairs with equal true quality about 5 % are told apart, as 95 % intervals say."""
    generator, apart = np.random.default_rng(1), 0
    for _ in range(2000):
        hard = generator.random(300)
        left, right = (generator.random(300) < hard).astype(int), (generator.random(300) < hard).astype(int)
        apart += not difference(estimate([left.mean()], [left]), estimate([right.mean()], [right])).is_tie
    assert 0.03 < apart / 2000 < 0.07


def test_without_any_error_only_equal_values_tie():
    assert Difference(0.0, None).is_tie
    assert not Difference(1e-9, None).is_tie


def test_an_interval_ends_where_its_metric_does():
    assert possible("accuracy", (0.93, 1.04)) == (0.93, 1.0)
    assert possible("accuracy", (-0.02, 0.1)) == (0.0, 0.1)
    assert possible("matthews", (-1.2, 0.1)) == (-1.0, 0.1)
    assert possible("custom_score", (-3.0, 7.0)) == (-3.0, 7.0)
    assert {*SHARES, *CORRELATIONS} == set(METRICS)


def test_what_a_run_turns_is_told_from_what_rows_are():
    hard = [1] * 30 + [0] * 10
    assert turned_share([[hard, hard], [hard]]) == 0.0
    assert turned_share([[hard], []]) == 0.0
    generator = np.random.default_rng(0)
    luck = (generator.random((2, 4, 5_000)) < 0.7).astype(int)  # every row as likely as any other
    assert turned_share(luck) == pytest.approx(1.0, abs=0.02)
    mixed = np.where(np.arange(5_000) < 2_500, luck, 1)
    assert turned_share(mixed) == pytest.approx(0.5 * 0.7 * 0.3 / (0.85 * 0.15), abs=0.02)
