"""The verdict: by hand where noise is nil, and by simulation with known truth where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from autopeft import pareto, verdict
from autopeft.errors import ConfigurationError
from autopeft.picking import Candidate
from autopeft.precision import Noise, estimate, interaction_noise, turned_share
from autopeft.verdict import Answer, Contender, Gap, judge, memberships

BUDGET = 100_000
SCALE = pareto.Scale(0.4, 1_000, BUDGET)
FRONT_COSTS = (1_500, 3_000, 5_000, 7_000, 16_000, 37_000, 48_000)
CONTROL_COSTS = (9_000, 18_000, 37_000, 41_000, 83_000)
RUN_DEVIATION, ORDER_DEVIATION = 0.02, 0.015
ROWS = 600


def hypervolume(qualities, costs):
    return pareto.hypervolume(list(zip(qualities, costs, strict=True)), SCALE)


def quality(cost):
    """A curve that saturates, from .5 to .92."""
    return 0.5 + 0.42 * (1 - np.exp(-3 * np.log(cost / 1_000) / np.log(100))) / (1 - np.exp(-3))


def shifted(gap):
    """Qualities of the front whose true hypervolume is ``gap`` above the control's."""
    control = hypervolume([quality(cost) for cost in CONTROL_COSTS], CONTROL_COSTS)
    low, high = -0.5, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        front = [min(quality(cost) + middle, 0.999) for cost in FRONT_COSTS]
        low, high = (middle, high) if hypervolume(front, FRONT_COSTS) - control < gap else (low, middle)
    return [min(quality(cost) + low, 0.999) for cost in FRONT_COSTS]


def contender(number, cost, runs, noise):
    """One configuration, measured by ``runs``: correctness of the rows by replicate."""
    scores = [float(run.mean()) for run in runs]
    quality = estimate(scores, [run.astype(int).tolist() for run in runs], noise)
    return Contender(Candidate(number, (float(np.mean(scores)), float(cost)), quality), cost)


def world(generator, front, fresh, rows=ROWS):
    """A front and a control with known qualities: some rows are hard for all, some for this run only; the order of
    the data lifts all runs of a replicate alike; the control's first runs tell of the noise alone."""
    hard, orders = generator.random(rows), ORDER_DEVIATION * generator.normal(size=fresh + 1)

    def runs(true, replicates):
        found = {}
        for replicate in replicates:
            own = np.where(generator.random(rows) < 0.7, hard, generator.random(rows))
            found[replicate] = own < np.clip(true + orders[replicate] + RUN_DEVIATION * generator.normal(), 0, 1)
        return found

    ours = [runs(true, range(1, fresh + 1)) for true in front]
    theirs = [runs(quality(cost), range(fresh + 1)) for cost in CONTROL_COSTS]
    both = (*ours, *theirs)
    noise = interaction_noise({r: float(run.mean()) for r, run in one.items()} for one in both)
    noise = replace(noise, turned=turned_share([run.astype(int) for run in one.values()] for one in both))

    def side(costs, found):
        again = [[run for replicate, run in one.items() if replicate] for one in found]
        return [contender(i, cost, one, noise) for i, (cost, one) in enumerate(zip(costs, again, strict=True))]

    return side(FRONT_COSTS, ours), side(CONTROL_COSTS, theirs), noise


def simulate(gap, fresh, count, rows=ROWS):
    front, found = shifted(gap), []
    for number in range(count):
        generator = np.random.default_rng([number, fresh])
        ours, theirs, noise = world(generator, front, fresh, rows)
        found.append(judge(ours, theirs, SCALE.box, BUDGET, noise, generator).hypervolume)
    return found


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(verdict, "DRAWS", 300)


@pytest.mark.parametrize(
    ("gap", "fresh"),
    [pytest.param(0.0, 1, marks=pytest.mark.slow), (0.0, 3), pytest.param(0.03, 3, marks=pytest.mark.slow)],
)
def test_intervals_cover_the_truth_and_better_is_seldom_said_wrongly(few_draws, gap, fresh):
    found = simulate(gap, fresh, count=150)
    covered = np.mean([one.low <= gap <= one.high for one in found])
    assert 0.90 <= covered <= 0.99
    assert abs(np.mean([one.value for one in found]) - gap) <= 0.006
    if gap == 0:
        assert np.mean([one.answer is Answer.BETTER for one in found]) <= 0.05


def test_enough_runs_and_rows_find_a_small_difference(few_draws):
    answers = [one.answer for one in simulate(0.03, fresh=5, count=50, rows=3_000)]
    assert np.mean([answer is Answer.BETTER for answer in answers]) >= 0.80


