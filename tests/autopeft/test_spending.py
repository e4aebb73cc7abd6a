"""Device time as a budget: what is used, promised and kept back, and how many proposals are left."""

import sys

import pytest

from autopeft.errors import AutopeftError
from autopeft.price import from_trials
from autopeft.regime import Regime
from autopeft.spending import (
    HOUR,
    Spending,
    WorkerTime,
    cost_text,
    device_seconds,
    require_device_time,
    spending,
)
from autopeft.standing import standing
from autopeft.study import Origin, TrialState


def spent_by(study, trials, ended=0.0, running=0.0):
    return spending(study, trials, WorkerTime(ended, running), standing(study, trials))


def test_a_study_without_a_limit_has_no_spending(make_study):
    assert spent_by(make_study(), []) is None


def test_before_anything_is_measured_only_the_budget_ends_proposals(make_study):
    fresh = spent_by(make_study(device_hours=1.0), [])
    assert (fresh.affordable, fresh.left, fresh.is_over) == (sys.maxsize, HOUR, False)
    assert spent_by(make_study(device_hours=1.0), [], ended=HOUR).affordable == 0


def test_what_waits_and_runs_is_promised_its_price(make_study, make_trial):
    study = make_study(device_hours=1.0)
    done = [make_trial(number, 0.6) for number in range(3)]
    waiting, running = make_trial(3), make_trial(4, state=TrialState.RUNNING)
    price = from_trials(study, done).seconds(waiting.configuration)
    assert price == pytest.approx(1.5)
    assert spent_by(study, [*done, waiting]).promised == pytest.approx(price)
    assert spent_by(study, [*done, running], running=0.5).promised == pytest.approx(price - 0.5)
    assert spent_by(study, [*done, running], running=9.0).promised == 0  # it has used its price, as used says
    assert spent_by(study, [*done, waiting], ended=6.75).promised == pytest.approx(1.5 * price)  # 4.5 are measured
    assert spent_by(study, [*done, waiting], ended=450).promised == pytest.approx(2 * price)
    assert spent_by(study, [*done, waiting, running], ended=4.5, running=0.5).left == pytest.approx(
        HOUR - 4.5 - 2 * price
    )


def test_what_confirms_the_front_and_the_control_is_kept_back(make_study, make_trial):
    study = make_study(device_hours=1.0, confirmations=2)
    done = [make_trial(0, 0.6), make_trial(1, 0.7, parameters=90, origin=Origin.CONTROL)]
    price = from_trials(study, done).seconds(done[0].configuration)
    assert spent_by(study, done).kept_back == pytest.approx(2 * 2 * price)


def test_proposals_fit_into_what_is_left():
    assert Spending(100.0, 40.0, 10.0, 10.0, next=9.0).affordable == 4
    assert Spending(100.0, 40.0, 50.0, 10.0, next=9.0).affordable == 0
    assert Spending(100.0, 100.0, next=None).affordable == 0


def test_used_up_device_time_says_how_to_go_on(make_study):
    require_device_time(make_study(), 1e9)
    require_device_time(make_study(device_hours=2.0), HOUR)
    with pytest.raises(AutopeftError, match=r"has used 2.5 of its 2 hours .* --gpu-hours 4 goes on"):
        require_device_time(make_study(device_hours=2.0), 2.5 * HOUR)


def test_device_time_has_its_honest_name_and_its_price():
    assert cost_text(5400, "cuda", 2.5) == "1.5 GPU hours, 3.75 at 2.5 an hour"
    assert cost_text(5400, "cpu", None) == "1.5 CPU-worker hours"
    assert cost_text(5400, "cuda:0", 2.0, 8.0) == "1.5 of 8 GPU hours, 3.00 at 2 an hour"


def test_a_worker_with_several_gpus_uses_the_time_of_each(make_study, make_trial):
    study = make_study(device_hours=1.0, regime=Regime(gpus=4))
    assert spent_by(study, [make_trial(0, 0.6)]).budget == HOUR / 4
    assert device_seconds(study, 900) == HOUR
    with pytest.raises(AutopeftError, match="has used 1 of its 1 hours"):
        require_device_time(study, device_seconds(study, 900))
