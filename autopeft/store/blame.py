"""Who is to blame when an attempt ends without a measurement: kinds of failure, and three counters, never one.

A single "three attempts" counter quarantines healthy trials in a storm of killed workers, and so would any fixed small
limit where kills are frequent. Losses therefore count against a trial only where the rate of losses
around it cannot explain them. Pure functions on numbers; no database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from autopeft.study import Trial, TrialState

FAILURE_LIMIT = 2
"""Exceptions after which a trial is FAILED."""

LOST_LIMIT = 3
"""A trial lost less often is never QUARANTINED."""

LOST_CERTAIN = 10
"""A trial lost so often, on two workers or more, is QUARANTINED whatever happened to others."""

CHANCE_LIMIT = 1e-5
"""Most likely that a healthy trial is QUARANTINED."""

ALIKE_LIMIT = 3
"""So many trials that fail alike, with none that did not, stop a search."""

LONGEST_WAIT_SECONDS = 60.0


class Failure(StrEnum):
    """Why an attempt brought no measurement."""

    EXCEPTION = "exception"
    HOST_MEMORY = "host memory"
    GPU_MEMORY = "gpu memory"
    DIVERGED = "diverged"
    DISK = "disk"
    PREEMPTED = "preempted"
    LOST = "lost"
    HANG = "hang"


OUT_OF_MEMORY = (Failure.HOST_MEMORY, Failure.GPU_MEMORY)
"""Each halves the micro-batch of the attempts that follow."""


def after_memory_failure(failures: int) -> TrialState:
    """State of a trial that has run out of memory ``failures`` times: one more chance, in smaller pieces."""
    return TrialState.FAILED if failures >= FAILURE_LIMIT else TrialState.QUEUED


def after_failure(failures: int) -> TrialState:
    """State of a trial that has raised an exception ``failures`` times."""
    return TrialState.FAILED if failures >= FAILURE_LIMIT else TrialState.QUEUED


def after_loss(lost: int, workers: int, others_ended: int, others_lost: int) -> TrialState:
    """State of a trial lost ``lost`` times in a row.

    Args:
        lost: Losses since it last finished a rung, this one included.
        workers: Distinct workers that lost it.
        others_ended: Attempts at other trials that have ended; where one worker alone lost the trial, that worker's.
        others_lost: How many of them were lost.
    """
    if lost < LOST_LIMIT:
        return TrialState.QUEUED
    rate = (others_lost + 1) / (others_ended + 2)  # Laplace's rule of succession
    poisonous = rate**lost < CHANCE_LIMIT or (lost >= LOST_CERTAIN and workers >= 2)
    return TrialState.QUARANTINED if poisonous else TrialState.QUEUED


def wait_seconds(blamed: int) -> float:
    """Time until a trial that was blamed ``blamed`` times may be leased again: 0, 2, 4, 8 … 60 seconds."""
    return min(2.0 ** min(blamed, 10), LONGEST_WAIT_SECONDS) if blamed > 0 else 0.0


def systematic_failure(trials: Iterable[Trial]) -> str | None:
    """The one message with which trial after trial fails, while none has been trained; None if it is not so.

    Two messages are alike where they differ in numbers only: addresses, sizes, line numbers.
    """
    messages: list[str] = []
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.DIVERGED) or trial.values:
            return None
        if trial.error:
            messages.append(trial.error.strip().splitlines()[0])
    kinds = {re.sub(r"(0x)?[0-9a-f]*\d[0-9a-f]*", "#", message) for message in messages}
    if len(messages) < ALIKE_LIMIT or len(kinds) != 1:
        return None
    return f"the first {len(messages)} trials all failed alike: {messages[0]}"
