"""How long a search will take and what it will cost: steps measured now, prices added up, nothing written."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from autopeft import control
from autopeft.errors import EvaluationError
from autopeft.launch import WorkerPlan, child_environment, plan_workers, worker_command
from autopeft.measurement import TRUNCATION
from autopeft.price import Measured, Prices
from autopeft.rungs import expected_share
from autopeft.spending import HOUR, device_seconds
from autopeft.study import Study
from autopeft.tasks import TaskSpec, load_task
from search_spaces.configuration import Configuration

EXPECTED_MEMBERS = 6
"""Members of a front that nobody has seen yet, for the price of training it again."""


def estimate(study: Study, workers: str) -> tuple[float, dict[str, Any]]:
    """Seconds that a search of ``study`` will take, and the prices it rests on, measured now in a worker.

    Among these ``device_seconds``: of all workers together, with all GPUs that each has.

    Raises:
        EvaluationError: If the worker cannot take the measurement.
    """
    plans = plan_workers(workers, study.regime.gpus)
    measured = _time_step(study, plans[0])
    rows = load_task(TaskSpec.from_json(study.task)).validation
    seen = [
        Measured(Configuration.from_json(one["configuration"]), one["step_seconds"], one["row_seconds"])
        for one in measured["measured"]
    ]
    prices = Prices.fitted(study, len(rows), seen)
    sweep, sizes = control.planned(study), control.sizes(study).values()
    trial, fixed = prices.expected_seconds(), sum(map(prices.seconds, sweep))
    proposed = study.trials * expected_share(study.fidelity) * trial
    members = min(EXPECTED_MEMBERS, study.trials) * prices.expected_seconds(on_model=True)
    again = study.confirmations * (sum(prices.seconds(plan, on_model=True) for plan in sizes) + members)
    busy = fixed + proposed + again + len(plans) * measured["load_seconds"]
    if study.device_hours is not None:
        busy = min(busy, study.device_hours * HOUR / study.regime.gpus)
    if study.hours is not None:
        busy = min(busy, study.hours * HOUR * len(plans))
    basis = {"device": measured["device"], "load_seconds": measured["load_seconds"], "workers": len(plans)}
    basis |= {TRUNCATION: measured[TRUNCATION]}
    basis |= {"trial_seconds": trial, "control_seconds": fixed, "control_trials": len(sweep)}
    basis |= {"confirmation_seconds": again, "device_seconds": device_seconds(study, busy)}
    if study.hour_price is not None:
        basis["price"] = device_seconds(study, busy) / HOUR * study.hour_price
    return busy / len(plans), {**basis, **prices.extremes()}


def _time_step(study: Study, plan: WorkerPlan) -> dict[str, Any]:
    order = {"study": study.to_json(), "device": plan.device, "threads": plan.threads}
    answer = subprocess.run(
        worker_command("time-step", "--plan", "-"),
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env=child_environment("", plan),
        check=False,
    )
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise EvaluationError(f"the step time could not be measured: {last}")
    measured: dict[str, Any] = json.loads(answer.stdout)
    return measured
