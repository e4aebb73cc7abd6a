"""How a search stands while it runs, and why it ended: what displays are shown and commands return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autopeft import control, pace, rungs
from autopeft.confirming import missing
from autopeft.spending import Spending
from autopeft.standing import Standing, standing
from autopeft.study import Study, Trial


class Ending(StrEnum):
    """Why a search ended."""

    TARGET = "target reached"
    HOURS = "time limit reached"
    DEVICE_HOURS = "limit on device time reached"
    EXHAUSTED = "space exhausted"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped by autopeft stop"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress display is shown.

    Attributes:
        study: The study.
        trials: All its trials, now.
        standing: Fronts and hypervolumes, now.
        target: Trials there will be, control and reference included.
        elapsed_seconds: Since this driver started.
        eta_seconds: Expected until the end, or None before the first trial is done.
    """

    study: Study
    trials: Sequence[Trial]
    standing: Standing
    target: int
    elapsed_seconds: float
    eta_seconds: float | None


def progress(
    study: Study, trials: Sequence[Trial], workers: int, elapsed_seconds: float, spent: Spending | None
) -> Progress:
    """How the search stands, with the time that it still takes ``workers`` workers at most."""
    proposed = rungs.proposed_count(trials)
    target = max(study.trials, proposed) + len(trials) - proposed + len(control.to_come(study, trials))
    now = standing(study, trials)
    again = [proposal.configuration for proposal in missing(study, trials, now)]
    eta = pace.eta_seconds(study, trials, target, workers, again)
    if eta is not None and study.hours is not None:
        eta = min(eta, max(0.0, study.hours * 3600 - elapsed_seconds))
    if eta is not None and spent is not None:
        eta = min(eta, max(0.0, spent.budget - spent.used) / workers)
    return Progress(study, trials, now, target, elapsed_seconds, eta)
