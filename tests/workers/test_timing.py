import numpy as np

from autopeft.price import Measured, Prices, calibration_plans, drawn
from search_spaces.configuration import Configuration
from workers.timing import STEPS, WARM_UP_STEPS, measure, spread_batches, time_step


def test_steps_and_scored_rows_of_several_configurations_cost_time(study):
    measured = time_step({"study": study.to_json(), "device": "cpu"})
    assert measured["device"] == "cpu"
    assert measured["load_seconds"] > 0
    plans = [Configuration.from_json(one["configuration"]) for one in measured["measured"]]
    assert plans == calibration_plans(study)
    seen = [
        Measured(plan, one["step_seconds"], one["row_seconds"])
        for plan, one in zip(plans, measured["measured"], strict=True)
    ]
    assert all(one.step_seconds > 0 and one.row_seconds > 0 for one in seen)
    assert Prices.fitted(study, 30, seen).expected_seconds() > 0


def test_the_clock_is_read_between_steps_alone(study, resident):
    ticks = iter(range(1000))
    found = measure(study, resident, drawn(study)[0], lambda: float(next(ticks)))
    assert found.step_seconds == 1.0
    assert found.row_seconds == 1 / 30


def test_timed_batches_are_spread_over_the_lengths_that_there_are(study, resident):
    order = spread_batches(study, resident)
    assert order.shape == (STEPS + WARM_UP_STEPS, study.fidelity.batch_size)
    widest = resident.train.lengths[order].max(1)[WARM_UP_STEPS:]
    assert widest.tolist() == sorted(widest)
    assert abs(widest.mean() - np.mean(resident.train.lengths)) < 5
