"""The values that pass between the machines: study, trial, order, observation. No I/O, no torch.

Objectives are stored as measured; ``autopeft.pareto`` flips signs in its one function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from autopeft.budget import Budget
from autopeft.errors import ConfigurationError
from autopeft.fidelity import Fidelity as Fidelity
from autopeft.measurement import EXECUTION as EXECUTION
from autopeft.measurement import IMPORTANCE as IMPORTANCE
from autopeft.measurement import ROUTING as ROUTING
from autopeft.measurement import SELECTION as SELECTION
from autopeft.measurement import Measurement as Measurement
from autopeft.model_spec import ModelSpec as ModelSpec
from autopeft.probe import Guide
from autopeft.regime import USUAL, Regime
from autopeft.settings import CacheMode
from autopeft.states import Origin as Origin
from autopeft.states import TrialState as TrialState
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.space import SearchSpace, SpaceDefinition

PARAMETERS = "trainable_parameters"
"""Name of the cost objective."""

UNLIMITED = 100_000
"""Proposals of a search that ends by time alone."""

PROTOCOL = "3"
"""What a trial is: data order, schedule, starting values, rounding. Another number whenever the same trial would come
out differently; it stands in the environment of every measurement, so that no front mixes two."""


class Direction(StrEnum):
    """Which way an objective is better."""

    MAXIMISE = "maximise"
    MINIMISE = "minimise"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is traded off, and which way is better.

    Attributes:
        name: A metric, or a key of ``autopeft.objectives.KINDS``.
        direction: Which way is better.
        box: (best, worst) ends of its axis, where they were fixed when the study was made.
    """

    name: str
    direction: Direction
    box: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        written: dict[str, Any] = {"name": self.name, "direction": self.direction.value}
        return written | ({} if self.box is None else {"box": list(self.box)})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Objective:
        """The objective that ``to_json`` wrote; older records have no box."""
        best_worst = data.get("box")
        box = None if best_worst is None else (float(best_worst[0]), float(best_worst[1]))
        return cls(data["name"], Direction(data["direction"]), box)