def sure(number, cost, *scores):
    return Contender(Candidate(number, (float(np.mean(scores)), float(cost)), estimate(scores)), cost)


def test_without_noise_the_difference_is_that_of_the_hypervolumes():
    front, control = [sure(1, 1_000, 0.7, 0.7), sure(2, 10_000, 0.9, 0.9)], [sure(3, 10_000, 0.7, 0.7)]
    found = judge(front, control, SCALE.box, BUDGET, Noise(), np.random.default_rng(0))
    assert found.hypervolume.value == pytest.approx(0.5 * 0.5 + 0.5 * (0.5 / 0.6) - 0.5 * 0.5)
    assert found.hypervolume.low == pytest.approx(found.hypervolume.high)
    assert found.answer is Answer.BETTER
    assert [(share, gap.value) for share, gap in found.at] == [(share, pytest.approx(0.2)) for share in (0.25, 0.5, 1)]


def test_sides_exchanged_give_the_opposite_difference():
    ours, theirs, noise = world(np.random.default_rng(3), shifted(0.1), 3)
    one = judge(ours, theirs, SCALE.box, BUDGET, noise, np.random.default_rng(0)).hypervolume
    other = judge(theirs, ours, SCALE.box, BUDGET, noise, np.random.default_rng(1)).hypervolume
    assert one.value == pytest.approx(-other.value, abs=0.004)
    assert {one.answer, other.answer} == {Answer.BETTER, Answer.WORSE}


def test_a_share_of_the_budget_that_one_side_cannot_meet_is_left_out():
    found = judge(
        [sure(1, 30_000, 0.9, 0.8)], [sure(2, 90_000, 0.9, 0.8)], SCALE.box, BUDGET, Noise(), np.random.default_rng(0)
    )
    assert [share for share, _ in found.at] == [1.0]


def test_what_is_not_known_is_said():
    one, two = sure(1, 30_000, 0.9), sure(2, 90_000, 0.8)
    found = judge([one], [two], SCALE.box, BUDGET, Noise(), np.random.default_rng(0))
    assert (found.runs, found.knows_seeds, found.knows_rows) == (1, False, False)


def test_a_member_is_on_the_front_as_likely_as_no_cheaper_one_is_better():
    noise = Noise(0.02, 10_000)
    members = [sure(1, 1_000, 0.8), sure(2, 2_000, 0.8), sure(3, 3_000, 0.99)]
    members = [
        Contender(
            Candidate(one.candidate.number, one.candidate.values, estimate([one.candidate.values[0]], (), noise)), 1
        )
        for one in members
    ]
    first, second, third = memberships(members, noise, np.random.default_rng(0))
    assert first == 1.0
    assert second == pytest.approx(0.5, abs=0.04)
    assert third == 1.0
    assert memberships([], noise, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(0.01, 0.02, Answer.BETTER), (-0.01, 0.02, Answer.SAME), (-0.2, -0.1, Answer.WORSE)]
)
def test_only_a_whole_interval_beyond_zero_decides(low, high, answer):
    assert Gap((low + high) / 2, low, high).answer is answer


def test_an_empty_side_is_refused():
    with pytest.raises(ConfigurationError, match="needs a front and a control"):
        judge([], [sure(1, 1, 0.5)], SCALE.box, BUDGET, Noise(), np.random.default_rng(0))


def test_a_replicate_that_lifts_all_runs_alike_is_no_noise():
    assert interaction_noise([{0: 0.5, 1: 0.6}, {0: 0.7, 1: 0.8}]).deviation == pytest.approx(0, abs=1e-12)
    found = interaction_noise([{0: 0.5, 1: 0.6}, {0: 0.7, 1: 0.9}])
    assert (found.deviation, found.degrees, found.common) == (pytest.approx(0.05), 1, pytest.approx(0.15 / 2**0.5))
    assert interaction_noise([{1: 0.5}, {1: 0.7}]) == interaction_noise([]) == Noise()


def test_rows_that_a_run_turns_are_not_counted_a_second_time():
    """Equal sides differ by what single runs turn alone, which the spread of the runs holds already."""
    generator, rows, truth = np.random.default_rng(0), 1_000, 0.85
    widths = {}
    for turned in (0.0, 1.0):
        sides = []
        for side in range(2):
            runs = [generator.random(rows) < truth for _ in range(5)]
            noise = Noise((truth * (1 - truth) / rows) ** 0.5, 10_000, turned=turned)
            sides.append([contender(side, 10_000, runs, noise)])
        gap = judge(*sides, SCALE.box, BUDGET, noise, np.random.default_rng(1)).hypervolume
        widths[turned] = gap.high - gap.low
    assert widths[0.0] / widths[1.0] == pytest.approx(2**0.5, rel=0.1)
