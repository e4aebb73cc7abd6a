"""What a search promised of a configuration, objective by objective, and how far its final training is from that. Pure.

Exact costs are promised to the unit. A quality is promised with its 95 % interval: by the runs with fresh seeds where
there are some, else by the runs that also chose the configuration, which flatter it. Seconds and memory are those of
the machine that searched, so that only their ratio is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from autopeft.candidates import Marks, estimate_of, noise_of
from autopeft.objectives import KINDS, T, figures
from autopeft.precision import Z95, Estimate, possible
from autopeft.study import Origin, Study, TrialState

SHOWN = tuple(KINDS)
"""Costs that are promised where the record has them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a configuration.

    Attributes:
        name: The metric, or a cost of ``KINDS``.
        value: Mean over the runs.
        error: Standard error; None where unknown, and for what is exact.
        runs: How many runs are behind it; 0 for what is exact.
    """

    name: str
    value: float
    error: float | None
    runs: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, as far as the metric goes, or None."""
        if self.error is None:
            return None
        return possible(self.name, (self.value - Z95 * self.error, self.value + Z95 * self.error))


@dataclass(frozen=True, slots=True)
class Promise:
    """What the search says of one configuration.

    Attributes:
        figures: The quality first, then costs.
        fresh: Whether the runs behind it had no part in choosing it.
        steps: Optimiser steps of a run.
    """

    figures: tuple[Figure, ...]
    fresh: bool
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {"figures": [asdict(one) for one in self.figures], "fresh": self.fresh, "steps": self.steps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Promise:
        """The promise that ``to_json`` wrote."""
        return cls(tuple(Figure(**one) for one in data["figures"]), bool(data["fresh"]), int(data["steps"]))


class Answer(StrEnum):
    """What came of a promised value."""

    EQUAL = "equal"
    DIFFERENT = "different"
    WITHIN = "within the interval"
    ABOVE = "above the interval"
    BELOW = "below the interval"
    RATIO = "depends on machine and load"
    UNKNOWN = "no interval was promised"
    OTHER_TRAINING = "trained otherwise than promised"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A promised value beside what the final training measured.

    Attributes:
        split: ``validation`` or ``test`` for a quality; empty for a cost.
        promised: By the search.
        measured: By the final training.
        answer: What came of it.
    """

    split: str
    promised: Figure
    measured: Figure
    answer: Answer

    @property
    def difference(self) -> float:
        """Measured less promised."""
        return self.measured.value - self.promised.value

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``."""
        low, high = self.promised.interval or (None, None)
        return {
            "objective": self.promised.name,
            "split": self.split or None,
            "promised": self.promised.value,
            "low": low,
            "high": high,
            "promised_runs": self.promised.runs,
            "measured": self.measured.value,
            "error": self.measured.error,
            "runs": self.measured.runs,
            "difference": self.difference,
            "ratio": self.measured.value / self.promised.value if self.promised.value else None,
            "answer": self.answer.value,
        }


def same_plan(trials: Sequence[T], number: int) -> tuple[list[T], bool]:
    """The complete runs of the plan of a trial that promise most truly, and whether they had no part in its choice."""
    digest = next(one.digest for one in trials if one.number == number)
    runs = [one for one in trials if one.digest == digest and one.state is TrialState.COMPLETE]
    fresh = [one for one in runs if one.origin is Origin.CONFIRMATION]
    return (fresh, True) if fresh else (runs, False)


def promised(study: Study, trials: Sequence[T], number: int, marks: Marks) -> Promise | None:
    """What ``study`` says of trial ``number``; None if no run of it is complete.

    Args:
        study: The study.
        trials: All its trials.
        number: Of the trial.
        marks: Per-row marks, of the trials of ``same_plan`` at least.
    """
    runs, fresh = same_plan(trials, number)
    if not runs:
        return None
    quality = estimate_of(runs, study.metric, marks, noise_of(trials, study.metric))
    found = [Figure(study.metric, quality.mean, quality.error, quality.repeats)]
    for name in SHOWN:
        values = [seen[name] for one in runs if name in (seen := figures(study, one, [name]))]
        if values:
            found.append(exactly(name, values[0]) if KINDS[name].exact else averaged(name, values))
    return Promise(tuple(found), fresh, study.fidelity.steps)


def exactly(name: str, value: float) -> Figure:
    """A cost that follows from the configuration."""
    return Figure(name, value, None, 0)


def averaged(name: str, values: Sequence[float]) -> Figure:
    """The mean of one value a run, with its standard error from two runs on."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1) / len(values))
    return Figure(name, mean, spread if len(values) > 1 else None, len(values))


def compare_quality(promised: Figure, measured: Estimate, split: str, *, as_searched: bool) -> Comparison:
    """A promised quality beside the final one on ``split``.

    On validation the rows are those of the promise, so that only the seeds of the final runs widen its interval; on
    the test split their rows do too.

    Args:
        promised: By the search.
        measured: By the final training.
        split: ``validation`` or ``test``.
        as_searched: Whether it was trained as the search trains.
    """
    own = measured.seed_error if split == "validation" else measured.error
    found = Figure(promised.name, measured.mean, measured.error, measured.repeats)
    if not as_searched:
        answer = Answer.OTHER_TRAINING
    elif promised.error is None:
        answer = Answer.UNKNOWN
    else:
        reach = Z95 * math.hypot(promised.error, own or 0.0)
        gap = found.value - promised.value
        answer = Answer.WITHIN if abs(gap) <= reach else Answer.ABOVE if gap > 0 else Answer.BELOW
    return Comparison(split, promised, found, answer)


def compare_cost(promised: Figure, measured: Figure, *, as_searched: bool) -> Comparison:
    """A promised cost beside the final one."""
    if KINDS[promised.name].exact:
        answer = Answer.EQUAL if promised.value == measured.value else Answer.DIFFERENT
    else:
        answer = Answer.RATIO if as_searched else Answer.OTHER_TRAINING
    return Comparison("", promised, measured, answer)