@lru_cache(maxsize=8)
def _search_space(definition: SpaceDefinition, backbone: Backbone) -> SearchSpace:
    """One space for all who ask, because it remembers its tables and what it encoded."""
    return SearchSpace(definition, backbone)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A smaller sibling that the trials of a search train on; see ``autopeft.proxy``.

    Attributes:
        model: Its weights and head.
        backbone: Its shapes.
    """

    model: ModelSpec
    backbone: Backbone

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {"model": asdict(self.model), "backbone": self.backbone.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Proxy:
        """The proxy that ``to_json`` wrote."""
        return cls(ModelSpec(**data["model"]), Backbone.from_json(data["backbone"]))


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
        device_hours: Limit on the device time of all workers together, or None.
        hour_price: What an hour of a device costs, or None.
        proxy: What the trials of the search train on instead of the model, or None.
        seed: Study seed.
        environment: Versions, device and data hash that the results rest on.
        limits: Most allowed of further costs, by their names in ``autopeft.objectives.KINDS``.
        cache: How hidden states are kept.
        repeats: Most measurements of one configuration.
        guides: Scores that make its prior.
        confirmations: Fresh seeds that the front and the control are trained with when the search has ended.
        control_rates: Learning rates that the control chooses its own among; see ``autopeft.control``.
        references: Of ``search_spaces.references.NAMES``: what is trained then as well, to be shown beside the front.
        regime: How trials are computed: precision, recomputed layers, GPUs a worker.
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
    limits: Mapping[str, float] = field(default_factory=dict)
    cache: CacheMode = CacheMode.AUTO
    repeats: int = 1
    guides: tuple[Guide, ...] = ()
    confirmations: int = 0
    references: tuple[str, ...] = ()
    device_hours: float | None = None
    hour_price: float | None = None
    proxy: Proxy | None = None
    control_rates: int = 1
    regime: Regime = USUAL

    @property
    def search_space(self) -> SearchSpace:
        """The space, bound to the backbone."""
        return _search_space(self.space, self.backbone)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {
            "schema": "autopeft.study/1",
            "name": self.name,
            "model": self.model.to_json(),
            "backbone": self.backbone.to_json(),
            "task": dict(self.task),
            "task_name": self.task_name,
            "metric": self.metric,
            "quality_floor": self.quality_floor,
            "space": self.space.to_json(),
            "objectives": [objective.to_json() for objective in self.objectives],
            "budget": {"parameters": self.budget.parameters, "text": self.budget.text},
            "fidelity": self.fidelity.to_json(),
            "control_learning_rate": self.control_learning_rate,
            "proposer": self.proposer,
            "initial_count": self.initial_count,
            "trials": self.trials,
            "hours": self.hours,
            "seed": self.seed,
            "environment": dict(self.environment),
            **({"limits": dict(self.limits)} if self.limits else {}),
            "cache": self.cache.value,
            **({"repeats": self.repeats} if self.repeats > 1 else {}),
            **({"guides": [guide.to_json() for guide in self.guides]} if self.guides else {}),
            **({"confirmations": self.confirmations} if self.confirmations else {}),
            **({"references": list(self.references)} if self.references else {}),
            **({} if self.device_hours is None else {"device_hours": self.device_hours}),
            **({} if self.hour_price is None else {"hour_price": self.hour_price}),
            **({} if self.proxy is None else {"proxy": self.proxy.to_json()}),
            **({"control_rates": self.control_rates} if self.control_rates > 1 else {}),
            **({"regime": regime} if (regime := self.regime.to_json()) else {}),
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
                    "objectives": tuple(Objective.from_json(objective) for objective in data["objectives"]),
                    "budget": Budget(**data["budget"]),
                    "fidelity": Fidelity.from_json(data["fidelity"]),
                    "cache": CacheMode(data.get("cache", CacheMode.AUTO)),
                    "proxy": None if data.get("proxy") is None else Proxy.from_json(data["proxy"]),
                    "guides": tuple(Guide(**guide) for guide in data.get("guides", ())),
                    "references": tuple(data.get("references", ())),
                    "regime": Regime.from_json(data.get("regime", {})),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"study cannot be read: {error}") from error


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
        values: Of its highest rung's measurement; empty before one. They are those of the full run only if it is
            COMPLETE.
        error: Reason of a failure with its traceback, or None.
        lower: Values at each rung that it finished before its highest.
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
    lower: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def values_at(self, rung: int) -> Mapping[str, float] | None:
        """What was measured at ``rung``; None if it has not finished that."""
        return self.values or None if rung == self.rung - 1 else self.lower.get(rung)

    def with_values(self, values: Mapping[str, float]) -> Self:
        """The same trial with other values: the mean of its repeats, say."""
        return replace(self, values=values)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration that somebody wants tried, ready for the queue; ``rung`` is the first that it is measured at."""

    configuration: Configuration
    origin: Origin
    label: str | None = None
    replicate: int = 0
    priority: int = 0
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a trial stands between two steps, on disk.

    Attributes:
        rung: That it has finished, or was on its way to.
        path: Folder, relative to the artifact root.
        sha256: Hash of the folder's files.
    """

    rung: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Order:
    """A leased trial: all that a worker needs to train it.

    Attributes:
        trial_id: Row of the trial.
        attempt: Number of this attempt: the fencing token.
        number: Number in the study.
        study: The study's specification, as it is trained: of its sibling, if that stands in.
        configuration: What to train, on that.
        replicate: Repeat number.
        rung: Rung to train to.
        checkpoints: Of earlier attempts, the furthest first; what cannot be read is passed over.
        memory_failures: Attempts that ran out of memory: each halves the micro-batch.
        costs: Exact costs to record; None: those of what is trained.
    """

    trial_id: int
    attempt: int
    number: int
    study: Study
    configuration: Configuration
    replicate: int
    rung: int
    checkpoints: tuple[Checkpoint, ...] = ()
    memory_failures: int = 0
    costs: Mapping[str, float] | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Row of the trial and number of the attempt: what answers to the order name."""
        return self.trial_id, self.attempt


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
