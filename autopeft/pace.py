"""How long a search will still take, from what its trials have taken so far. Pure: trials in, seconds out."""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.price import from_trials
from autopeft.rungs import SEARCHED, expected_share, share_left
from autopeft.study import Origin, Study, Trial, TrialState
from search_spaces.configuration import Configuration


def eta_seconds(
    study: Study, trials: Sequence[Trial], target: int, workers: int, again: Sequence[Configuration] = ()
) -> float | None:
    """Seconds until ``target`` trials are done; None before one with adapters was measured.

    Each trial that has not ended counts its own price × the share that it is expected to be trained for yet, and those
    to come the price that is expected of them.

    Args:
        study: The study.
        trials: Those in its record.
        target: Trials there will be, control and reference included.
        workers: How many work at once.
        again: What is to be trained once more in full at the end.
    """
    prices = from_trials(study, trials)
    if prices is None:
        return None
    left = sum(prices.trial_seconds(trial) * share for trial in trials if (share := share_left(study, trial)))
    if (to_come := max(0, target - len(trials))) > 0:
        proposed = [trial.configuration for trial in trials if trial.origin in SEARCHED]
        left += to_come * expected_share(study.fidelity) * prices.expected_seconds(proposed)
    return (left + sum(prices.seconds(plan, on_model=True) for plan in again)) / workers


def full_run_seconds(study: Study, trials: Sequence[Trial]) -> float | None:
    """Mean seconds of training an adapted trial in full and scoring it, by what was trained of each; None before any.

    Trials that are paused count too, by their share: else those that are worth a full run, which are the dearer ones,
    would stand for all.
    """
    seconds, shares = 0.0, 0.0
    for trial in trials:
        if trial.values and trial.origin not in (Origin.REFERENCE, Origin.CONFIRMATION) and trial.rung:
            seconds += trial.values["train_seconds"] + trial.values["evaluate_seconds"]
            shares += study.fidelity.share_at(trial.rung - 1)
    return seconds / shares if shares else None


def attempt_seconds(study: Study, trials: Sequence[Trial]) -> float | None:
    """Seconds after which a worker asks for the next trial, at least; None before any was measured."""
    seconds = full_run_seconds(study, trials)
    if seconds is None:
        return None
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return seconds * (study.fidelity.share_at(0) if len(complete) < len(trials) else 1.0)
