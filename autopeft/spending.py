"""Device time as a budget: what a search has used of all its workers' time, what it has promised, and what is left.

The record tells what was used: from the lease of each attempt to its end, whatever became of it. What waits or runs has
been promised and counts its predicted price, and so does training the front and the control again at the end. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from autopeft import control
from autopeft.confirming import missing
from autopeft.errors import AutopeftError
from autopeft.price import from_trials
from autopeft.rungs import SEARCHED, expected_share, share_left
from autopeft.standing import Standing
from autopeft.study import UNLIMITED, Study, Trial, TrialState

HOUR = 3600.0

MOST_BEYOND = 2.0
"""Most seconds of device time that are predicted for each second that trials measure."""


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """Seconds that workers spent on attempts, by the record: from lease to end.

    Attributes:
        ended: Of attempts that have ended, well or badly.
        running: Of those that run, up to now.
    """

    ended: float
    running: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.ended + self.running


@dataclass(frozen=True, slots=True)
class Spending:
    """Seconds of workers, each with all its devices, of a search that has a budget of them.

    Attributes:
        budget: That all workers together may use.
        used: By all attempts so far, those that still run included.
        promised: That queued and running trials are predicted to use on top.
        kept_back: That the rest of the control, and training it and the front again, are predicted to use.
        next: That the next proposal is predicted to use, with what training it again at the end would; None while
            nothing is known.
    """

    budget: float
    used: float
    promised: float = 0.0
    kept_back: float = 0.0
    next: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self.used >= self.budget

    @property
    def left(self) -> float:
        """What nobody uses or is promised; below 0 if it was promised twice."""
        return self.budget - self.used - self.promised - self.kept_back

    @property
    def affordable(self) -> int:
        """How many more proposals are predicted to fit; without a prediction there is no limit but the budget."""
        if self.is_over:
            return 0
        return sys.maxsize if not self.next else max(0, int(self.left / self.next))


def spending(study: Study, trials: Sequence[Trial], used: WorkerTime, now: Standing[Trial]) -> Spending | None:
    """The spending of ``study``; None if device time is not its budget.

    Args:
        study: The study.
        trials: All its trials.
        used: Time of workers so far.
        now: Where it stands.
    """
    if study.device_hours is None:
        return None
    budget, prices = study.device_hours * HOUR / study.regime.gpus, from_trials(study, trials)
    if prices is None:
        return Spending(budget, used.seconds)
    beyond = _beyond_the_measured(trials, used)
    left = dict.fromkeys((TrialState.QUEUED, TrialState.RUNNING), 0.0)
    for trial in trials:
        if trial.state in left:
            left[trial.state] += beyond * prices.trial_seconds(trial) * share_left(study, trial)
    promised = left[TrialState.QUEUED] + max(0.0, left[TrialState.RUNNING] - used.running)
    again = beyond * sum(
        prices.seconds(proposal.configuration, on_model=True) for proposal in missing(study, trials, now)
    )
    again += beyond * sum(map(prices.seconds, control.to_come(study, trials)))
    proposed = [trial.configuration for trial in trials if trial.origin in SEARCHED]
    one_more = expected_share(study.fidelity) * prices.expected_seconds(proposed)
    one_more += study.confirmations * prices.expected_seconds(proposed, on_model=True)
    return Spending(budget, used.seconds, promised, again, beyond * one_more)


def _beyond_the_measured(trials: Sequence[Trial], used: WorkerTime) -> float:
    """Seconds of device time for each second that is measured in a trial: failed attempts, adapters in and out, saving.

    Loading happens once and stands out in the first trials, hence the bound.
    """
    measured = sum(trial.values["train_seconds"] + trial.values["evaluate_seconds"] for trial in trials if trial.values)
    return min(MOST_BEYOND, max(1.0, used.ended / measured)) if measured else 1.0


def cost_text(seconds: float, device: str, price_per_hour: float | None, limit: float | None = None) -> str:
    """Device time for people, under its honest name, with its limit in hours and its price where these are known."""
    hours = seconds / HOUR
    of = "" if limit is None else f" of {limit:g}"
    amount = f"{hours:.3g}{of} {'GPU' if device.startswith('cuda') else 'CPU-worker'} hours"
    return amount if price_per_hour is None else f"{amount}, {hours * price_per_hour:.2f} at {price_per_hour:g} an hour"


def target_text(study: Study) -> str:
    """How many proposals a search is to make, for people."""
    return "as many searched as time allows" if study.trials >= UNLIMITED else f"{study.trials} searched"


def device_seconds(study: Study, worker_seconds: float) -> float:
    """Device time of workers that were busy for so long: a worker may hold several GPUs."""
    return study.regime.gpus * worker_seconds


def require_device_time(study: Study, used_seconds: float) -> None:
    """Nothing, if ``study`` may use more device time.

    Raises:
        AutopeftError: If what it may use is used up; the message says how to raise it.
    """
    if study.device_hours is not None and used_seconds >= study.device_hours * HOUR:
        raise AutopeftError(
            f"study {study.name} has used {used_seconds / HOUR:.3g} of its {study.device_hours:g} hours of device "
            f"time; autopeft resume {study.name} --gpu-hours {2 * study.device_hours:g} goes on"
        )
