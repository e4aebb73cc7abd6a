"""Where a study stands: its front, the control's front, the references and their hypervolumes.

Pure: trials in, standing out; used by the driver, the reports and the dashboard alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from autopeft import pareto
from autopeft.objectives import T, figures, point
from autopeft.scales import box
from autopeft.study import PARAMETERS, Origin, Study, Trial, TrialState


@dataclass(frozen=True, slots=True)
class Standing(Generic[T]):
    """A study at one moment.

    Attributes:
        front: Members of the search's front, lowest quality first; with two objectives that is cheapest first.
        control: Members of the control's front, in the same order.
        references: The references that are complete, the head alone among them; in neither front.
        hypervolume: Of ``front``, in [0, 1].
        control_hypervolume: Of ``control``, in [0, 1].
        box: What hypervolumes are measured in.
        broken: By name of a limit, numbers of the trials that break it and are on no front.
        lacking: Numbers of complete trials that lack a figure of an objective and are on no front.
        repeats: By number of a trial whose configuration was measured again, measurements in all. It stands for them
            with the mean of their values.
    """

    front: tuple[T, ...]
    control: tuple[T, ...]
    references: tuple[T, ...]
    hypervolume: float
    control_hypervolume: float
    box: pareto.Box
    broken: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lacking: tuple[int, ...] = ()
    repeats: Mapping[int, int] = field(default_factory=dict)

    @property
    def head_only(self) -> T | None:
        """The reference that trains nothing but the head, once complete."""
        return next((one for one in self.references if not one.values[PARAMETERS]), None)

    @property
    def beside(self) -> tuple[T, ...]:
        """The other references: what other methods reach at one size in every layer, and full fine-tuning."""
        return tuple(one for one in self.references if one.values[PARAMETERS])


def standing(study: Study, trials: Sequence[T], budget: int | None = None) -> Standing[T]:
    """The standing of ``study`` given its trials.

    Args:
        study: The study.
        trials: All its trials, in full or as summaries.
        budget: A tighter limit on trainable parameters than the study's, or None.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    ceiling = study.budget.parameters if budget is None else budget
    within = [
        trial for trial in complete if trial.origin is not Origin.REFERENCE and trial.values[PARAMETERS] <= ceiling
    ]
    searched = _plans([trial for trial in within if trial.origin.is_searched])
    control = _plans([trial for trial in within if trial.origin is Origin.CONTROL])
    plans = [plan for plan, _ in (*searched, *control)]
    broken = {
        name: tuple(plan.number for plan in plans if figures(study, plan, [name]).get(name, limit) > limit)
        for name, limit in study.limits.items()
    }
    over = {number for numbers in broken.values() for number in numbers}
    points = {plan.number: point(study, plan) for plan in plans if plan.number not in over}
    measured_in = box(study, trials, budget)

    def side(sided: Sequence[tuple[T, int]]) -> tuple[tuple[T, ...], float]:
        candidates = [(plan, place) for plan, _ in sided if (place := points.get(plan.number))]
        places = [place for _, place in candidates]
        members = pareto.front(places)
        volume = pareto.hypervolume([places[index] for index in members], measured_in)
        return tuple(candidates[index][0] for index in members), volume

    front, hypervolume = side(searched)
    control_front, control_hypervolume = side(control)
    return Standing(
        front=front,
        control=control_front,
        references=tuple(trial for trial in complete if trial.origin is Origin.REFERENCE),
        hypervolume=hypervolume,
        control_hypervolume=control_hypervolume,
        box=measured_in,
        broken={name: tuple(sorted(numbers)) for name, numbers in broken.items() if numbers},
        lacking=tuple(sorted(number for number, place in points.items() if place is None)),
        repeats={plan.number: runs for plan, runs in (*searched, *control) if runs > 1},
    )


def _plans(trials: Sequence[T]) -> list[tuple[T, int]]:
    """One trial for each configuration, with the mean of the values of its repeats, and how many there are.

    The luckiest repeat is no better plan.
    """
    groups: dict[str, list[T]] = {}
    for trial in trials:
        groups.setdefault(trial.digest, []).append(trial)
    return [(_mean(group), len(group)) for group in groups.values()]


def _mean(repeats: Sequence[T]) -> T:
    first, *others = repeats
    if not others:
        return first
    seen = {name: [one.values[name] for one in repeats if name in one.values] for name in first.values}
    return first.with_values({name: sum(values) / len(values) for name, values in seen.items()})


def in_full(short: Standing[T], read: Callable[[int], Trial]) -> Standing:
    """The same standing with its members in full, each as ``read`` gives it for its number."""
    return Standing(
        front=tuple(read(member.number).with_values(member.values) for member in short.front),
        control=tuple(read(member.number).with_values(member.values) for member in short.control),
        references=tuple(read(one.number) for one in short.references),
        hypervolume=short.hypervolume,
        control_hypervolume=short.control_hypervolume,
        box=short.box,
        broken=short.broken,
        lacking=short.lacking,
        repeats=short.repeats,
    )
