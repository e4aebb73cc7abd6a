"""A study as the pages see it at one revision, and what follows from that. Values only: no database, no Streamlit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pandas as pd

from autopeft import control, objectives
from autopeft.confirming import missing_count
from autopeft.objectives import point, show
from autopeft.reasons import Rivals
from autopeft.rungs import promotion_is_due
from autopeft.standing import Standing, standing
from autopeft.store.overlook import Glance, Volume
from autopeft.study import PARAMETERS, Direction, Objective, Origin, Study, TrialState
from search_spaces.references import references
from search_spaces.space import SearchSpace

KINDS = ("front", "dominated", "control", "reference")
"""What a point of a chart is."""


@dataclass(frozen=True, eq=False)
class Board:
    """A study at one revision; compared by identity, so that what is drawn of it can be kept.

    Attributes:
        study: The study.
        glances: All its trials, in order of their numbers.
        volumes: The recorded hypervolume over time.
        revision: Of which this is the picture.
    """

    study: Study
    glances: Sequence[Glance]
    volumes: Sequence[Volume]
    revision: int

    @cached_property
    def complete(self) -> list[Glance]:
        """Trials that have been measured in full."""
        return [glance for glance in self.glances if glance.state is TrialState.COMPLETE]

    @cached_property
    def states(self) -> Counter[TrialState]:
        """Trials in each state."""
        return Counter(glance.state for glance in self.glances)

    @cached_property
    def by_number(self) -> dict[int, Glance]:
        """Every trial by its number."""
        return {glance.number: glance for glance in self.glances}

    @cached_property
    def standing(self) -> Standing[Glance]:
        """The fronts within the whole budget."""
        return self.standing_within(None)

    def standing_within(self, budget: int | None) -> Standing[Glance]:
        """The fronts of what costs at most ``budget``; None for the study's own."""
        return _standing(self, budget)

    @property
    def front(self) -> Sequence[Glance]:
        """Members of the front."""
        return self.standing.front

    @cached_property
    def front_numbers(self) -> frozenset[int]:
        """Numbers of the members of the front."""
        return frozenset(trial.number for trial in self.front)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, bound once."""
        return self.study.search_space

    @cached_property
    def rivals(self) -> Rivals:
        """All searched trials with their objectives."""
        return Rivals.of(self.study, self.glances)

    @property
    def has_points(self) -> bool:
        """Whether any trial with an adapter has been measured."""
        return not self.points.empty

    @property
    def expected(self) -> int:
        """Trials in all, once everything asked for is queued: proposals and what they are compared with.

        What is trained again, and references, are queued when the search has ended, and count before that. What was
        cancelled is made up for, and counts beside.
        """
        cancelled = TrialState.CANCELLED
        extra = sum(not glance.origin.is_searched or glance.state is cancelled for glance in self.glances)
        return max(self.study.trials + extra, len(self.glances)) + self._to_come

    @cached_property
    def _to_come(self) -> int:
        study = self.study
        again = missing_count(study, self.glances, self.standing) if study.confirmations and self.glances else 0
        budget, rate = study.budget.parameters, study.control_learning_rate
        plans = references(study.backbone, budget, rate, study.references) if self.glances else {}
        there = {glance.digest for glance in self.glances}
        again += len(control.to_come(study, self.glances)) if self.glances else 0
        return again + sum(plan.digest not in there for sweep in plans.values() for plan in sweep.values())

    @property
    def finished(self) -> int:
        """Trials that have ended, or wait at a rung for a promotion that may never come."""
        return sum(count for state, count in self.states.items() if state.rests)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        done = bool(self.glances) and self.finished >= self.expected
        return done and not promotion_is_due(self.study.fidelity, self.glances)

    def kind(self, glance: Glance) -> str:
        """What a trial is: on the front, dominated, control, head only, reference, or the confirmation of another."""
        if glance.origin is Origin.REFERENCE:
            return "reference" if glance.values.get(PARAMETERS) else "head only"
        if glance.origin is Origin.CONTROL:
            return "control"
        if glance.origin is Origin.CONFIRMATION:
            return "confirmation"
        return "front" if glance.number in self.front_numbers else "dominated"

    def is_reference_point(self, glance: Glance) -> bool:
        """Whether it is a reference that a plane of quality and costs can show: within the budget, not head alone."""
        fits = 0 < glance.values.get(PARAMETERS, 0) <= self.study.budget.parameters
        return glance.origin is Origin.REFERENCE and fits

    def states_text(self) -> str:
        """How many trials are in each state, in words."""
        counts = ((state.value.lower(), self.states[state]) for state in TrialState)
        return ", ".join(f"{count:,} {name}" for name, count in counts if count) or "none queued yet"

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row a measured trial with an adapter: trial, kind, label, digest, and a column for each objective."""
        placed = [
            (glance, place)
            for glance in self.complete
            if (glance.origin.is_shown or self.is_reference_point(glance))
            and (place := point(self.study, glance)) is not None
        ]
        columns: dict[str, list[object]] = {
            "trial": [glance.number for glance, _ in placed],
            "kind": [self.kind(glance) for glance, _ in placed],
            "label": list[object](short_labels([glance.label for glance, _ in placed])),
            "digest": [glance.digest for glance, _ in placed],
        }
        for position, objective in enumerate(self.study.objectives):
            columns[objective.name] = [place[position] for _, place in placed]
        return self.as_members(pd.DataFrame(columns), self.standing)

    def as_members(self, points: pd.DataFrame, standing: Standing[Glance]) -> pd.DataFrame:
        """``points`` with the kinds that they have in ``standing``; a plan with repeats stands at their mean."""
        members = {one.digest: one for one in (*standing.front, *standing.control)}
        searched = points["kind"].isin(("front", "dominated"))
        on_front = points["trial"].isin([one.number for one in standing.front])
        kinds = points["kind"].where(~searched, on_front.map({True: "front", False: "dominated"}))
        points = points.assign(kind=kinds)
        for row in points.index[points["digest"].isin(list(members))]:
            member = members[str(points.at[row, "digest"])]
            if member.number == points.at[row, "trial"]:
                points.loc[row, [one.name for one in self.study.objectives]] = list(point(self.study, member) or ())
            elif points.at[row, "kind"] == "dominated":
                points.loc[row, "label"] = f"repeat of trial {member.number}"
        return points

    def objective(self, name: str) -> Objective:
        """The objective of that name; the first where there is none."""
        return next((one for one in self.study.objectives if one.name == name), self.study.objectives[0])


