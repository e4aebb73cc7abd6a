"""Picking rules on fronts small enough to check by hand."""

import pytest

from autopeft.errors import BudgetError, ConfigurationError
from autopeft.picking import Candidate, Rule, pick
from autopeft.precision import Noise, estimate
from autopeft.study import PARAMETERS, Direction, Objective

TWO = (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))
THREE = (*TWO, Objective("seconds", Direction.MINIMISE))


def member(number, quality, *costs, noise=0.01):
    return Candidate(number, (quality, *costs), estimate([quality], noise=Noise(noise, 5) if noise else Noise()))


FRONT = [member(1, 0.60, 1_000), member(2, 0.84, 4_000), member(3, 0.88, 40_000), member(4, 0.90, 100_000)]


def test_the_best_has_the_highest_quality_and_names_its_ties():
    picked = pick(FRONT, TWO, Rule.BEST)
    assert (picked.number, picked.ties) == (4, (3,))
    assert "0.9000 ± 0.0100" in picked.why


def test_the_knee_is_where_the_front_bends():
    assert pick(FRONT, TWO, Rule.KNEE).number == 2


def test_cheapest_within_takes_the_cheapest_that_is_good_enough():
    assert pick(FRONT, TWO, Rule.CHEAPEST_WITHIN, 0.02).number == 3
    assert pick(FRONT, TWO, Rule.CHEAPEST_WITHIN, 0.06).number == 2
    assert pick(FRONT, TWO, Rule.CHEAPEST_WITHIN, 0.0).number == 4


def test_cheapest_within_means_one_standard_error_where_nothing_is_said():
    near = [member(1, 0.895, 10), *FRONT[3:]]
    picked = pick(near, TWO, Rule.CHEAPEST_WITHIN)
    assert picked.number == 1
    assert "one standard error" in picked.why


def test_without_any_error_nothing_ties():
    bare = [member(1, 0.8, 10, noise=None), member(2, 0.81, 20, noise=None)]
    assert pick(bare, TWO, Rule.BEST).ties == ()
    assert pick(bare, TWO, Rule.CHEAPEST_WITHIN).number == 2


def test_the_order_of_the_candidates_does_not_matter():
    for rule in Rule:
        assert pick(FRONT[::-1], TWO, rule) == pick(FRONT, TWO, rule)


def test_a_front_of_one_is_every_rules_pick():
    for rule in Rule:
        assert pick(FRONT[:1], TWO, rule).number == 1


def test_three_objectives_have_a_knee_too():
    front = [member(1, 0.9, 1000, 100), member(2, 0.88, 100, 10), member(3, 0.5, 10, 9)]
    assert pick(front, THREE, Rule.KNEE).number == 2


def test_costs_of_zero_are_no_obstacle():
    assert pick([member(1, 0.5, 0), member(2, 0.9, 10)], TWO, Rule.KNEE).number in (1, 2)


def test_an_empty_front_and_a_bad_margin_are_refused():
    with pytest.raises(BudgetError, match="empty"):
        pick([], TWO, Rule.BEST)
    with pytest.raises(ConfigurationError, match="≥ 0"):
        pick(FRONT, TWO, Rule.CHEAPEST_WITHIN, -0.1)
    with pytest.raises(ConfigurationError, match="cheapest-within only"):
        pick(FRONT, TWO, Rule.BEST, 0.1)
