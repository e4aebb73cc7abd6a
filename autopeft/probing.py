"""``autopeft importance`` and ``autopeft select`` as functions: settings in, a probe out, stored when it is whole.

The training runs in a child, which ends with this process; a probe that is killed leaves nothing in the record.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autopeft.api import Prepared, prepare
from autopeft.errors import ConfigurationError, EvaluationError
from autopeft.launch import child_environment, plan_workers, worker_command
from autopeft.probe import Probe, ProbeKind
from autopeft.settings import SearchSettings
from autopeft.store import Store
from autopeft.study import Study
from search_spaces.configuration import Configuration, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.methods.lora import Lora
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection

LEAST_STEPS = 100
"""A probe takes a tenth of a full trial's steps, but not fewer than these, nor more than the trial."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What is to be probed, and how.

    Attributes:
        how: A schedule for importance, a selection for selection; of a schedule, the layers it updates.
        rank: Rank of the LoRA that stands everywhere.
        sites: Modules that it stands at; None for all.
        learning_rate: Of the weights; None for that of the control.
        repeats: Runs whose scores are averaged.
        name: Of the probe; None for the next free one.
    """

    how: UpdateSchedule | Selection
    rank: int = 1
    sites: Sequence[str] | None = None
    learning_rate: float | None = None
    repeats: int = 1
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuses what no probe can be."""
        if self.repeats < 1:
            raise ConfigurationError(f"repeats {self.repeats}: expected a whole number ≥ 1")
        if isinstance(self.how, UpdateSchedule) and not self.how.learns:
            raise ConfigurationError("step size 0 learns no importance; expected a number above 0")

    @property
    def kind(self) -> ProbeKind:
        """What is scored."""
        return ProbeKind.IMPORTANCE if isinstance(self.how, UpdateSchedule) else ProbeKind.SELECTION


@dataclass(frozen=True, slots=True)
class Planned:
    """A probe before its training.

    Attributes:
        study: Model, task and training; recorded nowhere.
        configuration: What is trained.
        notes: Lines for people.
    """

    study: Study
    configuration: Configuration
    notes: tuple[str, ...]


def plan(settings: SearchSettings, request: ProbeRequest) -> Planned:
    """What ``request`` comes to on the model and the task of ``settings``.

    Raises:
        AutopeftError: If the model, the task or a site is not there.
    """
    prepared = prepare(replace(settings, study=None), [])
    study = prepared.study
    steps = settings.steps or (None if settings.epochs else _few(study.fidelity.steps))
    study = replace(study, fidelity=replace(study.fidelity, steps=steps or study.fidelity.steps, ladder=()))
    sites = list(request.sites) if request.sites else list(study.backbone.roles)
    rate = request.learning_rate or study.control_learning_rate
    plain = uniform(study.backbone, sites, Lora(request.rank, 2.0 * request.rank), rate)
    schedule = request.how if isinstance(request.how, UpdateSchedule) else None
    configuration = replace(plain, training=Training(rate, schedule))
    configuration.validate(study.backbone)
    return Planned(study, configuration, (*_kept(prepared), _described(study, configuration, request, sites)))


def run(store: Store, settings: SearchSettings, request: ProbeRequest, planned: Planned) -> Probe:
    """The probe, trained and stored.

    Raises:
        EvaluationError: If its training fails; nothing is stored then.
        StoreError: If its name is taken.
    """
    study, taken = planned.study, store.probe_names()
    name = request.name or next(
        free
        for number in range(1, len(taken) + 2)
        if (free := f"{study.task_name}-{request.kind}-{number}") not in taken
    )
    if name in taken:
        raise ConfigurationError(f"probe {name} exists: give another --name")
    found = _train(request, planned, settings.workers)
    probe = Probe(
        name=name,
        kind=request.kind,
        model=study.backbone.name,
        model_sha256=study.model.sha256,
        task=study.task_name,
        data_sha256=found["data_sha256"],
        configuration=planned.configuration.to_json(),
        settings={
            "steps": study.fidelity.steps,
            "batch_size": study.fidelity.batch_size,
            "max_length": study.fidelity.max_length,
            **request.how.to_json(),
        },
        seed=study.seed,
        repeats=request.repeats,
        split_sha256=found["split_sha256"],
        scores=found["scores"],
        details=found["details"],
    )
    store.record_probe(probe)
    return probe


def _few(steps: int) -> int:
    return min(steps, max(LEAST_STEPS, steps // 10))


def _kept(prepared: Prepared) -> list[str]:
    """The notes that a probe shares with a search: of its model, its task, and splits that were carved."""
    return [note for note in prepared.notes if not note.startswith(("space ", "budget ", "trial "))]


def _described(study: Study, configuration: Configuration, request: ProbeRequest, sites: Sequence[str]) -> str:
    count = trainable_parameters(configuration, study.backbone)
    return (
        f"probe    {request.kind}: LoRA of rank {request.rank} at {', '.join(sites)} of every layer "
        f"({count:,} parameters), {request.repeats} × {study.fidelity.steps} steps of "
        f"{study.fidelity.batch_size} rows, seed {study.seed}"
    )


def _train(request: ProbeRequest, planned: Planned, workers: str) -> dict[str, Any]:
    worker = plan_workers("1" if workers == "auto" else workers)[0]
    order = {
        "study": planned.study.to_json(),
        "configuration": planned.configuration.to_json(),
        "kind": request.kind.value,
        "repeats": request.repeats,
        "selection": request.how.to_json() if isinstance(request.how, Selection) else None,
        "device": worker.device,
        "threads": worker.threads,
        "parent": os.getpid(),
    }
    done = subprocess.run(
        worker_command("probe", "--plan", "-"),
        input=json.dumps(order),
        text=True,
        env=child_environment("", worker),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise EvaluationError(f"the probe ended with exit code {done.returncode}; its messages stand above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