@lru_cache(maxsize=64)
def _standing(board: Board, budget: int | None) -> Standing[Glance]:
    return standing(board.study, board.glances, budget)


def short_label(label: str | None) -> str:
    """The label of a control or reference, as short as a chart needs it: ``r=4 q+v``, ``prefix 8``, ``r=1 all``."""
    text = (label or "").removeprefix("LoRA ")
    return text.replace("query+value", "q+v").replace("all linear", "all")


def short_labels(labels: Sequence[str | None]) -> list[str]:
    """The same for all that one chart names: the learning rate that most of them share goes without saying."""
    short = [short_label(label) for label in labels]
    rates = Counter(label[label.index(" at ") :] for label in short if " at " in label)
    usual, count = rates.most_common(1)[0] if rates else ("", 0)
    return [label.removesuffix(usual) for label in short] if count > 1 else short


def is_better_low(objective: Objective) -> bool:
    """Whether the objective is to be minimised."""
    return objective.direction is Direction.MINIMISE


def said(name: str) -> str:
    """The name of a value for people: ``trainable_parameters`` is ``trainable parameters``."""
    return name.replace("_", " ")


def said_shortly(name: str) -> str:
    """The same where there is little room."""
    return "parameters" if name == PARAMETERS else said(name)


def shown_value(name: str, value: float) -> str:
    """A value for people: costs with their units, whole counts, the rest with four digits."""
    if name in objectives.KINDS:
        return show(name, value)
    if name.endswith("_bytes"):
        return f"{value:,.0f}"
    return f"{value:,.1f} s" if name.endswith("_seconds") else f"{value:,.4f}"
