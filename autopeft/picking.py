"""Rules that pick one member of a front, and say which others are not told apart from it. Pure; shared by all faces.

``best``: the highest quality. ``knee``: the largest bend of the front, where both axes count alike.
``cheapest-within``: the cheapest whose quality is at most so much below the best (one standard error if not said).
Quality is the first objective of a study, to be maximised; every other rule of taste is the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autopeft.errors import BudgetError, ConfigurationError
from autopeft.precision import Estimate, difference
from autopeft.study import Direction, Objective

_ROUNDING = 1e-12
"""0.90 is within 0.06 of 0.84, whatever 0.90 - 0.06 is in binary."""


class Rule(StrEnum):
    """How to pick."""

    BEST = "best"
    KNEE = "knee"
    CHEAPEST_WITHIN = "cheapest-within"


RULES = {
    Rule.BEST: "the highest quality",
    Rule.KNEE: "the largest bend of the front",
    Rule.CHEAPEST_WITHIN: "the cheapest at most so much below the best",
}
"""Every rule in a few words."""


@dataclass(frozen=True)
class Candidate:
    """A member of a front.

    Attributes:
        number: Of its trial.
        values: Its objectives in the order of the study, as measured (the mean of repeats).
        quality: The first of them, with its precision.
    """

    number: int
    values: tuple[float, ...]
    quality: Estimate


@dataclass(frozen=True, slots=True)
class Pick:
    """What a rule picked.

    Attributes:
        number: The trial.
        rule: By which it was picked.
        ties: Other candidates whose quality is not told apart from its, cheapest first.
        why: One sentence.
    """

    number: int
    rule: Rule
    ties: tuple[int, ...]
    why: str


def pick(
    candidates: Sequence[Candidate], objectives: Sequence[Objective], rule: Rule, within: float | None = None
) -> Pick:
    """The candidate that ``rule`` picks.

    Args:
        candidates: The front, in any order.
        objectives: Of the study, quality first; ``Candidate.values`` are in their order.
        rule: How to pick.
        within: For ``cheapest-within``: how far below the best, in the metric's unit; None for one standard error.

    Raises:
        BudgetError: If there is no candidate.
        ConfigurationError: If ``within`` is below 0 or belongs to no such rule.
    """
    if not candidates:
        raise BudgetError("there is nothing to pick from: the front is empty")
    if within is not None and (rule is not Rule.CHEAPEST_WITHIN or not 0 <= within < math.inf):
        raise ConfigurationError(f"within {within} for rule {rule}: expected a number ≥ 0, for cheapest-within only")
    chosen, why = _RULES[rule](
        sorted(candidates, key=lambda one: (_cost(one, objectives), one.number)), objectives, within
    )
    others = [one for one in candidates if one is not chosen and difference(one.quality, chosen.quality).is_tie]
    ties = sorted(others, key=lambda one: (_cost(one, objectives), one.number))
    return Pick(chosen.number, rule, tuple(one.number for one in ties), why)


def _best(
    candidates: Sequence[Candidate], objectives: Sequence[Objective], within: float | None
) -> tuple[Candidate, str]:
    best = max(candidates, key=lambda one: one.quality.mean)  # of equal ones the first, which is the cheapest
    return best, f"its {objectives[0].name} of {_measured(best.quality)} is the highest of {len(candidates)} members"


def _knee(
    candidates: Sequence[Candidate], objectives: Sequence[Objective], within: float | None
) -> tuple[Candidate, str]:
    columns = [
        _unit([one.values[index] for one in candidates], objective) for index, objective in enumerate(objectives)
    ]
    bends = [sum(values) for values in zip(*columns, strict=True)]
    chosen = candidates[bends.index(min(bends))]
    names = " and ".join(objective.name.replace("_", " ") for objective in objectives)
    return chosen, f"the front bends most there, with {names} scaled to the front's own range"


def _cheapest(
    candidates: Sequence[Candidate], objectives: Sequence[Objective], within: float | None
) -> tuple[Candidate, str]:
    best = max(candidates, key=lambda one: one.quality.mean)
    limit = best.quality.error or 0.0 if within is None else within
    chosen = next(one for one in candidates if one.quality.mean >= best.quality.mean - limit - _ROUNDING)
    said = "one standard error" if within is None and best.quality.error else f"{limit:g}"
    return chosen, (
        f"the cheapest whose {objectives[0].name} of {_measured(chosen.quality)} is at most {said} "
        f"below the best, {_measured(best.quality)} of trial {best.number}"
    )


_RULES = {Rule.BEST: _best, Rule.KNEE: _knee, Rule.CHEAPEST_WITHIN: _cheapest}


def _cost(candidate: Candidate, objectives: Sequence[Objective]) -> float:
    """The first objective after quality, the smaller the better."""
    if len(objectives) < 2:
        return 0.0
    value = candidate.values[1]
    return value if objectives[1].direction is Direction.MINIMISE else -value


def _unit(values: Sequence[float], objective: Objective) -> list[float]:
    """0 at the best of ``values``, 1 at the worst; costs on a log scale, as in the hypervolume."""
    if objective.direction is Direction.MAXIMISE:
        scaled = [-value for value in values]
    else:
        scaled = [math.log(value) for value in values] if min(values) > 0 else list(values)
    low, high = min(scaled), max(scaled)
    return [(value - low) / (high - low) if high > low else 0.0 for value in scaled]


def _measured(estimate: Estimate) -> str:
    return f"{estimate.mean:.4f}" + (f" ± {estimate.error:.4f}" if estimate.error is not None else "")
