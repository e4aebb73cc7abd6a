"""The values that pass between the machines: study, trial, order, measurement, observation. No I/O, no torch.

Objectives are stored as measured; ``autopeft.pareto`` flips signs in its one function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from autopeft.budget import Budget
from autopeft.errors import ConfigurationError, EvaluationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.space import SearchSpace, SpaceDefinition

PARAMETERS = "trainable_parameters"
"""Name of the cost objective."""


class TrialState(StrEnum):
    """Where a trial stands; only the five verbs change it."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    QUARANTINED = "QUARANTINED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether no verb but a request by hand moves the trial any more."""
        return self not in (TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED)


class Origin(StrEnum):
    """Who asked for a trial."""

    CONTROL = "control"
    REFERENCE = "reference"
    INITIAL = "initial"
    MODEL = "model"


class Direction(StrEnum):
    """Which way an objective is better."""

    MAXIMISE = "maximise"
    MINIMISE = "minimise"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is traded off, and which way is better."""

    name: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A backbone's weights and how a head is put on them.

    Attributes:
        source: ``minilm`` (the embedded one), a local folder, or a hub id.
        pooling: ``mean`` (mean over tokens + linear head) or ``stock`` (the family's classification head).
        sha256: Hash of the weights and the configuration, in hexadecimal.
    """

    source: str
    pooling: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much training a full trial is.

    Attributes:
        steps: Optimiser steps of the full run (the schedule's horizon).
        batch_size: Rows a step.
        max_length: Most tokens of a row.
    """

    steps: int
    batch_size: int
    max_length: int

    def __post_init__(self) -> None:
        """Refuses sizes below one."""
        for name, value in (("steps", self.steps), ("batch size", self.batch_size), ("max length", self.max_length)):
            if value < 1:
                raise ConfigurationError(f"{name} {value}: expected a whole number ≥ 1")


@dataclass(frozen=True, slots=True)
class Study:
    """One search: its question, budget and limits. What is stored is all that ``resume`` and a worker need.

    Attributes:
        name: Unique in a database; matches ``[A-Za-z0-9._-]{1,128}``.
        model: Weights and head.
        backbone: Shapes of the model.
        task: ``TaskSpec.to_json()`` of the task.
        task_name: Short name of the task.
        metric: Name of the quality objective, e.g. ``accuracy``.
        quality_floor: Score of the majority class or of chance, in the metric's unit.
        space: Definition of the search space.
        objectives: Quality first, then cost.
        budget: Limit on trainable parameters.
        fidelity: How much training a trial is.
        control_learning_rate: Learning rate of the control and of the head-only reference.
        proposer: Name of the proposer.
        initial_count: Proposals before the model takes over.
        trials: Proposals in all (control and reference come on top).
        hours: Wall-clock limit, or None.
        seed: Study seed.
        environment: Versions, device and data hash that the results rest on.
    """

    name: str
    model: ModelSpec
    backbone: Backbone
    task: Mapping[str, Any]
    task_name: str
    metric: str
    quality_floor: float
    space: SpaceDefinition
    objectives: tuple[Objective, ...]
    budget: Budget
    fidelity: Fidelity
    control_learning_rate: float
    proposer: str
    initial_count: int
    trials: int
    hours: float | None
    seed: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def search_space(self) -> SearchSpace:
        """The space, bound to the backbone."""
        return SearchSpace(self.space, self.backbone)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {
            "schema": "autopeft.study/1",
            "name": self.name,
            "model": {"source": self.model.source, "pooling": self.model.pooling, "sha256": self.model.sha256},
            "backbone": self.backbone.to_json(),
            "task": dict(self.task),
            "task_name": self.task_name,
            "metric": self.metric,
            "quality_floor": self.quality_floor,
            "space": self.space.to_json(),
            "objectives": [{"name": o.name, "direction": o.direction.value} for o in self.objectives],
            "budget": {"parameters": self.budget.parameters, "text": self.budget.text},
            "fidelity": {
                "steps": self.fidelity.steps,
                "batch_size": self.fidelity.batch_size,
                "max_length": self.fidelity.max_length,
            },
            "control_learning_rate": self.control_learning_rate,
            "proposer": self.proposer,
            "initial_count": self.initial_count,
            "trials": self.trials,
            "hours": self.hours,
            "seed": self.seed,
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Study:
        """The study that ``to_json`` wrote.

        Raises:
            ConfigurationError: If it is of another schema or lacks a field.
        """
        if data.get("schema") != "autopeft.study/1":
            raise ConfigurationError(f"study schema {data.get('schema')!r}: this version reads 'autopeft.study/1'")
        try:
            return cls(
                **{
                    **{key: value for key, value in data.items() if key != "schema"},
                    "model": ModelSpec(**data["model"]),
                    "backbone": Backbone.from_json(data["backbone"]),
                    "space": SpaceDefinition.from_json(data["space"]),
                    "objectives": tuple(Objective(o["name"], Direction(o["direction"])) for o in data["objectives"]),
                    "budget": Budget(**data["budget"]),
                    "fidelity": Fidelity(**data["fidelity"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"study cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came out of one trial at one rung with one seed; every number finite.

    Attributes:
        rung: Step of the fidelity ladder, 0 first.
        values: The metric, ``loss`` (validation), ``trainable_parameters``, ``train_seconds``, ``evaluate_seconds``.
        curve: (step, training loss) pairs.
        correct: Per validation row 1 or 0, in data order; empty for regression.
        artifact: Folder of the saved adapter and head, relative to the artifact root, or None.
        sha256: Hash of that folder's files, or None.
    """

    rung: int
    values: Mapping[str, float]
    curve: tuple[tuple[int, float], ...] = ()
    correct: tuple[int, ...] = ()
    artifact: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuses NaN and infinity, so that nothing below needs to care."""
        numbers = [*self.values.values(), *(loss for _, loss in self.curve)]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise EvaluationError(f"measurement is not finite: {json.dumps(dict(self.values))}")


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration in one study, with its state, as the record has it.

    Attributes:
        number: Number in the study, from 0.
        configuration: What is trained.
        digest: Digest of the configuration.
        state: Where it stands.
        origin: Who asked for it.
        label: Name for people (control and reference), or None.
        replicate: Repeat number; decides the data order.
        rung: Rungs finished.
        attempt: Attempts so far.
        owner: Worker that holds it, while running.
        values: Of its highest rung's measurement; empty before one.
        error: Reason of a failure with its traceback, or None.
    """

    number: int
    configuration: Configuration
    digest: str
    state: TrialState
    origin: Origin
    label: str | None
    replicate: int
    rung: int
    attempt: int
    owner: str | None
    values: Mapping[str, float]
    error: str | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration that somebody wants tried, ready for the queue."""

    configuration: Configuration
    origin: Origin
    label: str | None = None
    replicate: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """A leased trial: all that a worker needs to train it.

    Attributes:
        trial_id: Row of the trial.
        attempt: Number of this attempt: the fencing token.
        number: Number in the study.
        study: The study's specification.
        configuration: What to train.
        replicate: Repeat number.
        rung: Rung to train to.
    """

    trial_id: int
    attempt: int
    number: int
    study: Study
    configuration: Configuration
    replicate: int
    rung: int


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished point that the proposer sees.

    Attributes:
        configuration: As stored.
        values: Measured and exact objectives by name.
        counts: Whether it may stand on the search's front (the control informs the model but has a front of its own).
    """

    configuration: Configuration
    values: Mapping[str, float]
    counts: bool = True


@dataclass(frozen=True, slots=True)
class FrontRecord:
    """A front as it stood at one time.

    Attributes:
        trials: Numbers of the members, cheapest first.
        hypervolume: In [0, 1].
        completed: Trials finished when it was taken.
        seconds: Since the study was created.
    """

    trials: Sequence[int]
    hypervolume: float
    completed: int
    seconds: float
