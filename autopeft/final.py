"""The final training as values: what is to be trained and how, one run a seed, and what all runs say together. Pure.

Seeds are replicates that no search uses, so that nothing that chose a configuration judges it: they begin at
``FRESH_SEEDS``. Errors of the mean over seeds hold the spread of the seeds and, where rows are right or wrong, that of
other rows (``autopeft.precision``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autopeft.errors import ConfigurationError
from autopeft.objectives import KINDS, PERPLEXITY
from autopeft.precision import Estimate, estimate
from autopeft.promise import Comparison, Figure, Promise, averaged, compare_cost, compare_quality, exactly
from autopeft.settings import CacheMode
from autopeft.study import Study
from search_spaces.configuration import Configuration

FRESH_SEEDS = 1000
"""The first seed of a final training if nobody names another; searches count theirs from 0."""

METRICS_FILE = "metrics.json"
LM_EVAL = "lm_eval"
"""Key of ``metrics.json``: what lm-evaluation-harness says of the kept adapter: ``version``, ``limit``, and ``tasks``,
each with its metrics and their errors."""

PLAN_FILE = "plan.json"
METRICS_SCHEMA = "autopeft.metrics/2"
PLAN_SCHEMA = "autopeft.final-plan/1"
RUN_SCHEMA = "autopeft.final-run/1"


@dataclass(frozen=True, slots=True)
class FinalSettings:
    """How final trainings are gone about.

    Attributes:
        seeds: Replicates, at least one.
        epochs: Passes over the rows; None: as searched.
        full_data: Whether validation rows are trained on too.
        precision: As ``autopeft.regime`` names it; None: as searched.
        micro_batch: Most rows in one forward pass; None: as searched.
        cache: How hidden states are kept; None: as searched.
        tracker: ``tensorboard``, ``mlflow``, ``wandb``, or None.
        checkpoint_steps: Steps between two checkpoints; None: a tenth of the run.
        reads_test: Whether the test split is scored at the end.
        lm_eval: Tasks of lm-evaluation-harness that the kept adapter is scored on at the end.
        lm_eval_limit: Most rows of each of them; None: all.
    """

    seeds: tuple[int, ...]
    epochs: float | None = None
    full_data: bool = False
    precision: str | None = None
    micro_batch: int | None = None
    cache: CacheMode | None = None
    tracker: str | None = None
    checkpoint_steps: int | None = None
    reads_test: bool = True
    lm_eval: tuple[str, ...] = ()
    lm_eval_limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {
            "seeds": list(self.seeds),
            "lm_eval": list(self.lm_eval),
            "cache": None if self.cache is None else self.cache.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FinalSettings:
        """The settings that ``to_json`` wrote."""
        cache = None if data["cache"] is None else CacheMode(data["cache"])
        seeds, tasks = tuple(data["seeds"]), tuple(data.get("lm_eval", ()))
        return cls(**{**data, "seeds": seeds, "cache": cache, "lm_eval": tasks})


@dataclass(frozen=True, slots=True)
class Training:
    """One configuration to be trained with every seed.

    Attributes:
        configuration: What is trained.
        provenance: Where it comes from: ``autopeft.export.provenance``.
        output: Folder.
    """

    configuration: Configuration
    provenance: Mapping[str, Any]
    output: Path

    @property
    def number(self) -> int:
        """Of its trial."""
        return int(self.provenance["trial"])

    @property
    def promise(self) -> Promise | None:
        """What the search says of it."""
        found = self.provenance.get("promise")
        return None if found is None else Promise.from_json(found)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        plan, output = self.configuration.to_json(), str(self.output)
        return {"configuration": plan, "provenance": dict(self.provenance), "output": output}


@dataclass(frozen=True, slots=True)
class FinalPlan:
    """All that the process needs that trains.

    Attributes:
        study: Model, data and training, as they are found here.
        settings: How to go about it.
        trainings: What is trained.
        device: ``cpu`` or ``cuda:N``.
        threads: CPU threads of a process.
        processes: That train together.
    """

    study: Study
    settings: FinalSettings
    trainings: tuple[Training, ...]
    device: str = "cpu"
    threads: int = 1
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {
            "schema": PLAN_SCHEMA,
            "study": self.study.to_json(),
            "settings": self.settings.to_json(),
            "trainings": [one.to_json() for one in self.trainings],
            "device": self.device,
            "threads": self.threads,
            "processes": self.processes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FinalPlan:
        """The plan that ``to_json`` wrote.

        Raises:
            ConfigurationError: If it is of another schema or lacks a field.
        """
        if data.get("schema") != PLAN_SCHEMA:
            raise ConfigurationError(f"plan schema {data.get('schema')!r}: this version reads {PLAN_SCHEMA!r}")
        try:
            trainings = tuple(
                Training(Configuration.from_json(one["configuration"]), one["provenance"], Path(one["output"]))
                for one in data["trainings"]
            )
            study, settings = Study.from_json(data["study"]), FinalSettings.from_json(data["settings"])
            return cls(study, settings, trainings, data["device"], int(data["threads"]), int(data["processes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"plan of a final training cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class FinalRun:
    """What came of one seed.

    Attributes:
        seed: Replicate.
        values: As in a measurement: the metric and the loss on validation, costs.
        curve: (step, training loss) pairs.
        correct: Per validation row 1 or 0; empty where rows are not right or wrong.
        sha256: Of adapter, configuration and head.
        details: As in a measurement.
        test: Score on the test split; None before that is read.
        test_loss: Mean loss there.
        test_correct: Per test row 1 or 0.
    """

    seed: int
    values: Mapping[str, float]
    curve: tuple[tuple[int, float], ...]
    correct: tuple[int, ...]
    sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)
    test: float | None = None
    test_loss: float | None = None
    test_correct: tuple[int, ...] = ()

    def scored(self, test: float, loss: float, correct: Sequence[int]) -> FinalRun:
        """The same with its score on the test split."""
        return replace(self, test=test, test_loss=loss, test_correct=tuple(correct))

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back; marks of rows are one text."""
        return {
            "schema": RUN_SCHEMA,
            "seed": self.seed,
            "values": dict(self.values),
            "curve": [list(one) for one in self.curve],
            "correct": "".join(map(str, self.correct)),
            "sha256": self.sha256,
            "details": dict(self.details),
            "test": self.test,
            "test_loss": self.test_loss,
            "test_correct": "".join(map(str, self.test_correct)),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FinalRun:
        """The run that ``to_json`` wrote."""
        plain = {name: value for name, value in data.items() if name != "schema"}
        plain["curve"] = tuple((int(step), float(loss)) for step, loss in data["curve"])
        return cls(**plain | {name: tuple(map(int, data[name])) for name in ("correct", "test_correct")})


def validation_estimate(metric: str, runs: Sequence[FinalRun]) -> Estimate:
    """The quality on validation, over the seeds."""
    return estimate([one.values[metric] for one in runs], [one.correct for one in runs if one.correct])


def test_estimate(runs: Sequence[FinalRun]) -> Estimate | None:
    """The quality on the test split, over the seeds; None if it was not scored."""
    scores = [one.test for one in runs if one.test is not None]
    if len(scores) < len(runs):
        return None
    return estimate(scores, [one.test_correct for one in runs if one.test_correct])


def cost_figures(runs: Sequence[FinalRun]) -> list[Figure]:
    """Every cost over the seeds; without the loss, which is of validation."""
    names = [name for name in KINDS if name not in ("loss", PERPLEXITY) and all(name in one.values for one in runs)]
    found = []
    for name in names:
        values = [one.values[name] for one in runs]
        is_one = KINDS[name].exact and len(set(values)) == 1  # runs of a trial that chooses its modules differ
        found.append(exactly(name, values[0]) if is_one else averaged(name, values))
    return found


def kept_run(metric: str, runs: Sequence[FinalRun], *, full_data: bool) -> tuple[FinalRun, str]:
    """The run whose adapter is handed over, and why: never by its score on the test split."""
    if full_data or len(runs) == 1:
        return runs[0], "the first seed" if len(runs) > 1 else "the only seed"
    return max(runs, key=lambda one: (one.values[metric], -one.seed)), f"the highest {metric} on validation"


def comparisons(
    study: Study, settings: FinalSettings, promise: Promise | None, runs: Sequence[FinalRun], steps: int
) -> list[Comparison]:
    """How far each promised value is from the final one; nothing without a promise.

    Args:
        study: Names the metric.
        settings: How it was trained.
        promise: What the search says.
        runs: One a seed.
        steps: Optimiser steps of a run.
    """
    if promise is None:
        return []
    as_searched = trained_as_searched(promise, steps, full_data=settings.full_data)
    splits = ("test",) if settings.full_data else ("validation", "test")
    found = [
        one
        for split in splits
        if (one := compared_quality(study.metric, promise, runs, split, as_searched=as_searched)) is not None
    ]
    costs = {one.name: one for one in cost_figures(runs)}
    both = [(figure, costs[figure.name]) for figure in promise.figures if figure.name in costs]
    return [*found, *(compare_cost(figure, measured, as_searched=as_searched) for figure, measured in both)]


def trained_as_searched(promise: Promise | None, steps: int, *, full_data: bool) -> bool:
    """Whether a run of so many steps is what the promise was made of."""
    return promise is not None and steps == promise.steps and not full_data


def compared_quality(
    metric: str, promise: Promise | None, runs: Sequence[FinalRun], split: str, *, as_searched: bool
) -> Comparison | None:
    """The quality on ``split`` beside the promised one; None where either is not there."""
    measured = test_estimate(runs) if split == "test" else validation_estimate(metric, runs)
    figure = None if promise is None else next((one for one in promise.figures if one.name == metric), None)
    if measured is None or figure is None:
        return None
    return compare_quality(figure, measured, split, as_searched=as_searched)


def differences(provenance: Mapping[str, Any], run: FinalRun, metric: str) -> list[str]:
    """What a reproduced run has otherwise than the trial in ``provenance``; empty if it is equal to the bit."""
    pairs: list[tuple[str, Any, Any]] = [
        (name, provenance["values"].get(name), run.values[name]) for name in (metric, "loss")
    ]
    pairs.append(("sha256 of the trained files", provenance.get("artifact_sha256"), run.sha256))
    return [
        f"{name}: {got!r}, the search has {want!r}" for name, want, got in pairs if want is not None and want != got
    ]
