"""How a search ends: what it says to type next."""

from types import SimpleNamespace

from autopeft.cli.ending import recommended
from autopeft.confirming import UNCONFIRMED, Confirmed
from autopeft.picking import Candidate
from autopeft.precision import estimate


def test_the_member_to_use_next_is_the_best_by_runs_that_did_not_choose_it():
    front = [SimpleNamespace(number=number) for number in (3, 4, 5)]  # cheapest first: by the choosing runs 5 is best
    again = tuple(Candidate(number, (mean,), estimate([mean])) for number, mean in ((3, 0.75), (4, 0.79), (5, 0.60)))
    assert recommended(front, Confirmed(again, (), None, {})).number == 4
    assert recommended(front, Confirmed(again[:1], (), None, {})).number == 3
    assert recommended(front, UNCONFIRMED).number == 5
