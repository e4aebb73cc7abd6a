import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.dimensions import Continuous, Ordinal, significant
from search_spaces.errors import ConfigurationError


def test_sizes_lie_on_a_log_scale_from_nothing_to_one():
    ordinal = Ordinal("rank", (0, 1, 3, 7))
    assert [ordinal.feature(value) for value in ordinal.values] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_lone_nothing_is_zero():
    assert Ordinal("rank", (0,)).feature(0) == 0


@pytest.mark.parametrize("values", [(), (1, 1), (4, 2), (-1, 2), (1.5,), (True, 2), ("a", "b")])
def test_sizes_must_rise(values):
    with pytest.raises(ConfigurationError, match=r"rank: values .*expected rising whole numbers ≥ 0"):
        Ordinal("rank", values)


@pytest.mark.parametrize("ends", [(0, 1), (2, 1), (-1, 1), (1, math.inf), (math.nan, 1), (True, 2), ("1", 2)])
def test_a_range_needs_a_logarithm(ends):
    with pytest.raises(ConfigurationError, match=r"rate: range .*expected 0 < low ≤ high"):
        Continuous("rate", *ends)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_the_unit_interval_maps_there_and_back(unit):
    rate = Continuous("rate", 1e-4, 1e-2)
    assert rate.feature(rate.at(unit)) == pytest.approx(unit, abs=1e-9)


def test_outside_the_unit_interval_the_ends_hold():
    rate = Continuous("rate", 1e-4, 1e-2)
    assert (rate.at(-3), rate.at(7)) == (pytest.approx(1e-4), pytest.approx(1e-2))
    assert (rate.feature(1e-9), rate.feature(1.0)) == (0, 1)


def test_a_fixed_value_is_in_the_middle_and_stays():
    rate = Continuous("rate", 1e-3, 1e-3)
    assert (rate.feature(1e-3), rate.at(0.2)) == (0.5, 1e-3)


def test_the_grid_holds_each_canonical_value_once():
    assert list(Continuous("rate", 9.998e-4, 1.002e-3).grid()) == [9.998e-4, 9.999e-4, 1e-3, 1.001e-3, 1.002e-3]
    assert list(Continuous("rate", 1e-3, 1e-3).grid()) == [1e-3]


def test_four_digits_are_significant():
    assert significant(0.00123456) == 0.001235
